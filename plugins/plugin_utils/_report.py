# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the steps of an incident to report.json, format 1 (report.schema.json beside this file is its contract).

PRIVATE to the collection.

Nothing here invents a number: what no step has said is null. The verdict is pass only when every needed step passed,
the loss is within the limit and every lost key is listed; a question that nobody could answer is could-not-verify.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shlex
import tempfile
import typing as t

from . import _report_input as given
from . import _report_parts as parts
from ._commands import options
from ._report_happened import happened
from ._report_input import FAIL, PASS, UNKNOWN
from ._report_run import ESCALATION, TOLD, Run
from ._report_words import ORDER, place

FORMAT = 1
NEEDED = ORDER
KEYS_SHOWN = 1000
#: Fewer reads than this say nothing about a hit rate.
ENOUGH_READS = 100
_DEFAULTS = {"hit_rate": 0.80, "max_loss": 0.10, "rto": 1800.0, "rpo": 900.0}

Report = t.Dict[str, t.Any]


def schema_path() -> str:
    """Where the JSON Schema (draft 2020-12) of report.json lies."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.schema.json")


def build_report(
    steps: t.Iterable[t.Any],
    *,
    incident: t.Optional[str] = None,
    namespace: t.Optional[str] = None,
    cluster: t.Optional[str] = None,
    slo: t.Optional[t.Mapping[str, t.Any]] = None,
    inventory: t.Sequence[str] = (),
    lost_listed: t.Optional[int] = None,
    unreadable: int = 0,
    now: t.Any = None,
) -> Report:
    """report.json as a dict, from the step dicts in the order in which they were written.

    ``slo`` is memory_slo; ``inventory``: those of the next command; ``lost_listed`` is the number of lines that
    lost_keys.jsonl really has; ``unreadable`` the number of step lines that could not be read; ``now`` (RFC 3339,
    datetime or microseconds) is the time of the report. Never raises on what the steps hold.
    """
    run = Run(steps)
    preflight = run.result("preflight")
    namespace = namespace or given.text(preflight.get("namespace"))
    targets, notes = _targets(slo)
    if unreadable:
        notes.append(f"{unreadable} line(s) of steps.jsonl could not be read and are not in this report")
    records, lost_keys, loss_ratio = _loss(run)
    listed = max(len(lost_keys), given.count(lost_listed) or 0)
    hit_rate = _hit_rate(run)
    rto, rpo, more = _objectives(run)
    notes += more
    for name in ("snapshot", "plan", "baseline"):  # what the plan leaves as it is, a repository that is another one
        notes += given.texts(run.result(name).get("warned"), 5)
    escalated = _escalated(run, loss_ratio, targets["max_loss"])
    reasons = _reasons(run, records, loss_ratio, listed, targets, hit_rate, escalated)
    verdict = given.worst(PASS, *(r["verdict"] for r in reasons))
    plan, diagnose, apply = run.result("plan"), run.result("diagnose"), run.result("apply")
    return {
        "format": FORMAT,
        "incident": incident or given.text(preflight.get("incident")),
        "namespace": namespace,
        "cluster": cluster or given.text(preflight.get("cluster")),
        "verdict": verdict,
        "state": run.state,
        "next_command": _next_command(run, verdict, escalated, namespace, inventory),
        "steps": [
            {
                "name": s.name,
                "verdict": s.verdict,
                "changed": s.changed,
                "started": s.started,
                "seconds": s.seconds,
                "detail": s.detail or (happened(s.name, s.result) if s.verdict == PASS else ""),
            }
            for s in sorted(run.current.values(), key=lambda s: place(s.name))
        ],
        "rto_seconds": rto,
        "rpo_seconds": rpo,
        "records": records,
        "lost_keys": lost_keys,
        "hit_rate": hit_rate,
        "accuracy": _accuracy(run),
        "causes": parts.causes(diagnose),
        "strategy": next(
            (
                s
                for s in (
                    given.text(apply.get("method")),
                    given.text(plan.get("strategy")),
                    given.text(diagnose.get("strategy")),
                )
                if s
            ),
            None,
        ),
        "snapshots": {
            "forensic": given.text(run.result("snapshot").get("snapshot")),
            "sources": [s["snapshot"] for s in parts.sources(plan)],
            "baseline": given.text(run.result("baseline").get("snapshot")),
        },
        "store": parts.stores(run),
        "details": {
            "generated": given.rfc3339(now) or given.rfc3339(datetime.datetime.now(datetime.timezone.utc)),
            "reasons": reasons,
            "notes": notes,
            "advice": next(
                (
                    a
                    for a in (
                        given.text(s.result.get("next_step"))
                        for s in reversed(list(run.current.values()))
                        if s.verdict != PASS
                    )
                    if a
                ),
                None,
            ),
            "not_run": [] if run.whole else [n for n in NEEDED if n not in run.current],
            "targets": targets,
            "loss_ratio": loss_ratio,
            "lost_listed": listed,
            "escalated": escalated,
            "attempts": run.attempts,
            "timeline": run.timeline(),
            "quarantine": run.quarantine,
            "fence": parts.fence(run),
            "forensic": parts.forensic(run.result("snapshot"), namespace),
            "onset": {
                "at": given.rfc3339(given.mapping(diagnose.get("onset")).get("at")),
                "sequence": given.count(given.mapping(diagnose.get("onset")).get("sequence")),
            },
            "findings": parts.counts(diagnose.get("findings")),
            "damage_map": parts.damage_map(diagnose.get("damage_map")),
            "hit_series": parts.series(given.mapping(diagnose.get("hit_rate")).get("series"))
            + parts.series(run.result("monitor").get("samples")),
            "errors_seen": parts.lines(diagnose.get("errors_seen")),
            "sources": parts.sources(plan),
            "suspect_keys": given.texts(plan.get("suspect_keys"), KEYS_SHOWN),
            "conflict_keys": given.texts(
                [
                    *given.sequence(plan.get("conflict_keys")),
                    *given.sequence(run.result("failback").get("conflict_keys")),
                ],
                KEYS_SHOWN,
            ),
            "could_not_verify": given.texts(plan.get("could_not_verify"), 100),
            "failover": parts.failover(run),
            "failback": parts.failback(run),
            "apply": {"method": given.text(apply.get("method")), "generation": parts.generation(apply)},
            "validate": parts.validation(run.result("validate")),
            "released_at": given.rfc3339(
                parts.switch(run).get("promoted_at") if run.whole else run.result("release").get("released_at")
            ),
            "first_write_at": given.rfc3339(_first_write(run)),
            "monitor": {
                "deadline": given.rfc3339(run.result("monitor").get("deadline")),
                "breaches": given.texts(run.result("monitor").get("breaches"), 100),
            },
            "notifications": [
                {
                    "sent": given.flag(told.get("sent")),
                    "to": given.text(told.get("to")),
                    "status": parts.words(told.get("status")),
                }
                for told in map(run.result, ESCALATION)
                if "sent" in told
            ],
        },
    }


def write_report(directory: str, report: Report, page: t.Optional[str] = None) -> t.Dict[str, str]:
    """Puts report.json, and report.html when ``page`` is given, into a directory; each appears whole or not at all.

    Returns {"json": path, "html": path}. Raises OSError.
    """
    os.makedirs(directory, mode=0o750, exist_ok=True)
    paths = {"json": os.path.join(directory, "report.json")}
    _replace(paths["json"], json.dumps(report, indent=2, allow_nan=False) + "\n")
    if page is not None:
        paths["html"] = os.path.join(directory, "report.html")
        _replace(paths["html"], page)
    return paths


def _replace(path: str, content: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".report-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o640)  # keys are people's data: not for everybody
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# --- verdict and next command ---------------------------------------------------------------------------------------


def _reasons(
    run: Run,
    records: t.Mapping[str, t.Optional[int]],
    loss_ratio: t.Optional[float],
    listed: int,
    targets: t.Mapping[str, t.Optional[float]],
    hit_rate: t.Mapping[str, t.Any],
    escalated: bool,
) -> t.List[t.Dict[str, str]]:
    """Everything that keeps this run from being a pass, one sentence each, the worst first."""
    found: t.List[t.Tuple[str, str]] = []
    for step in run.current.values():
        if step.verdict != PASS:
            title = step.name.replace("_", " ").capitalize()
            came = "failed" if step.verdict == FAIL else "could not be verified"
            found.append((step.verdict, f"{title} {came}" + (f": {step.detail}" if step.detail else ".")))
    missing = [] if run.whole else [name for name in NEEDED if name not in run.current]
    if missing:
        found.append((UNKNOWN, f"Not run: {', '.join(missing)}."))
    lost, expected, limit = records["lost"], records["expected"], targets["max_loss"]
    if limit is None:
        found.append((UNKNOWN, "The limit of the loss, memory_slo.max_loss, is not a number between 0 and 1."))
    if "plan" in run.current:
        if lost is None or expected is None:
            found.append((UNKNOWN, "How many records were lost is not known: the plan does not say."))
        elif loss_ratio is None:
            found.append((UNKNOWN, "The loss cannot be rated: no record was expected."))
        elif limit is not None and loss_ratio > limit:
            share = f"{lost:,} of {expected:,} records are lost"
            found.append((FAIL, f"{share}, more than the limit of {limit * 100:g} %."))
        if lost and listed < lost:
            found.append((FAIL, f"Only {listed:,} of the {lost:,} lost keys are listed."))
        found += [
            (UNKNOWN, f"The plan could not verify: {item}")
            for item in given.texts(run.result("plan").get("could_not_verify"), 100)
        ]
    if escalated:
        why = given.text(run.result("plan").get("escalate_reason")) or "disaster recovery decides what is released"
        found.append((FAIL, f"The run was escalated: {why}."))
    # an isolation that failed before it came to the fence proves nothing either way, and its own sentence says why
    if "isolate" in run.current and (run.state != "untouched" or run.passed("isolate")):
        proof = given.mapping(run.result("isolate").get("proof"))
        for what in ("writes", "reads"):
            refused = given.flag(proof.get(what + "_refused"))
            if refused is None or (not refused and given.text(proof.get("outside"))):
                found.append((UNKNOWN, f"It was not proven that the fence refuses {what}."))
            elif not refused:
                found.append((FAIL, f"The fence does not refuse {what}."))
    if run.failed_over and not run.whole:
        how = "is served read-only" if parts.failover(run)["read_only"] else "was failed over"
        found.append((UNKNOWN, f"The namespace {how} and is not home yet: failback has not been done."))
    if "monitor" in run.current:
        floor = targets["hit_rate"]
        if hit_rate["after"] is None:
            found.append((UNKNOWN, f"The hit rate after release is not known: fewer than {ENOUGH_READS} reads seen."))
        elif floor is None:
            found.append((UNKNOWN, "The wanted hit rate, memory_slo.hit_rate, is not a number between 0 and 1."))
        elif hit_rate["after"] < floor:
            rate = f"The hit rate after release is {hit_rate['after'] * 100:.1f} %"
            found.append((FAIL, f"{rate}, below {floor * 100:g} %."))
    bench = parts.benchmark(run.result("validate"))
    after, threshold = bench["after"], bench["threshold"]
    if after is not None and threshold is not None and after < threshold:
        found.append((FAIL, f"The benchmark's accuracy is {after * 100:.1f} %, below {threshold * 100:.1f} %."))
    if not found and run.state != "closed" and not run.whole:
        found.append((UNKNOWN, f"The incident is not closed: the namespace is {run.state}."))
    found.sort(key=lambda pair: pair[0] != FAIL)
    return [{"verdict": verdict, "text": sentence} for verdict, sentence in found]


def _escalated(run: Run, loss_ratio: t.Optional[float], limit: t.Optional[float]) -> bool:
    if run.state in ("released", "monitoring", "closed"):
        return False  # somebody decided
    plan = run.result("plan")
    if plan.get("escalate") is True or any(name in run.current for name in ESCALATION):
        return True
    # a reason to escalate beside a no: the owners accept the loss
    accepted = plan.get("escalate") is False and given.text(plan.get("escalate_reason")) is not None
    return not accepted and loss_ratio is not None and limit is not None and loss_ratio > limit


def _next_command(
    run: Run, verdict: str, escalated: bool, namespace: t.Optional[str], inventory: t.Sequence[str]
) -> str:
    """The command that continues from here; empty when nothing is left to do."""
    where = options(inventory)
    if run.whole:
        failed = [name for name in ("failback", "failover") if name in run.current and not run.passed(name)]
        ahead = failed[0] if failed else "failback" if run.failed_over else ""
        whole = f"ansible-playbook {where} memops.agent_memory.{ahead} -e memory_failover_scope=store"
        return whole if ahead else ""
    if any(s.verdict != PASS and s.result.get("error") == "namespace-unknown" for s in run.current.values()):
        return f"ansible-playbook {where} memops.agent_memory.info"  # it lists those that there are
    if {name for name in run.current if not name.startswith(TOLD)} == {"release"} and run.state == "untouched":
        return f"ansible-playbook {where} memops.agent_memory.info"  # there was no quarantine to lift
    if run.state == "released" and run.lifted_alone:
        return ""  # the incident ended with the release
    if run.state == "closed":
        playbook = "" if verdict == PASS else "validate"
    elif escalated:
        playbook = "disaster_recovery"
    elif run.state == "failed-over" and run.validated:
        playbook = "failback"
    elif run.state == "monitoring" or (run.state == "released" and run.passed("baseline")):
        playbook = "monitor"
    else:
        playbook = "rebuild"
    if not playbook:
        return ""
    if namespace is None:
        variable = "memory_namespace=<namespace>"
    elif re.fullmatch(r"[A-Za-z0-9_.:@/+-]+", namespace):
        variable = f"memory_namespace={namespace}"
    else:  # key=value would split at blanks
        variable = shlex.quote(json.dumps({"memory_namespace": namespace}))
    # a watch that ended without enough reads is over; only another one can pass
    more = " -e memory_again=true" if run.result("monitor").get("verdict") == UNKNOWN and playbook == "monitor" else ""
    return f"ansible-playbook {where} memops.agent_memory.{playbook} -e {variable}{more}"


# --- figures --------------------------------------------------------------------------------------------------------


def _targets(slo: t.Optional[t.Mapping[str, t.Any]]) -> t.Tuple[t.Dict[str, t.Optional[float]], t.List[str]]:
    wanted = {**_DEFAULTS, **{k: v for k, v in given.mapping(slo).items() if v is not None}}
    found: t.Dict[str, t.Optional[float]] = {
        "rto_seconds": given.duration(wanted["rto"]),
        "rpo_seconds": given.duration(wanted["rpo"]),
    }
    for name in ("hit_rate", "max_loss"):
        value = wanted[name]
        if isinstance(value, str):  # -e makes strings
            with contextlib.suppress(ValueError):
                value = float(value)
        found[name] = given.ratio(value)
    return found, [f"memory_slo: {name} is not usable" for name, value in found.items() if value is None]


def _loss(run: Run) -> t.Tuple[t.Dict[str, t.Optional[int]], t.List[str], t.Optional[float]]:
    plan, apply = run.result("failback" if run.whole else "plan"), run.result("apply")
    planned = given.mapping(plan.get("records"))
    keys = [k if isinstance(k, str) else json.dumps(k, default=str) for k in given.sequence(plan.get("lost_keys"))]
    told = [planned.get("lost"), plan.get("lost_total"), plan.get("lost") if run.whole else None]
    if run.whole and not run.result("failover").get("forced") and (run.passed("failover") or run.passed("failback")):
        told.append(0)  # everything was applied before the promotion
    known = [n for n in map(given.count, told) if n is not None]
    lost = max(known + [len(keys)]) if known or keys else None
    names = ("expected", "good_before", "damaged", "suspect", "conflicted")
    records = {name: given.count(planned.get(name)) for name in names}
    home = given.count(run.result("failback").get("conflicts"))
    if home is not None:
        records["conflicted"] = (records["conflicted"] or 0) + home
    repaired = given.count(apply.get("recovered"))
    records["recovered"] = repaired if repaired is not None else given.count(planned.get("repair"))
    if not run.passed("apply"):
        records["recovered"] = None  # planned is not recovered
    records["lost"] = lost
    expected = records["expected"]
    return records, keys[:KEYS_SHOWN], lost / expected if lost is not None and expected else None


def _hit_rate(run: Run) -> t.Dict[str, t.Any]:
    before = given.mapping(run.result("diagnose").get("hit_rate"))
    rate, reads = given.ratio(before.get("before")), given.count(before.get("samples"))
    if reads is not None and reads < ENOUGH_READS:
        rate = None
    watched = given.mapping(run.result("monitor").get("hit_rate"))  # the sum of the watch, when it says so itself
    samples = [watched] if watched else run.result("monitor").get("samples")
    samples = [
        {k: given.count(given.mapping(s).get(k)) for k in ("hits", "misses", "corrupt")}
        for s in given.sequence(samples)
    ]
    hits = sum(s["hits"] or 0 for s in samples)
    total = hits + sum((s["misses"] or 0) + (s["corrupt"] or 0) for s in samples)
    after = hits / total if total >= ENOUGH_READS else None if total else given.ratio(watched.get("value"))
    name = given.text(watched.get("source")) or "access log"  # of the rate after; the one before is always from there
    if name not in ("access log", "probes"):  # who was asked instead says how many it is of, or does not
        after, total = given.ratio(watched.get("value")), given.count(watched.get("reads")) or 0
    onset = given.mapping(run.result("diagnose").get("onset")).get("at")
    since = " (the rate before is that since the onset)" if rate is not None and given.moment(onset) else ""
    later = f"{total:,} reads after release" if total or name == "access log" else "after release"
    told = reads is not None and (reads > 0 or name == "access log")
    said = [f"access log: {reads:,} reads before the fence{since}"] if told else []
    if samples:
        said.append(later if said and name == "access log" else f"{name}: {later}")
    return {"before": rate, "after": after, "source": " and ".join(said) or None}


def _accuracy(run: Run) -> t.Dict[str, t.Optional[float]]:
    bench = parts.benchmark(run.result("validate"))
    return {"baseline": bench["baseline"], "after": bench["after"]}


def _first_write(run: Run) -> t.Any:
    """When applications could write again: on the secondary, where one took over, else after the release."""
    told = (run.result(name).get("first_write_at") for name in ("release", "monitor"))
    return next((value for value in told if given.rfc3339(value)), None)


def _objectives(run: Run) -> t.Tuple[t.Optional[float], t.Optional[float], t.List[str]]:
    """Recovery time and recovery point in seconds; what contradicts itself is said, not shown."""
    notes: t.List[str] = []
    rto = given.between(next((s.started for s in run.history if s.started), None), _first_write(run))
    if rto is not None and rto < 0:
        notes.append("The first write after release is dated before the start of the run: the clocks disagree")
        rto = None
    told = (run.result(name).get("newest_recovered_at") for name in ("failback", "apply", "plan"))
    newest = next((value for value in told if value), None)
    rpo = given.between(newest, parts.fence(run)["fenced_at"])
    if rpo is not None:
        rpo = max(0.0, rpo)  # a copy that went on after the fence lost no time
    return rto, rpo, notes
