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
import tempfile
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars
from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_figures as figures
from . import _report_input as given
from . import _report_parts as parts
from ._commands import options, whole_command
from ._report_happened import happened
from ._report_input import FAIL, PASS, UNKNOWN
from ._report_run import ESCALATION, TOLD, Run, moved_alone
from ._report_words import ORDER, place

FORMAT = 1
NEEDED = ORDER
_REFUSED = "cannot-proceed"  # before anything was done, so that there are no figures

Report = t.Dict[str, t.Any]


def build_report(
    steps: t.Iterable[t.Any],
    *,
    incident: t.Optional[str] = None,
    namespace: t.Optional[str] = None,
    cluster: t.Optional[str] = None,
    slo: t.Optional[t.Mapping[str, t.Any]] = None,
    inventory: t.Sequence[str] = (),
    only_cluster: str = "",
    lost_listed: t.Optional[int] = None,
    unreadable: int = 0,
    now: t.Any = None,
) -> Report:
    """report.json as a dict, from the step dicts in the order in which they were written.

    ``slo`` is memory_slo; ``inventory``: those of the next command, and ``only_cluster`` which of their clusters is
    meant, where there are several; ``lost_listed`` is the number of lines that lost_keys.jsonl really has;
    ``unreadable`` the number of step lines that could not be read; ``now`` (RFC 3339, datetime or microseconds) is the
    time of the report. Never raises on what the steps hold.
    """
    run, where = Run(steps), options(inventory, only_cluster)
    preflight = run.result("preflight")
    namespace = namespace or given.text(preflight.get("namespace"))
    targets, notes = figures.targets(slo)
    if unreadable:
        lines = counted(unreadable, "line")
        notes.append(f"{lines} of steps.jsonl could not be read, and this report lacks what stood there")
    records, lost_keys, loss_ratio = figures.loss(run)
    listed = max(len(lost_keys), given.count(lost_listed) or 0)
    hit_rate = figures.hit_rate(run)
    rto, rpo, more = figures.objectives(run)
    notes += more
    for name in ("snapshot", "plan", "baseline"):  # what the plan leaves as it is, a repository that is another one
        notes += given.texts(run.result(name).get("warned"), 5)
    escalated = _escalated(run, loss_ratio, targets["max_loss"])
    reasons = _reasons(run, records, loss_ratio, listed, targets, hit_rate, escalated)
    verdict = given.worst(PASS, *(r["verdict"] for r in reasons))
    following, advice = _next_command(run, verdict, escalated, namespace, where), _advice(run)
    if advice is not None and following and advice.endswith(following):  # the command stands by itself
        advice = advice[: -len(following)].rstrip(": ") or None
    if advice is not None and following and whole_command(advice) == advice:
        advice = None  # one command more to choose from: the step itself named it
    plan, diagnose, apply = run.result("plan"), run.result("diagnose"), run.result("apply")
    return {
        "format": FORMAT,
        "incident": incident or given.text(preflight.get("incident")),
        "namespace": namespace,
        "cluster": cluster or given.text(preflight.get("cluster")),
        "verdict": verdict,
        "state": run.state,
        "next_command": following,
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
        "accuracy": figures.accuracy(run),
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
            "advice": advice,
            "not_run": [] if run.whole else [n for n in NEEDED if n not in run.current],
            "targets": targets,
            "loss_ratio": loss_ratio,
            "lost_listed": listed,
            "lost_older": given.count(plan.get("lost_older")) or 0,
            "escalated": escalated,
            "attempts": run.attempts,
            "standing": run.standing,
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
            "absent": parts.absent(run, plan, incident, namespace, where),
            "kept": parts.kept(run, plan, incident, namespace, where),
            "suspect_keys": given.texts(plan.get("suspect_keys"), figures.KEYS_SHOWN),
            "conflict_keys": given.texts(
                [
                    *given.sequence(plan.get("conflict_keys")),
                    *given.sequence(run.result("failback").get("conflict_keys")),
                ],
                figures.KEYS_SHOWN,
            ),
            "could_not_verify": given.texts(plan.get("could_not_verify"), 100),
            "failover": parts.failover(run),
            "failback": parts.failback(run),
            "apply": {"method": given.text(apply.get("method")), "generation": parts.generation(apply)},
            "validate": parts.validation(run.result("validate")),
            "released_at": given.rfc3339(
                parts.switch(run).get("promoted_at") if run.whole else run.result("release").get("released_at")
            ),
            "first_write_at": given.rfc3339(figures.first_write(run)),
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
    if "plan" in run.current and run.result("plan").get("error") != _REFUSED:
        if lost is None or expected is None:
            found.append((UNKNOWN, "How many records were lost is not known: the plan does not say."))
        elif loss_ratio is None:
            found.append((UNKNOWN, "The loss cannot be rated: no record was expected."))
        elif limit is not None and loss_ratio > limit:
            share = f"{lost:,} of {counted(expected, 'record')} {'is' if lost == 1 else 'are'} lost"
            found.append((FAIL, f"{share}, more than the limit of {limit * 100:g} %."))
        if lost and listed < lost:
            found.append((FAIL, f"Only {listed:,} of the {lost:,} lost keys are listed."))
        found += [(UNKNOWN, f"The plan could not verify: {item}") for item in _untold(run)]
    if run.whole and run.homecoming.get("untold") is True:
        found.append((UNKNOWN, "What the former primary alone had acknowledged cannot be told."))
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
    if "monitor" in run.current and run.result("monitor").get("error") != _REFUSED:
        floor = targets["hit_rate"]
        if hit_rate["after"] is None:
            if run.passed("monitor"):  # else its own sentence says why
                few = f"fewer than {figures.ENOUGH_READS} reads seen"
                found.append((UNKNOWN, f"The hit rate after release is not known: {few}."))
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


def _advice(run: Run) -> t.Optional[str]:
    """What a person does before the next command: what the newest step that did not pass says, if it says any."""
    steps = list(run.current.values())
    if run.state == "released" and run.lifted_alone and run.passed("release"):
        steps = steps[list(run.current).index("release") :]  # what was asked for before is not needed any more
    said = (given.text(s.result.get("next_step")) for s in reversed(steps) if s.verdict != PASS)
    advice = next((text for text in said if text), None)
    if run.unharmed:
        return (
            "release it, where the alarm was false; where memories are wrong in a way that no check can see, run the "
            "playbook rebuild with memory_onset=<when it began>, which distrusts what was written since"
        )
    if run.state == "closed" and _untold(run) and advice is None:
        return (
            "show the owner of the namespace what the plan could not verify, and have the application delete once more "
            "what it had deleted before: no command can tell more, and a validation judges what is there now"
        )
    judged = run.current.get("validate")
    if advice or judged is None or judged.verdict != UNKNOWN or run.state not in ("quarantined", "failed-over"):
        return advice
    first, both = ("failback, then ", ", both") if run.failed_over else ("", "")
    return (
        "ask the owner of the namespace, since the same command finds the same again unless it gets more to judge by; "
        f"where they accept it as it is: the playbook {first}release{both} with memory_force=true"
    )


def _untold(run: Run) -> t.List[str]:
    """What the plan could not verify; no later look can."""
    return given.texts(run.result("plan").get("could_not_verify"), 100)


def _next_command(run: Run, verdict: str, escalated: bool, namespace: t.Optional[str], where: str) -> str:
    """The command that continues from here; empty when nothing is left to do."""
    if run.whole:
        failed = [name for name in ("failback", "failover") if name in run.current and not run.passed(name)]
        ahead = failed[0] if failed else "failback" if run.failed_over else ""
        whole = f"ansible-playbook {where} memops.agent_memory.{ahead} -e memory_failover_scope=store"
        if not ahead and verdict != PASS:  # nothing is left to do but to look what the store has
            return f"ansible-playbook {where} memops.agent_memory.info"
        return whole if ahead else ""
    if any(s.verdict != PASS and s.result.get("error") == "namespace-unknown" for s in run.current.values()):
        return f"ansible-playbook {where} memops.agent_memory.info"  # it lists those that there are
    fenced = run.current.get("isolate")
    if fenced is not None and fenced.result.get("error") == "capability-missing" and run.state == "untouched":
        # refused before anything was changed; a rebuild would be, too, until what preflight warns of is mended
        return f"ansible-playbook {where} memops.agent_memory.preflight -e {_variable(namespace)}"
    alone = {name for name in run.current if not name.startswith(TOLD)}
    if alone in ({"release"}, {"monitor"}, {"failback"}) and run.state == "untouched":
        return f"ansible-playbook {where} memops.agent_memory.info"  # nothing to lift, to watch or to bring home
    if alone == {"validate"} and run.state == "untouched" and run.passed("validate"):
        return ""  # nothing is wrong, and no incident is open
    if run.state == "released" and run.lifted_alone:
        return ""  # the incident ended with the release
    home = run.current.get("failback")
    refused = run.refusal
    if home is not None and home.verdict != PASS and run.state == "failed-over":
        refused = given.text(home.result.get("next_step")) or ""  # the same command finds the same again
    if whole_command(refused):
        return whole_command(refused)
    if run.state == "closed":
        playbook = "" if verdict == PASS else "validate"
    elif escalated:
        playbook = "info"  # are there more copies (docs/dr_plan.md)? Nothing is restored over a store with memories
    elif run.state == "failed-over" and (run.validated or (moved_alone(run.current) and run.passed("failover"))):
        playbook = "failback"
    elif run.state in ("quarantined", "rebuilt") and moved_alone(run.current) and _came_home(run):
        playbook = "release"
    elif run.state == "monitoring" or (run.state == "released" and run.passed("baseline")):
        playbook = "monitor"
    elif run.unharmed:
        playbook = "release"  # it is lifted as it is
    else:
        playbook = "rebuild"
    if not playbook:
        return ""
    # a watch that ended without enough reads is over; only another one can pass
    watched = run.result("monitor")
    more = " -e memory_again=true" if watched.get("verdict") == UNKNOWN and playbook == "monitor" else ""
    if more and given.count(watched.get("watch_seconds")):
        more += f" -e memory_monitor_seconds={watched['watch_seconds']}"
    return f"ansible-playbook {where} memops.agent_memory.{playbook} -e {_variable(namespace)}{more}"


def _came_home(run: Run) -> bool:
    """Whether it was away and is home; a failover that was not done leaves what nobody has judged."""
    return run.passed("failback") and run.result("failover").get("performed") is True


def _variable(namespace: t.Optional[str]) -> str:
    if namespace is None:
        return "memory_namespace=<namespace>"
    return extra_vars({"memory_namespace": namespace})
