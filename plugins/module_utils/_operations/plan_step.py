# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan step of an incident: the draft that the diagnosis made is the plan; this chooses the strategy and weighs the
loss against the limit.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._model import STRATEGIES
from .._store import Store
from . import incident as incidents
from . import plan_summary
from .commands import back_by, counted, named, put_back
from .commands import run as command
from .incident import Journal, Run
from .incoming import checked
from .plan_file import PlanFile
from .plan_needed import LACKING
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
    refused: dict[str, t.Any] = {}  # in a rehearsal, why the plan by itself would be
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
        refused = {} if otherwise else {"refused": str(_undiagnosed(namespace, incident))}
    else:
        raise _undiagnosed(namespace, incident)
    settled = known.get("plan")
    chosen = known.get("proposed", "soft") if strategy == "auto" else strategy
    if folder and not check:
        anew = settled is not None and settled.get("absent", "auto") != absent
        summary["lost_file"] = _write_lost(folder, namespace, absent == "keep", anew)
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
    return {**summary, **decided, **refused, "incident": incident, "changed": changed}


def _undiagnosed(namespace: str, incident: str | None) -> CannotProceed:
    """The way to a plan begins with the fence, which a diagnosis needs."""
    first = "isolate" if incident is None else "diagnose"
    return CannotProceed(f"{namespace} has no diagnosed incident.", command(first, memory_namespace=namespace))


def _with_absent(summary: dict[str, t.Any], missing: int, absent: str, namespace: str) -> dict[str, t.Any]:
    """The summary with what is decided about absent keys, and in words what nobody can know."""
    gone, (unsure, unsure_keys) = summary.pop("gone"), summary.pop("unsure")
    lacking, lacking_keys = summary.pop("lacking")
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
        for counted_as in ("expected", "damaged", "lost"):  # it was deleted, too
            records[counted_as] -= lacking
        summary["lost_total"] -= lacking
        summary["lost_keys"] = [key for key in summary["lost_keys"] if key not in set(lacking_keys)]
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
            "the damage began (memory_absent=restore says that all of it is to come back, memory_absent=keep that none "
            f"is): {named(unsure_keys)}"
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
    if absent == "keep":
        found["lost"] = {key: why for key, why in found.get("lost", {}).items() if why != LACKING}
    gone = {key for key, _at in away}
    if away:
        found["repair"] = {key: why for key, why in found.get("repair", {}).items() if key not in gone}
        found["left away"] = dict.fromkeys(sorted(gone)[:plan_summary.LISTED], "absent: deleted or lost")
    if newer:
        found["kept"] = dict.fromkeys(newer, "other than in the last good snapshot, nobody knows since when")
    return {action: keys for action, keys in found.items() if keys}


def _write_lost(folder: str, namespace: str, deleted: bool, anew: bool) -> str:
    """Every lost key as JSON Lines, for the report: {key, reason, older_copy, epoch, sequence}. Its path. ``deleted``:
    what is absent was deleted."""
    path = os.path.join(folder, "lost_keys.jsonl")
    if os.path.exists(path) and not anew:
        return path
    with (
        incidents.own_files(folder),
        PlanFile.open(os.path.join(folder, "plan.db"), namespace) as planned,
        open(path + ".new", "w", encoding="utf-8") as stream,
    ):
        for batch in planned.entries("lost"):
            for entry in batch:
                if deleted and entry.reason == LACKING:
                    continue
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
