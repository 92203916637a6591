# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The failover and failback steps, each on the host whose store it changes.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._extra_vars import for_namespace
from .._route import read_route, resolve
from .._store import Store
from .._store_address import location
from . import failover, integrity
from . import incident as incidents
from .commands import counted, named
from .commands import run as command
from .incident import Journal, Run, microseconds, now_us

LISTED = 1000
LOST_AWAY = "lost_on_secondary.jsonl"


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
    ``took_writes`` says whether there can be anything to bring home, and then ``log_intact`` whether its access log is
    whole. Errors: CannotProceed.
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
    if known["took_writes"]:  # what it took and neither its records nor its log tell of, nobody can bring home
        with store.reader() as reader:
            known["log_intact"] = bool(reader.log_health()["intact"])
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
    accept_loss: bool = False,
    log_intact: bool = True,
    check: bool = False,
) -> dict[str, t.Any]:
    """Merge the secondary's writes into the quarantined home.

    What the secondary acknowledged and cannot give, since its own copy is damaged, stops it unless ``accept_loss``, and
    so does a log there that is not whole (``log_intact`` False): nobody can tell what it took. The keys stand in the
    incident's folder (LOST_AWAY). Returns failover.merge() with ``lost`` as a number and ``lost_keys`` (the first), and
    {incident, lost_file}. Errors: CannotProceed, CapabilityMissing, SnapshotUnusable, KeyUnavailable.
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
            f"{namespace} is not quarantined at its home.",
            f"isolate it first: {command('isolate', memory_namespace=namespace)}",
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
    folder = incidents.folder(store_params, claim.incident, run.work_dir)
    with Journal(folder).step("failback", run, snapshot=snapshot) as outcome:
        above = max(since_epoch, delta.info.epoch)
        if store.identity().epoch <= above:  # first: a merge that is killed and finds nothing left must not skip it
            store.note(claim, validated=None)
            store.raise_epoch(claim, above)
        before = known.get("merged_since")
        if known.get("applied") or known.get("switched_from"):  # an undo would take away what is merged from here on
            store.note(claim, merged_since=True)
        result = failover.merge(store, claim, delta, keyring, since_epoch=since_epoch)
        if not result["changed"]:
            store.note(claim, merged_since=before)
        lost = result.pop("lost")
        result.update(lost=len(lost), lost_keys=lost[:LISTED], lost_file=None)
        outcome.update(lost=len(lost))
        if lost:
            result["lost_file"] = os.path.join(folder, LOST_AWAY)
            with incidents.own_files(folder), open(result["lost_file"], "w", encoding="utf-8") as stream:
                stream.writelines(json.dumps({"key": key, "reason": "lost on the secondary"}) + "\n" for key in lost)
        accepted = "when the owners accept the loss: " + command(
            "failback", memory_namespace=namespace, memory_accept_loss="true"
        )
        if lost and not accept_loss:
            raise CannotProceed(
                f"{counted(len(lost), 'record')} that the secondary took for {namespace} cannot come home, as its own "
                f"copy is damaged: {named(lost)} (all of them: {result['lost_file']}). The home stays quarantined.",
                "mend the secondary's copy where that is possible; " + accepted,
            )
        if not log_intact and not accept_loss:
            raise CannotProceed(
                f"What the secondary has of {namespace} came home, but its access log has gaps or damaged entries, so "
                "nobody can tell whether that is all it took. The home stays quarantined.",
                "compare with the applications' own records; " + accepted,
            )
        if result["merged"] or result["log_entries"]:
            store.note(claim, validated=None, first_write_at=result["first_write_at"])
        outcome.update({k: result[k] for k in ("merged", "already", "conflicts", "log_entries")})
    return {**result, "incident": claim.incident}


def routed_away(path: str | None, namespace: str, store_params: t.Mapping[str, t.Any]) -> bool:
    """Whether the route file sends ``namespace`` to a store other than this one."""
    if not path or not os.path.exists(path):
        return False
    return location(resolve(read_route(path), namespace)) != location(store_params)
