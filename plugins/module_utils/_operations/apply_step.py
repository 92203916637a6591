# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The apply step of an incident: the plan is carried out, and what came of it checked.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import typing as t

from .._errors import CannotProceed
from .._model import CHECKSUM, EXPIRES
from .._store import Store
from . import apply, integrity, lost_ttl, sources
from . import incident as incidents
from .commands import counted
from .commands import run as command
from .fence_check import need_fence
from .forgotten import refuse_forgotten
from .incident import Journal, Run, now_us
from .incoming import Incoming, checked
from .plan_file import PlanFile


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
        first = "isolate" if incident is None else "plan" if known.get("diagnosed") else "diagnose"
        refusal = CannotProceed(f"There is no plan for {namespace}.", command(first, memory_namespace=namespace))
        if not check:
            raise refusal
        would = {"changed": True, "method": None, "detail": "would carry out the plan", "refused": str(refusal)}
        return {**would, "incident": incident}
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
                    f"{counted(len(work.refused), 'record')} of {namespace} changed since the plan was made.",
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
