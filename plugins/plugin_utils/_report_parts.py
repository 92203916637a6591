# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of report.json that are one step's own words, cleaned: causes, sources, damage map, fence, stores.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars

from . import _report_input as given
from ._report_run import Run

_NAMED = 10  # keys in one command


def series(value: t.Any) -> t.List[t.Dict[str, t.Any]]:
    found = []
    for item in map(given.mapping, given.sequence(value)[-2000:]):
        at = given.rfc3339(item.get("at"))
        if at is not None:
            found.append({"at": at, **{k: given.count(item.get(k)) for k in ("hits", "misses", "corrupt")}})
    return found


def counts(value: t.Any) -> t.Dict[str, int]:
    return {k: v for k, v in given.mapping(value).items() if given.count(v) is not None}


def size(value: t.Any) -> t.Optional[int]:
    """How many, from a number or from the things themselves."""
    return len(value) if isinstance(value, (list, tuple, dict)) else given.count(value)


def lines(value: t.Any) -> t.List[str]:
    """Log lines, each perhaps with what was made of it: {at, kind, line}."""
    found = []
    for item in given.sequence(value)[:100]:
        told = given.mapping(item)
        line = next((told[k] for k in ("line", "text", "message") if given.text(told.get(k))), item)
        found.append(line[:2000] if isinstance(line, str) else json.dumps(line, default=str)[:2000])
    return found


def words(value: t.Any) -> t.Optional[str]:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, default=str)[:500]


def causes(diagnose: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    found = []
    for item in map(given.mapping, given.sequence(diagnose.get("causes"))[:50]):
        cause = given.text(item.get("cause"))
        if cause:
            found.append(
                {
                    "cause": cause,
                    "confidence": given.ratio(item.get("confidence")),
                    "evidence": given.texts(item.get("evidence"), 50),
                }
            )
    return sorted(found, key=lambda c: -(c["confidence"] or 0.0))


def sources(plan: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    found = []
    for item in given.sequence(plan.get("sources"))[:200]:
        name = given.text(given.mapping(item).get("snapshot")) or given.text(item)
        if name:
            found.append({"snapshot": name, "records": given.count(given.mapping(item).get("records"))})
    return found


def absent(
    run: Run, plan: t.Mapping[str, t.Any], incident: t.Optional[str], namespace: t.Optional[str], where: str
) -> t.Dict[str, t.Any]:
    """What the plan left away, deleted or lost, and the command that brings it back."""
    keys = given.texts(plan.get("absent_keys"), 1000)
    snapshot = given.text(plan.get("absent_snapshot"))
    count = given.count(given.mapping(plan.get("records")).get("absent")) or 0
    command = None
    if keys and snapshot and namespace:
        chosen = {"memory_keys": keys} if len(keys) == count <= _NAMED else {"memory_pattern": "*"}
        command = _back(run, where, incident, namespace, snapshot, chosen, {"memory_absent": "restore"})
    return {"count": count, "keys": keys, "snapshot": snapshot, "command": command}


def kept(
    run: Run, plan: t.Mapping[str, t.Any], incident: t.Optional[str], namespace: t.Optional[str], where: str
) -> t.Dict[str, t.Any]:
    """What is other than in the last good snapshot and stayed; the command that puts the snapshot's in its place."""
    keys = given.texts(plan.get("newer_keys"), 1000)
    snapshot = given.text(plan.get("newest_snapshot"))
    count = given.count(plan.get("newer")) or 0
    command = None
    if namespace and snapshot and len(keys) == count and 0 < count <= _NAMED:
        chosen = {"memory_keys": keys}
        command = _back(run, where, incident, namespace, snapshot, chosen, chosen)
    return {"count": count, "keys": keys, "snapshot": snapshot, "command": command}


def _back(
    run: Run,
    where: str,
    incident: t.Optional[str],
    namespace: str,
    snapshot: str,
    chosen: t.Mapping[str, t.Any],
    before: t.Mapping[str, t.Any],
) -> str:
    """The command that brings them back as things stand. ``before``: until the repairs have begun the rebuild
    itself does it; while its incident is open a restore is a step of that."""
    if run.state == "quarantined" and "apply" not in run.current:
        more = extra_vars({"memory_namespace": namespace, **before})
        return f"ansible-playbook {where} memops.agent_memory.rebuild -e {more}"
    step = {"memory_incident": incident} if incident and run.state != "closed" else {}
    more = extra_vars({"memory_namespace": namespace, "memory_snapshot": snapshot, **chosen, **step})
    return f"ansible-playbook {where} memops.agent_memory.restore -e {more}"


def damage_map(value: t.Any) -> t.List[t.Dict[str, t.Any]]:
    """What is gone counts as damaged: its place is in the range, too."""
    found = []
    for item in map(given.mapping, given.sequence(value)[:200]):
        first, last = item.get("first_key"), item.get("last_key")
        if isinstance(first, str) and isinstance(last, str):
            found.append(
                {
                    "first_key": first,
                    "last_key": last,
                    **{k: _with_absent(item, k) for k in ("rows", "damaged")},
                    **{k: given.count(item.get(k)) for k in ("suspect", "lost")},
                }
            )
    return found


def _with_absent(item: t.Mapping[str, t.Any], name: str) -> t.Optional[int]:
    number = given.count(item.get(name))
    return number if number is None else number + (given.count(item.get("absent")) or 0)


def forensic(result: t.Mapping[str, t.Any], namespace: t.Optional[str]) -> t.Dict[str, t.Optional[int]]:
    """What the copy of the damaged state holds; a snapshot may say it per namespace."""
    inside = given.mapping(given.mapping(result.get("namespaces")).get(namespace or ""))
    found = {
        "records": result.get("records", inside.get("records")),
        "damaged": result.get("damaged", inside.get("damaged")),
        "bytes": result.get("bytes"),
    }
    if isinstance(found["damaged"], t.Mapping):
        found["damaged"] = given.mapping(found["damaged"]).get(namespace or "", inside.get("damaged"))
    if isinstance(found["bytes"], t.Mapping):
        found["bytes"] = given.mapping(found["bytes"]).get("stored")
    return {name: given.count(value) for name, value in found.items()}


def switch(run: Run) -> t.Dict[str, t.Any]:
    """Of a whole store, the newest change of servers that came as far as the fence, or as the promotion when forced."""
    results = (run.result("failback"), run.result("failover"))
    return next((r for r in results if given.text(r.get("fenced_at") or r.get("promoted_at"))), {}) if run.whole else {}


def fence(run: Run) -> t.Dict[str, t.Any]:
    if run.whole:
        return _fence_of_store(switch(run))
    result = run.result("isolate") or run.result("failover")  # which fences the home first
    proof = given.mapping(result.get("proof"))
    at = next((q["from"] for q in run.quarantine if q["from"]), None)
    return {
        "fenced_at": given.rfc3339(result.get("fenced_at")) or at,
        "writes_refused": given.flag(proof.get("writes_refused")),
        "reads_refused": given.flag(proof.get("reads_refused")),
        "detail": "; ".join(given.texts(proof.get("detail"), 20))[:2000] or None,
        "not_fenced": given.texts(proof.get("not_fenced"), 50),
    }


def _fence_of_store(result: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """The old primary's. Reads are not its matter: what it holds is what the new one took over."""
    proof = given.mapping(result.get("proof"))
    tried, fenced = given.text(proof.get("tried_on")), given.count(proof.get("fenced"))
    told = [
        f"{fenced:,} namespace{' was' if fenced == 1 else 's were'} fenced" if fenced is not None else "",
        f"a write to {tried} was refused before the replica took over" if tried else "",
        "the former primary refused a write afterwards" if proof.get("old_refuses_writes") is True else "",
        "the new primary accepted one" if proof.get("new_accepts_writes") is True else "",
    ]
    refused = given.flag(proof.get("writes_refused"))
    return {
        "fenced_at": given.rfc3339(result.get("fenced_at")),
        "writes_refused": False if proof.get("old_refuses_writes") is False else refused,
        "reads_refused": None,
        "detail": "; ".join(part for part in told if part)[:2000] or None,
        "not_fenced": given.texts(proof.get("not_fenced"), 50),
    }


def failover(run: Run) -> t.Dict[str, t.Any]:
    result = run.result("failover")
    return {
        "performed": given.flag(result.get("performed")),
        "from": _from(run, result),
        "to": _place(result.get("to")),
        "read_only": given.flag(result.get("read_only")),
        "lag_seconds": given.number(result.get("lag_seconds")),
        "route": _place(result.get("route")),
        "reason": given.text(result.get("reason")),
        "scope": given.text(result.get("scope")) or ("namespace" if result else None),
        "forced": given.flag(result.get("forced")),
        "outside_fence": given.text(result.get("outside_fence")),
        "epoch": given.count(result.get("epoch")),
        "position_before": given.count(result.get("position_before")),
        "position_after": given.count(result.get("position_after")),
        "silent_seconds": given.number(result.get("silent_seconds")),
        "verified_at": given.rfc3339(result.get("verified_at")),
    }


def failback(run: Run) -> t.Dict[str, t.Any]:
    result = run.result("failback")
    return {
        **{name: size(result.get(name)) for name in ("merged", "conflicts")},
        "scope": given.text(result.get("scope")) or ("namespace" if result else None),
        "epoch": given.count(result.get("epoch")),
        "position_before": given.count(result.get("position_before")),
        "position_after": given.count(result.get("position_after")),
        "lag_seconds": given.number(result.get("lag_seconds")),
        "verified_at": given.rfc3339(result.get("verified_at")),
        "lost": given.count(result.get("lost")),
        "lost_file": given.text(result.get("lost_file")),
        "forensic": given.text(result.get("forensic")),
        "notes": given.texts(result.get("notes"), 20),
    }


def _from(run: Run, result: t.Mapping[str, t.Any]) -> t.Optional[str]:
    """The home of the namespace, by its host's name where the other side has one."""
    came = given.store(result.get("from")) or {}
    home = run.current["preflight"].host if "preflight" in run.current else ""
    named = "host" in came or "name" in came or "host" not in (given.store(result.get("to")) or {})
    return _place(came) if named or not home else home


def _place(value: t.Any) -> t.Optional[str]:
    shown = given.store(value) or {}
    return next((str(shown[k]) for k in ("host", "name", "path", "store_id") if k in shown), None)


def generation(apply: t.Mapping[str, t.Any]) -> t.Dict[str, t.Optional[int]]:
    moved = given.mapping(apply.get("generation"))
    return {"from": given.count(moved.get("from")), "to": given.count(moved.get("to"))}


def stores(run: Run) -> t.Dict[str, t.Any]:
    """Where the namespace was served before and is served now, with the generation when it changed."""
    if run.whole:
        newest = next((name for name in ("failback", "failover") if run.result(name)), "")
        result = run.result(newest)
        left, reached = (given.store(result.get(side)) for side in ("from", "to"))
        return {"before": left, "after": reached if run.passed(newest) else left if run.state == "untouched" else None}
    before = given.store(run.result("preflight").get("store"))
    after = given.store(run.result("failover").get("to")) if run.failed_over else before
    moved = generation(run.result("apply"))
    if before is not None and moved["from"] is not None:
        before = {**before, "generation": moved["from"]}
    if after is not None and moved["to"] is not None and not run.failed_over:
        after = {**after, "generation": moved["to"]}
    return {"before": before, "after": after}


def benchmark(result: t.Mapping[str, t.Any]) -> t.Dict[str, t.Optional[float]]:
    told = given.mapping(result.get("benchmark"))
    return {
        "baseline": given.ratio(told.get("baseline")),
        "after": given.ratio(told.get("after", told.get("accuracy"))),
        "threshold": given.ratio(told.get("threshold")),
    }


def validation(result: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    probes, canary = given.mapping(result.get("probes")), result.get("canary")
    findings = result.get("findings", given.mapping(result.get("integrity")).get("findings"))
    if isinstance(findings, t.Mapping):
        findings = sum(counts(findings).values())
    if isinstance(canary, t.Mapping):
        canary = ": ".join(w for w in (given.text(canary.get("verdict")), given.text(canary.get("why"))) if w)
    return {
        "findings": size(findings),
        "probes": {k: given.count(probes.get(k)) for k in ("checked", "passed")},
        "threshold": benchmark(result)["threshold"],
        "cases": size(given.mapping(result.get("benchmark")).get("cases")),
        "canary": {True: "came back", False: "did not come back"}[canary]
        if isinstance(canary, bool)
        else words(canary),
    }
