# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Diagnose one namespace: scan it, read its log and the application's lines, draft the plan, name the causes.

PRIVATE to the collection.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import tempfile
import typing as t
from dataclasses import dataclass, replace

from .._errors import CannotProceed, InvalidInput, MemoryOpsError
from .._inputs import moment
from .._search import Search, need_search
from .._store import Reader, Store
from . import (
    application_access_log,
    application_benchmark,
    application_spans,
    error_lines,
    integrity,
    plan_unlogged,
    sources,
)
from . import benchmark as benchmarks
from . import incident as incidents
from .access_log_reading import LogReading, read_beside
from .commands import run as command
from .diagnose import diagnose
from .incident import Journal, Run, microseconds, now_us
from .incoming import checked
from .other_copies import OtherCopies
from .plan_draft import Case, drafted, drafted_unlogged
from .plan_file import PlanFile
from .plan_unlogged import Window, told, told_otherwise
from .probes import fix_probes
from .workers import Worker

LOOK_BACK_US = 24 * 3600 * 1_000_000


def investigate(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    repository: t.Any | None,
    name: str,
    run: Run,
    logs: t.Sequence[t.Any] = (),
    benchmark: str | None = None,
    search: Search | None = None,
    onset: str | None = None,
    window: Window | None = None,
    again: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """The diagnosis of an open incident (or, in check mode, of the namespace as it is).

    Done once per incident: what it saw is what the damage was, also after repairs. ``again`` starts over, and so does
    another window than it was made with. ``window`` is what the operator says of the damage; only a layout without an
    access log needs it.
    Returns diagnose()'s mapping and {incident, changed, findings, rows, damage_map, probes, baseline, log_health, …}.
    """
    with store.reader() as reader:
        state = reader.namespace(namespace)
        onset_sequence = _sequence_at(reader, namespace, onset)
    logged = "log" in store.capabilities()
    need_search(store, benchmark, search, namespace)
    if window is not None and window.rebase:
        checked(store, "rebase")
    window = window_of(onset, window, logged)
    case = _Diagnosis(
        store, store_params, namespace, keyring, repository, name, logs, benchmark, search, onset_sequence, state.ttl,
        window,
    )  # fmt: skip
    incident, known = incidents.facts(store, namespace, run.incident)
    said = told(onset, window)
    # fenced anew after a release in this incident: what was found and repaired before that is another damage
    again = again or (state.state == "quarantined" and known.get("diagnosed_after") != known.get("released_at"))
    if not again and told_otherwise(known, said):
        if any(known.get(begun) for begun in ("applied", "building", "placed")):
            raise CannotProceed(
                f"The plan for {namespace} was made for another window of the damage, and its repairs have begun.",
                "leave memory_onset, memory_since, memory_until, memory_keys, memory_pattern and "
                "memory_restore_expiry as they were, or plan anew on top of what was repaired: add these to "
                + command("diagnose", memory_namespace=namespace, memory_again="true"),
            )
        again = True
    if check or incident is None:
        refusal = CannotProceed(
            f"{namespace} has no open incident to diagnose.",
            f"isolate it first: {command('isolate', memory_namespace=namespace)}",
        )
        if not check:
            raise refusal
        with incidents.own_files(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="memops-") as scratch:
            found = case.investigate(scratch, known, check=True)
        alone = {} if incident else {"refused": str(refusal)}
        return {**found, **alone, "incident": incident, "changed": again or not known.get("diagnosed")}
    folder = incidents.folder(store_params, incident, run.work_dir)
    saved = os.path.join(folder, "diagnosis.json")
    if known.get("diagnosed") and not again and os.path.exists(saved):
        with incidents.own_files(folder), open(saved, encoding="utf-8") as stream:
            return {**json.load(stream), "changed": False}
    claim = incidents.claim(store, namespace, run)
    with incidents.own_files(folder), Journal(folder).step("diagnose", run) as outcome:
        if known.get("diagnosed"):
            _start_over(store, claim, known)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "lost_keys.jsonl"))  # of a former diagnosis
        found = case.investigate(folder, known, check=False)
        found["incident"] = incident
        with open(saved + ".new", "w", encoding="utf-8") as stream:
            json.dump(found, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(saved + ".new", saved)
        store.note(
            claim,
            diagnosed=True,
            diagnosed_after=known.get("released_at"),
            probes=found["probes"],
            baseline=found["baseline"],
            onset=found["onset"],
            told=said,
            proposed=found["strategy"],
            structure_broken=found["structure_broken"] or None,
        )
        outcome.update(
            strategy=found["strategy"], findings=found["findings"], causes=[c["cause"] for c in found["causes"]]
        )
    return {**found, "changed": True}


def _start_over(store: Store, claim: t.Any, known: t.Mapping[str, t.Any]) -> None:
    """What the former plan began is not mixed with the new one: its unfinished generation goes.

    What it carried out stands, and the new plan is carried out on top of it.
    """
    with store.reader() as reader:
        active = reader.namespace(claim.namespace).generation
    building = known.get("building")
    settled = ("diagnosed", "plan", "applied", "validated", "building", "placed", "switched_to", "rebased_to")
    store.note(claim, **dict.fromkeys(settled))
    if building is not None and building != active and building in store.generations(claim.namespace):
        store.drop_generation(claim, building)


@dataclass
class _Diagnosis:
    """One namespace to be diagnosed, and what that is done with."""

    store: Store
    store_params: t.Mapping[str, t.Any]
    namespace: str
    keyring: t.Any
    repository: t.Any | None
    name: str
    logs: t.Sequence[t.Any]
    benchmark: str | None
    search: Search | None
    onset_sequence: int | None
    ttl: float | None
    window: Window | None  # None: the access log tells

    def investigate(self, folder: str, known: t.Mapping[str, t.Any], *, check: bool) -> dict[str, t.Any]:
        """``folder`` gets the plan and the list of damaged keys."""
        doubts: list[str] = []
        logs, span_sources = application_spans.split(self.logs)
        chosen = sources.Sources([], [])
        if self.repository is not None:
            try:
                others = OtherCopies(self.store, self.namespace)
                chosen = sources.choose(self.repository, self.name, self.keyring, self.namespace, others=others)
            except MemoryOpsError as exc:
                if not check:
                    raise  # a plan made without the snapshots would call lost what they hold
                doubts.append(f"snapshots could not be looked at: {exc.message}")
        keys_back = sources.bring_keys(chosen, self.keyring, check=check)
        damage_file, target = os.path.join(folder, "damage.db"), os.path.join(folder, "plan.db")
        fenced = microseconds(known.get("fenced_at")) or now_us()
        settled = incidents.settled(self.store, self.namespace)
        reading = LogReading(
            self.namespace, self.onset_sequence, fenced - LOOK_BACK_US, fenced, settled, target + ".log"
        )
        beside = Worker(
            read_beside, dict(self.store_params), reading, check
        )  # the log, while the records are read here
        try:
            scan = integrity.scan(
                store_params=self.store_params,
                keyring=self.keyring,
                namespace=self.namespace,
                damage_file=damage_file,
                structure=False,
                application=True,
            )
            errors = error_lines.scan(logs) if logs else []
            spans = application_spans.read(
                span_sources, namespace=self.namespace, store=self.name, since=fenced - LOOK_BACK_US, until=fenced
            )
            errors += spans.pop("errors")
            theirs = application_access_log.read(self.store, self.namespace)
            errors += theirs["errors"] if theirs else []
            kind, said = beside.receive()
            if kind == "broken":
                beside.send("mend it: nothing is read here any more")
                kind, said = beside.receive()
            structure, log = said
        finally:
            beside.stop()
        doubts += [
            f"spans could not be read from {one['source']}: {one['reason']}"
            for one in spans["sources"]
            if one["status"] != "read"
        ]
        doubts += theirs["doubts"] if theirs else []
        if structure.broken:
            doubts.append("the store's own structure is damaged beyond what the engine can rebuild in place")
        with self.store.reader() as reader:
            if check and reader.identity.sequence != log.sequence:  # nothing is fenced: somebody wrote meanwhile
                log = reading.read(reader)
            probes: list[dict[str, t.Any]] = []
            case = Case(self.store, self.namespace, self.keyring, reader, chosen, damage_file, target)
            if self.window is None:
                draft = drafted(case, log)
            else:
                draft, probes = drafted_unlogged(case, self.store_params, self.window)
                doubts.append(
                    "there is no access log: who wrote what, and when, is known from memory_logs and the operator alone"
                )
            with PlanFile.open(draft["plan_file"]) as planned:
                reasons = planned.reasons()
                damage_map = _damage_map(scan["damage_map"], planned)
                missing = planned.absent()
            findings = {**scan["findings"], "absent": sum(reasons.get(one, 0) for one in plan_unlogged.GONE)}
            if self.window is not None:
                findings["changed"] = sum(n for reason, n in reasons.items() if "inside the window" in reason)
                findings["silent-change"] = sum(reasons.get(one, 0) for one in plan_unlogged.UNSAID)
            found = diagnose(
                review=log.review,
                findings=findings,
                rows=scan["rows"],
                log_health=log.health,
                errors=errors,
                structure=structure.found,
                deletions=spans["deletions"],
                ttl=self.ttl,
                examples=scan["examples"],
                logged=self.window is None,
            )
            if found["strategy"] == "none" and reasons:
                found["strategy"] = "soft"  # nothing is damaged, but suspect or stale versions are served
            onset = found["onset"]
            onset_at = microseconds(onset["at"]) if onset else None
            found["hit_rate"]["before"] = _rate_since(found["hit_rate"]["series"], onset["at"] if onset else None)
            if self.window is None:
                probes = fix_probes(
                    reader=reader,
                    namespace=self.namespace,
                    before_sequence=self.onset_sequence,
                    before_at=onset_at or fenced,
                )
            baseline, why = benchmarks.accuracy(  # on the damaged state: what the rebuild has to beat
                self.store, reader, self.namespace, self.keyring, self.benchmark, self.search
            )
            doubts += [f"the benchmark has no baseline: {why}"] if why else []
            if self.benchmark is None:
                rated = application_benchmark.rating(self.store, self.namespace)
                baseline = rated.accuracy if rated else None
        return {
            **found,
            "findings": {kind: n for kind, n in findings.items() if n},
            "examples": scan["examples"][:50],
            "rows": scan["rows"],
            "damage_map": damage_map,
            "structure": structure.found,
            "structure_repairs": structure.mended,
            "structure_broken": structure.broken,
            "errors_seen": errors,
            "spans_seen": spans if span_sources else None,
            "own_log": theirs and {name: theirs[name] for name in ("entries", "operations")},
            "log_health": log.health,
            "probes": probes,
            "baseline": baseline,
            "keys_back": keys_back,
            "passed_over": chosen.passed_over,
            "doubts": doubts,
            "distrusted": [w.__dict__ for w in log.distrust],
            "draft": draft,
            "missing": missing,
        }


def _damage_map(buckets: t.Sequence[t.Mapping[str, t.Any]], planned: PlanFile) -> list[dict[str, t.Any]]:
    """The scan's buckets with what the plan found in each key range: changed (damaged, too), absent, suspect, lost."""
    found = [{**bucket, "absent": 0, "suspect": 0, "lost": 0} for bucket in buckets]
    firsts = [bucket["first_key"] for bucket in found]
    if not found:
        return []
    for batch in planned.entries():
        for entry in batch:
            cell = found[max(0, bisect.bisect_right(firsts, entry.key) - 1)]
            if entry.action in ("suspect", "lost"):
                cell[entry.action] += 1
            if entry.reason in plan_unlogged.GONE:
                cell["absent"] += 1
            elif entry.reason in plan_unlogged.OTHERWISE:
                cell["damaged"] += 1
    return found


def window_of(onset: str | None, given: Window | None, logged: bool) -> Window | None:
    """What the operator says of the damage, where nothing else tells. Errors: InvalidInput."""
    if logged:
        return None
    window = given or Window()
    if not onset:
        return window
    if onset.isdigit():
        raise InvalidInput(
            f"memory_onset is {onset}, and these records have no sequences.", "give a time such as 2026-01-31T12:00:00Z"
        )
    return replace(window, onset=moment(onset))


def _sequence_at(reader: Reader, namespace: str, onset: str | None) -> int | None:
    """A given onset as a sequence: itself, or that of the first write logged at a time or after it."""
    if not onset:
        return None
    if onset.isdigit():
        return int(onset)
    at = microseconds(onset) or 0
    for batch in reader.log(namespace):
        for entry in batch:
            if entry[3] in ("write", "delete") and entry[1] >= at and entry[6] is not None:
                return int(entry[6])
    return int(reader.identity.sequence) + 1


def _rate_since(series: t.Sequence[t.Mapping[str, t.Any]], onset: str | None) -> float | None:
    """The hit rate between the onset and the fence."""
    rows = [row for row in series if onset is None or row["at"][:19] >= onset[:19]]
    hits = sum(row["hits"] for row in rows)
    asked = hits + sum(row["misses"] + row["corrupt"] for row in rows)
    return hits / asked if asked else None
