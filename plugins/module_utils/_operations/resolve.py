# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan step and the apply step of an incident.

PRIVATE to the collection. The draft that the diagnosis made is the plan; this chooses the strategy, weighs the loss
against the limit and carries the plan out.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._model import CHECKSUM, EXPIRES, STRATEGIES
from .._store import Store
from . import apply, integrity, lost_ttl, plan_summary, sources
from . import incident as incidents
from .commands import back_by, counted, named, put_back
from .commands import run as command
from .fence_check import need_fence
from .forgotten import refuse_forgotten
from .incident import Journal, Run, now_us
from .incoming import Incoming, checked
from .plan_file import PlanFile
from .plan_unlogged import Window, told, told_otherwise

ABSENT = ("auto", "keep", "restore")


def decide(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    open_keyring: t.Callable[[], t.Any],
    open_repository: t.Callable[[], t.Any],
    name: str,
    run: Run,
    window: Window | None = None,
    onset: str | None = None,
    strategy: str = "auto",
    max_loss: float = 0.10,
    accept_loss: bool = False,
    absent: str = "auto",
    check: bool = False,
) -> dict[str, t.Any]:
    """Fix the strategy of the incident's plan and say whether it may be carried out.

    ``absent``: keep | restore, for keys of which nobody knows whether they were deleted or lost (auto: restore what is
    missing inside the window of the damage, keep the rest).
    Returns plan_summary.summary() and {incident, changed, strategy, escalate, escalate_reason, warnings, absent_keys,
    absent_snapshot, listed {what becomes of them: {key: reason}} of the first keys}.
    Errors: CannotProceed without a diagnosis, InvalidInput.
    """
    if strategy not in STRATEGIES:
        raise InvalidInput(
            f"There is no strategy {strategy!r:.40}.", f"set memory_strategy to one of: {', '.join(STRATEGIES)}"
        )
    if not 0 <= max_loss <= 1:
        raise InvalidInput(f"max_loss is a share from 0 to 1, not {max_loss}.", "correct memory_slo.max_loss")
    if absent not in ABSENT:
        raise InvalidInput(f"memory_absent is {absent!r:.40}.", f"set it to one of: {', '.join(ABSENT)}")
    if strategy == "rotate" and "encryption" not in store.capabilities():
        raise CapabilityMissing(
            f"The keys of {namespace} cannot be rotated: its layout has no encryption of ours.",
            "set memory_strategy to auto, and rotate the keys of the application with its own tools (those of a memory "
            "object with the playbook rotate_keys)",
        )
    if window is not None and window.rebase:
        checked(store, "rebase")
    incident, known = incidents.facts(store, namespace, run.incident)
    folder = ""
    window = window if "log" not in store.capabilities() else None
    otherwise = told_otherwise(known, told(onset, window))
    if otherwise and not check:
        raise CannotProceed(
            f"The diagnosis of {namespace} was made for another window of the damage.",
            "diagnose first, with the same memory_onset, memory_since, memory_until, memory_keys, memory_pattern and "
            f"memory_restore_expiry: {command('diagnose', memory_namespace=namespace)}",
        )
    if incident is not None and known.get("diagnosed") and not otherwise:
        folder = incidents.folder(store_params, incident, run.work_dir)
        with incidents.own_files(folder), PlanFile.open(os.path.join(folder, "plan.db"), namespace) as planned:
            summary = _with_absent(plan_summary.summary(planned), planned.absent(), absent, namespace)
    elif check:
        from .diagnose_step import investigate  # apply and a plan that is there can do without loading it

        found = investigate(
            store=store,
            store_params=store_params,
            namespace=namespace,
            keyring=open_keyring(),
            repository=open_repository(),
            name=name,
            run=run,
            onset=onset,
            window=window,
            check=True,
        )
        summary = _with_absent(found["draft"], found["missing"], absent, namespace)
        known = {**known, "proposed": found["strategy"]}
    else:
        raise CannotProceed(
            f"{namespace} has no diagnosed incident.", command("diagnose", memory_namespace=namespace)
        )
    settled = known.get("plan")
    chosen = known.get("proposed", "soft") if strategy == "auto" else strategy
    if folder and not check:
        summary["lost_file"] = _write_lost(folder, namespace)
    reason = _escalation(summary, max_loss, known.get("structure_broken") or [], absent)
    decided = {
        "strategy": chosen,
        "escalate": bool(reason) and not accept_loss,
        "escalate_reason": reason,
        "records": summary["records"],
        **({"absent": absent} if absent != "auto" else {}),
    }
    changed = settled is None or {k: settled.get(k) for k in decided} != decided
    if changed and known.get("applied"):
        # what was already carried out is not planned again under another name
        decided = {k: settled.get(k) for k in decided} if settled else decided
        changed = False
    if changed and not check:
        claim = incidents.claim(store, namespace, run)
        with Journal(folder).step("plan", run, strategy=chosen) as outcome:
            store.note(claim, plan=decided, loss_accepted=accept_loss or None)
            outcome.update(decided)
    return {**summary, **decided, "incident": incident, "changed": changed}


def _with_absent(summary: dict[str, t.Any], missing: int, absent: str, namespace: str) -> dict[str, t.Any]:
    """The summary with what is decided about absent keys, and in words what nobody can know."""
    gone, (unsure, unsure_keys) = summary.pop("gone"), summary.pop("unsure")
    away = [(key, at) for key, back, at in gone if absent == "keep" or (absent == "auto" and not back)]
    summary["absent_keys"] = [key for key, _at in away]
    summary["listed"] = _listed(summary["listed"], absent, away, summary["newer_keys"])
    summary["absent_snapshot"] = away[0][1] if away else None
    records = summary["records"]
    if absent == "restore":
        records["expected"] += records["absent"]
        records["repair"] += records["absent"]
        records["absent"] = 0
    elif absent == "keep":
        records["expected"] -= missing
        records["repair"] -= missing
        records["absent"] += missing
    expected = records["expected"]
    summary["loss_ratio"] = records["lost"] / expected if expected else None
    said = []
    if records["absent"]:
        said.append(
            f"{counted(records['absent'], 'key')} of the last good snapshot, not there any more and left away (deleted "
            f"or lost, nobody knows): {named(summary['absent_keys'])}. memory_absent=restore brings back what is "
            "absent, in this rebuild; later "
            + back_by(namespace, summary["absent_snapshot"], summary["absent_keys"], records["absent"])
        )
    if summary["newer"]:
        said.append(
            f"{counted(summary['newer'], 'key')} other than in the last good snapshot, nobody knows since when, and "
            f"kept: {named(summary['newer_keys'])}. In this rebuild memory_since, memory_keys or memory_pattern have "
            "it repaired; later "
            + put_back(namespace, summary["newest_snapshot"], summary["newer_keys"], summary["newer"])
        )
    if summary["as_saved"]:
        said.append(
            f"{counted(summary['as_saved'], 'chosen key')} as in the newest good snapshot, "
            f"{summary['newest_snapshot']}, and not repaired: {named(summary['as_saved_keys'])}. Where the damage is "
            "older than that snapshot, say since when it is there (memory_since)."
        )
    if unsure and absent == "auto":
        summary["could_not_verify"].append(
            f"{counted(unsure, 'record')} put back, though the application may have deleted what is not there before "
            f"the damage began: {named(unsure_keys)}; memory_absent=restore says that all of it is to come back, "
            "memory_absent=keep that none is"
        )
    summary["warnings"] = said
    return summary


def _listed(
    planned: t.Mapping[str, t.Mapping[str, str]],
    absent: str,
    away: t.Sequence[tuple[str, t.Any]],
    newer: t.Sequence[str],
) -> dict[str, dict[str, str]]:
    """What becomes of each key that is not simply kept, as a person reads it: {action: {key: reason}}."""
    found = {action: dict(keys) for action, keys in planned.items()}
    back = found.pop("absent", {})
    if absent == "restore" and back:
        found["repair"] = {**found.get("repair", {}), **back}
    gone = {key for key, _at in away}
    if away:
        found["repair"] = {key: why for key, why in found.get("repair", {}).items() if key not in gone}
        found["left away"] = dict.fromkeys(sorted(gone)[:plan_summary.LISTED], "absent: deleted or lost")
    if newer:
        found["kept"] = dict.fromkeys(newer, "other than in the last good snapshot, nobody knows since when")
    return {action: keys for action, keys in found.items() if keys}


def _write_lost(folder: str, namespace: str) -> str:
    """Every lost key as JSON Lines, for the report: {key, reason, older_copy, epoch, sequence}. Its path."""
    path = os.path.join(folder, "lost_keys.jsonl")
    if os.path.exists(path):
        return path
    with (
        incidents.own_files(folder),
        PlanFile.open(os.path.join(folder, "plan.db"), namespace) as planned,
        open(path + ".new", "w", encoding="utf-8") as stream,
    ):
        for batch in planned.entries("lost"):
            for entry in batch:
                line = {
                    "key": entry.key,
                    "reason": entry.reason,
                    "older_copy": entry.source,
                    "epoch": entry.epoch,
                    "sequence": entry.sequence,
                }
                stream.write(json.dumps(line) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
        os.replace(path + ".new", path)
    return path


def _escalation(
    summary: t.Mapping[str, t.Any], max_loss: float, broken: t.Sequence[str], absent: str
) -> str | None:
    """Why the DR plan has to be invoked, or None."""
    if broken:
        return f"the store's own structure is damaged and cannot be rebuilt in place ({broken[0]:.120})"
    records = summary["records"]
    if summary["loss_ratio"] is not None and summary["loss_ratio"] > max_loss:
        return (
            f"{records['lost']} of {records['expected']} records ({summary['loss_ratio']:.1%}) have no good copy of "
            f"their newest version, more than the limit of {max_loss:.0%}"
        )
    if records["damaged"] and not summary["sources"] and records["lost"]:
        return f"no good snapshot holds any of the {records['damaged']} damaged records"
    known = records["expected"] + records["absent"]
    if absent == "auto" and records["absent"] > max_loss * known:  # on doubt it stays quarantined
        return (
            f"{records['absent']} of {known} records ({records['absent'] / known:.1%}) are absent and nobody knows "
            f"whether they were deleted or lost, more than the limit of {max_loss:.0%} (memory_absent=restore brings "
            "them back, memory_absent=keep says that they were deleted)"
        )
    return None


def carry_out(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    repository: t.Any,
    name: str,
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Apply the incident's plan.

    Returns {incident, changed, method, applied, already, generation?, rotation?}.
    Errors: CannotProceed (no plan, escalated, no published snapshot of the damaged state), SnapshotUnusable.
    """
    incident, known = incidents.facts(store, namespace, run.incident)
    settled = known.get("plan")
    if incident is None:
        refuse_forgotten(store, store_params, namespace, run)
    if incident is None or not settled:
        if check:
            return {"incident": incident, "changed": True, "method": None, "detail": "would carry out the plan above"}
        raise CannotProceed(f"There is no plan for {namespace}.", command("plan", memory_namespace=namespace))
    if settled["escalate"] and not known.get("loss_accepted"):
        raise CannotProceed(
            f"The plan for {namespace} was escalated: {settled['escalate_reason']}.",
            "follow docs/dr_plan.md, or set memory_accept_loss=true when the owners accept it",
        )
    done = known.get("applied") or {}
    unchanged = {**done.get("result", {}), "incident": incident, "changed": False}
    with store.reader() as reader:
        fenced = reader.namespace(namespace).state == "quarantined"
    if done.get("complete") and not fenced:
        return unchanged
    # in a rehearsal nothing was isolated, and no snapshot taken
    if not incidents.since_release(known, "forensic") and (fenced or not check):
        raise CannotProceed(
            f"The damaged state of {namespace} has no published snapshot yet.",
            command("snapshot", memory_namespace=namespace, memory_purpose="forensic"),
        )
    if done.get("complete"):
        return unchanged
    if check:
        return {"incident": incident, "changed": True, "method": settled["strategy"], "records": settled["records"]}
    if not fenced:
        raise CannotProceed(f"{namespace} is not quarantined.", command("isolate", memory_namespace=namespace))
    if known.get("diagnosed_after") != known.get("released_at"):
        raise CannotProceed(
            f"{namespace} was released since it was diagnosed.", command("diagnose", memory_namespace=namespace)
        )
    need_fence(store, namespace)
    folder = incidents.folder(store_params, incident, run.work_dir)
    claim = incidents.claim(store, namespace, run)
    journal = Journal(folder)
    with incidents.own_files(folder), journal.step("apply", run, strategy=settled["strategy"]) as outcome:
        result: dict[str, t.Any] = {}
        with PlanFile.open(os.path.join(folder, "plan.db"), namespace) as planned:
            needed = list(planned.sources())
            chosen = (
                sources.choose(repository, name, keyring, namespace, others=None, only=needed)
                if needed
                else sources.Sources([], [])
            )
            gone = set(needed) - set(chosen.by_id())
            if gone:
                raise CannotProceed(
                    f"The plan relies on snapshot {sorted(gone)[0]}, which cannot be read any more.",
                    "run diagnose with again=true to plan from what is left",
                )
            incoming = None
            if "encryption" not in store.capabilities():
                incoming = _incoming(store, store_params, claim, known)
                result["probes"] = _probes_after(planned, chosen.by_id(), incoming, namespace, known)
            work = apply.Applier(
                store, claim, planned, chosen.by_id(), keyring, settled.get("absent", "auto"), incoming
            )
            if settled["strategy"] == "hard":
                result.update(
                    work.hard(lambda generation, rows: _check(store_params, keyring, namespace, generation, rows))
                )
            elif settled["strategy"] == "rotate" and known.get("placed"):
                result.update(known["placed"])  # a rotation that was killed has changed checksums since
            elif settled["strategy"] != "none":
                result.update(work.soft())
            else:
                result.update(method="none", applied=0, already=0, refused=0)
            if work.refused:
                raise CannotProceed(
                    f"{len(work.refused)} records of {namespace} are not as the plan saw them any more.",
                    "check that nothing writes to the store, then run diagnose with again=true",
                )
        if settled["strategy"] == "rotate":
            from . import cluster_keys, rotate

            store.note(claim, placed=dict(result))
            result["rotation"] = rotate.rotate(
                store_params=store_params,
                keyring=keyring,
                namespace=namespace,
                attempt=run.attempt,
                owner=run.owner,
                force=not (known.get("rotation") or {}).get("done"),
                tell=lambda ring: cluster_keys.tell(lambda: repository, ring, name),
            )
            result["method"] = "rotate"
        warnings = lost_ttl.bring_back(store, claim, known, repository, name, keyring)
        probes = result.pop("probes", None)
        store.note(
            claim,
            applied={"complete": True, "result": result},
            merged_since=None,
            released_sequence=None,
            **({"probes": probes} if probes is not None else {}),
        )
        outcome.update({k: v for k, v in result.items() if k != "rotation"})
    result["warnings"] = warnings + incidents.mirror(store, claim, journal, repository, keyring)
    changed = bool(result.get("applied") or result.get("rotation") or result.get("generation"))
    return {**result, "incident": incident, "changed": changed}


def _incoming(
    store: Store, store_params: t.Mapping[str, t.Any], claim: t.Any, known: t.Mapping[str, t.Any]
) -> Incoming:
    """How copies go in; one that is resumed moves their expiry as the first one did."""
    moved_to = None
    if (known.get("told") or {}).get("rebase"):
        checked(store, "rebase")
        moved_to = known.get("rebased_to") or now_us()
        store.note(claim, rebased_to=moved_to)
    return Incoming(store, store_params, claim.namespace, now=moved_to)


def _probes_after(
    planned: PlanFile,
    snapshots: t.Mapping[str, t.Any],
    incoming: Incoming,
    namespace: str,
    known: t.Mapping[str, t.Any],
) -> list[dict[str, t.Any]] | None:
    """The incident's probes with what the copies will be that come back for them; None where nothing changes."""
    probes = {probe["key"]: probe for probe in known.get("probes") or []}
    if incoming.fixed or not probes:
        return None
    for entry in planned.get(list(probes)):
        snapshot = snapshots.get(entry.source or "")
        if snapshot is not None:
            for copy in snapshot.get_many(namespace, [entry.key]).values():
                row = incoming(snapshot, [copy])[0]
                probes[entry.key] = {**probes[entry.key], "digest": row[CHECKSUM].hex(), "expires": row[EXPIRES]}
    return list(probes.values())


def _check(store_params: t.Mapping[str, t.Any], keyring: t.Any, namespace: str, generation: int, rows: int) -> None:
    """The new generation must hold exactly what was planned, and all of it must open."""
    scan = integrity.scan(store_params=store_params, keyring=keyring, namespace=namespace, generation=generation)
    if scan["rows"] != rows or scan["verdict"] != "pass":
        raise CannotProceed(
            f"The new generation of {namespace} is not what was planned: {scan['rows']} of {rows} records, "
            f"verdict {scan['verdict']}, findings {scan['findings']}.",
            "the old generation is still active; run the rebuild again",
        )
