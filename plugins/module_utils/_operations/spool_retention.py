# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How long a spool keeps the forensic snapshots that were taken while the repository was away: as long as what else
their incidents left.

PRIVATE to the collection. Where such a snapshot is the only evidence of its incident, since none was taken again for
the repository, the result says that it went.
"""

from __future__ import annotations

import time
import typing as t

from .._errors import MemoryOpsError
from .._model import IncidentState
from .._repository import Repository, SnapshotInfo
from .._repository.catalogue import ids
from .._repository.holds import standing
from .._repository.manifest import folder
from .._store import WHOLE, Store
from .incident_retention import held_in
from .retention_note import DAY, Note


def apply(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    spool: str | None,
    repository: Repository | None,
    keyring: t.Any,
    name: str,
    keep: float | None,
    work_dir: str | None = None,
    now: float | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Remove the forensic snapshots of incidents that were closed more than ``keep`` seconds ago (None: they stay for
    good) from the directory ``spool``. One look a day is enough, or each thirtieth of ``keep``.

    Those stay whose incident, or another one of the namespace, is open, whose namespace is quarantined, that are held
    there or in the repository, and whatever nobody can tell that of.

    Returns {"changed", "spooled": [ids that went; in check mode: would go], "spooled_kept": {id: why it stays though it
    is old}, "warnings"}. Errors: StoreUnavailable, RepositoryUnavailable (the spool).
    """
    result: dict[str, t.Any] = {"changed": False, "spooled": [], "spooled_kept": {}, "warnings": []}
    place = Repository.open_if_there({"url": f"file://{spool}"}) if spool and keep is not None else None
    if place is None or keep is None:
        return result
    identity, now = store.identity(), time.time() if now is None else now
    noted = Note(store_params, name, work_dir, identity.store_id, "spool_retention")
    if noted.fresh(now, keep):
        return result
    incidents: dict[str, list[IncidentState]] = {}
    for state in store.incidents():
        incidents.setdefault(state.incident, []).append(state)
    with store.reader() as reader:
        quarantined = {space.name for space in reader.namespaces() if space.state == "quarantined"}
    busy = {one.namespace for ones in incidents.values() for one in ones if one.state == "open"} | quarantined
    before = int((now - keep) * 1e6)
    kept: dict[str, str] = result["spooled_kept"]
    due: list[SnapshotInfo] = []
    for info in place.snapshots(name, keyring):
        own = incidents.get(info.incident or "", [])
        if info.problem:
            kept[info.id] = f"it cannot be read: {info.problem}"
        elif not own or info.lineage != identity.lineage:
            kept[info.id] = f"this store knows nothing of its incident {info.incident}"
        elif WHOLE in busy or busy & {*info.namespaces, *(one.namespace for one in own)}:
            kept[info.id] = "its namespace is quarantined or has an open incident"
        elif max(info.at, *(one.lease_until for one in own)) < before:
            due.append(info)
    # what a removal, or a snapshot, that was killed left; nobody takes one while nothing is open
    there = {info.id for info in place.snapshots(name)}
    for one in [] if busy else [one for one in ids(place.objects, name) if one not in there]:
        if max((found.modified for found in place.objects.list(folder(name, one))), default=0.0) < now - keep:
            result["spooled"].append(one)
            if not check:
                _purge(place, name, one)
    held = held_in(repository, keyring, name, {str(info.incident) for info in due}) if due else {}
    evident = _evident(repository, keyring, name)
    for info in due:
        holds = standing(place.objects, name, info.id, keyring)
        why = held.get(str(info.incident)) or (f"it is held by {holds[0]['hold']}" if holds else "")
        if why:
            kept[info.id] = why
            continue
        if not check:
            place.objects.delete([folder(name, info.id) + "manifest.json"])  # a full disk takes no note of a removal
            _purge(place, name, info.id)
        result["spooled"].append(info.id)
        if info.incident not in evident:
            went = "would be removed" if check else "was removed"
            result["warnings"].append(
                f"Snapshot {info.id} in {place.location} {went}, the only evidence of incident {info.incident}: none "
                "was ever taken again for the repository."
            )
    if not check:
        noted.keep(now)
    return {**result, "changed": bool(result["spooled"])}


def _purge(place: Repository, name: str, snapshot_id: str) -> None:
    where = folder(name, snapshot_id)
    place.objects.purge(where, where + "index")
    place.objects.sweep(where, time.time() + DAY)  # the folders that a killed removal emptied


def _evident(repository: Repository | None, keyring: t.Any, name: str) -> set[str]:
    """The incidents of which the repository has a forensic snapshot."""
    try:
        found = repository.snapshots(name, keyring) if repository is not None else []
    except MemoryOpsError:  # nothing is removed then
        return set()
    return {str(info.incident) for info in found if info.purpose == "forensic" and not info.problem}
