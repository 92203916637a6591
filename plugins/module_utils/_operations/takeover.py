# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The failover and failback steps, each on the host whose store it changes.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import typing as t

from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._extra_vars import for_namespace
from .._route import read_route, resolve
from .._store import Store, place
from . import failover, integrity
from . import incident as incidents
from .incident import Journal, Run, microseconds, now_us


def take_over(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    open_keyring: t.Callable[[], t.Any],
    run: Run,
    state: str,
    above_epoch: int = 0,
    needed_at: str | None = None,
    rpo: float = 900.0,
    check: bool = False,
) -> dict[str, t.Any]:
    """Promote this copy (state serving), serve reads from it (reading) or let it stand back (standby).

    A copy that is not fit is left as it is: {changed: False, fit: False, reason}. Of a copy that stands back,
    ``took_writes`` says whether there can be anything to bring home. Errors: CannotProceed.
    """
    with store.reader() as reader:
        before = reader.namespace(namespace)
    if state == "standby":
        return _stand_back(store, store_params, namespace, run, before.state, check)
    if state == "reading" and before.state == "serving":
        raise CannotProceed(
            f"{namespace} takes writes in this copy; read-only they would be left behind.",
            f"bring it home first: run the failback playbook with {for_namespace(namespace)}",
        )
    incident, known = incidents.facts(store, namespace, run.incident)
    if state == before.state == "reading" and known.get("reading"):
        proof = store.prove(namespace)
        return {
            **known["reading"],
            "performed": True,
            "changed": False,
            "incident": incident,
            "epoch": None,
            "accepts_reads": proof["reads_accepted"],
            "accepts_writes": not proof["writes_refused"],
            "proof": proof,
        }
    if before.state == "serving" and known.get("promoted_epoch"):
        return {
            **known["fitness"],
            "performed": True,
            "changed": False,
            "incident": incident,
            "epoch": known["promoted_epoch"],
            "accepts_writes": failover.accepts_writes(store, namespace),
        }
    scan = integrity.scan(store_params=store_params, keyring=open_keyring(), namespace=namespace)
    fitness = failover.fit(store, namespace, needed_at=microseconds(needed_at) or now_us(), rpo=rpo, scan=scan)
    if not fitness["fit"] or check:
        return {
            **fitness,
            "performed": False,
            "changed": fitness["fit"],
            "incident": run.incident or incident,
            "epoch": None,
            "accepts_writes": None,
        }
    claim = incidents.claim(store, namespace, run)
    with Journal(incidents.folder(store_params, claim.incident, run.work_dir)).step("promote", run) as outcome:
        if state == "reading":
            store.note(claim, reading=fitness)
            result = {"epoch": None, **failover.serve_reads(store, claim)}
        else:
            store.note(claim, fitness=fitness, reading=None)  # from here on there may be something to bring home
            result = failover.promote(store, claim, above_epoch=above_epoch)
        outcome.update(result)
    return {**fitness, **result, "performed": True, "incident": claim.incident}


def _stand_back(
    store: Store, store_params: t.Mapping[str, t.Any], namespace: str, run: Run, state: str, check: bool
) -> dict[str, t.Any]:
    known = {
        "epoch": incidents.promoted_epoch(store, namespace),
        "took_writes": state == "serving" or not incidents.served_read_only(store, namespace),
    }
    if check or state == "standby":
        return {"changed": state != "standby", "incident": run.incident, **known}
    claim = incidents.claim(store, namespace, run)
    with Journal(incidents.folder(store_params, claim.incident, run.work_dir)).step("demote", run) as outcome:
        result = failover.demote(store, claim)
        outcome.update(result)
    store.close_incident(claim)  # a standby copy has no incident of its own, so that backups go on filling it
    return {**result, "incident": claim.incident, **known}


def come_home(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    open_keyring: t.Callable[[], t.Any],
    open_repository: t.Callable[[], t.Any],
    name: str,
    snapshot: str | None,
    since_epoch: int,
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Merge the secondary's writes into the quarantined home.

    Errors: CannotProceed, CapabilityMissing, SnapshotUnusable, KeyUnavailable.
    """
    if "sequence" not in store.capabilities():
        raise CapabilityMissing(
            f"Writes to {namespace} cannot be merged: its records have no sequence.",
            "copy what was written elsewhere by the means of that application",
        )
    with store.reader() as reader:
        quarantined = reader.namespace(namespace).state == "quarantined"
    incident, known = incidents.facts(store, namespace, run.incident)
    if not quarantined and (incident is not None or not check):  # in a rehearsal nothing was isolated
        raise CannotProceed(
            f"{namespace} is not quarantined at its home.", f"isolate it first: {for_namespace(namespace)}"
        )
    if known.get("plan") and not (known.get("applied") or {}).get("complete"):
        raise CannotProceed(
            f"The plan for {namespace} was not carried out yet.",
            f"run the apply playbook: {for_namespace(namespace)}",
        )
    if check:
        return {"changed": True, "incident": run.incident, "detail": "would merge what was written on the secondary"}
    if not snapshot:
        raise InvalidInput("No snapshot of the secondary is named.", "take one there with purpose=failback")
    keyring = open_keyring()
    delta = open_repository().snapshot(name, snapshot, keyring)
    keyring.adopt(delta.wrapped_keys())
    claim = incidents.claim(store, namespace, run)
    with Journal(incidents.folder(store_params, claim.incident, run.work_dir)).step(
        "failback", run, snapshot=snapshot
    ) as outcome:
        above = max(since_epoch, delta.info.epoch)
        if store.identity().epoch <= above:  # first: a merge that is killed and finds nothing left must not skip it
            store.note(claim, validated=None)
            store.raise_epoch(claim, above)
        result = failover.merge(store, claim, delta, keyring, since_epoch=since_epoch)
        if result["merged"] or result["log_entries"]:
            store.note(claim, validated=None, first_write_at=result["first_write_at"])
        outcome.update({k: result[k] for k in ("merged", "already", "conflicts", "log_entries")})
    return {**result, "incident": claim.incident}


def routed_away(path: str | None, namespace: str, store_params: t.Mapping[str, t.Any]) -> bool:
    """Whether the route file sends ``namespace`` to a store other than this one."""
    if not path or not os.path.exists(path):
        return False
    return place(resolve(read_route(path), namespace)) != place(store_params)
