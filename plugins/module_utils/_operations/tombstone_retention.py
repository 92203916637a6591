# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How long tombstones are kept: one goes once no snapshot is left that could bring its record back.

PRIVATE to the collection. A tombstone says that an application deleted a record, so that no copy of it comes back.
Without this the tombstones of an agent that forgets all day outnumber its memories, and slow every scan for good.
"""

from __future__ import annotations

import calendar
import time
import typing as t

from .._codec import RecordCodec
from .._errors import KeyUnavailable, NamespaceLocked, NamespaceQuarantined, RecordCorrupt
from .._model import DELETED, EPOCH, KEY, KEY_ID, PAYLOAD, SEQUENCE, IncidentState, Row, StoreIdentity, is_isolated
from .._repository import Repository, SnapshotInfo
from .._repository.aside import waiting
from .._repository.catalogue import ids
from .._store import Store
from .commands import counted
from .held_records import PREFIX as HELD
from .held_records import aside_of, outstanding
from .retention import suspect
from .retention_note import Note
from .rotation import PREFIX as ROTATION

BATCH = 1000  # tombstones of one transaction
LOOK = 50_000  # records that are read in one go; a reader holds back the engine's own clean-up
#: Incidents that leave every record its version, but for isolated ones, whose tombstones stay anyway.
HARMLESS = (HELD, ROTATION)


def apply(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    repository: Repository | None,
    keyring: t.Any,
    name: str,
    keep_tombstones: float | None,
    work_dir: str | None = None,
    now: float | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Drop tombstones that are older than ``keep_tombstones`` seconds (None: they stay for good) and than every
    snapshot of their namespace, removed ones that can be brought back included.

    Nothing goes while a namespace is quarantined or an incident is open, nor of a namespace that another copy of the
    store may bring older records home to. ``repository`` None: it is not there yet.

    Returns {"changed", "tombstones": how many went (in check mode: would go), "reason": why none could}.
    Errors: RepositoryUnavailable, StoreUnavailable, StoreDamaged.
    """
    nothing = {"changed": False, "tombstones": 0}
    if keep_tombstones is None:
        return {**nothing, "reason": ""}
    if not {"tombstones", "sequence"} <= store.capabilities():
        return {**nothing, "reason": "the layout has no tombstones"}
    identity, now = store.identity(), time.time() if now is None else now
    noted = Note(store_params, name, work_dir, identity.store_id, "tombstone_retention")
    if noted.fresh(now, keep_tombstones):
        return {**nothing, "reason": ""}
    with store.reader() as reader:
        states = reader.namespaces()
    held = [state.name for state in states if state.incident or state.state == "quarantined"]
    if held:
        return {**nothing, "reason": f"namespace {held[0]!r:.80} is quarantined"}
    incidents: dict[str, list[IncidentState]] = {}
    for one in store.incidents():
        if one.state == "open":
            return {**nothing, "reason": f"incident {one.incident} is open"}
        incidents.setdefault(one.namespace, []).append(one)
    if repository is None:
        return {**nothing, "reason": "there is no snapshot yet"}
    kept = _Kept(repository, name, keyring)
    if kept.doubt:
        return {**nothing, "reason": kept.doubt}
    count = 0
    reasons: list[str] = []
    looked = False
    for state in states:
        if state.state != "serving":
            continue  # a copy: the snapshots that fill it bring what was dropped at its home
        bounds = kept.bounds(state.name, identity, incidents.get(state.name, []))
        if isinstance(bounds, str):
            reasons.append(bounds)
            continue
        looked = True
        bounds = bounds._replace(before=min(bounds.before, int((now - keep_tombstones) * 1e6)))
        try:
            for rows in _old(store, state.name, keyring, bounds):
                count += len(rows) if check else store.drop_tombstones(state.name, rows)
        except (NamespaceQuarantined, NamespaceLocked) as exc:
            reasons.append(exc.message)
    if looked and not check:
        noted.keep(now)
    reason = reasons[0] if reasons else ""
    if len(reasons) > 1:
        reason += f" (and {counted(len(reasons) - 1, 'namespace')} more)"
    return {"changed": count > 0, "tombstones": count, "reason": reason}


class _Bounds(t.NamedTuple):
    """Which tombstones may go: those of versions up to ``through`` that were deleted within since < … < before (µs)."""

    through: tuple[int, int]
    since: int
    before: int


class _Kept:
    """The snapshots that there are or can be again, authenticated; ``doubt``: why it is not known what they hold."""

    def __init__(self, repository: Repository, name: str, keyring: t.Any) -> None:
        listed = repository.snapshots(name, keyring)
        there = {info.id for info in listed}
        bare = [one for one in ids(repository.objects, name) if one not in there]
        removed = waiting(repository.objects, name, bare, keyring)
        self._all = [*listed, *removed]
        self._removed = {info.id for info in removed}
        #: What has no manifest may be under way still, and hold the state of the moment when it began.
        self._begun = min((_begun(one) for one in bare if one not in self._removed), default=1 << 62)
        self.doubt = ""
        doubtful = suspect(listed)
        hidden = sorted(_hidden(repository, name) - there - self._removed)
        broken = [info for info in self._all if info.problem]
        if doubtful is not None:
            self.doubt = f"snapshot {doubtful.id} is suspect"
        elif hidden:
            self.doubt = f"somebody deleted snapshot {hidden[0]} in the bucket, and undelete brings it back"
        elif broken:
            self.doubt = f"snapshot {broken[0].id} cannot be read, so nobody knows what it holds: {broken[0].problem}"

    def bounds(self, namespace: str, identity: StoreIdentity, incidents: t.Sequence[IncidentState]) -> _Bounds | str:
        """For a namespace with these incidents; why none of its tombstones may go."""
        holding = [info for info in self._all if namespace in info.namespaces]
        good = [info for info in holding if info.good and info.id not in self._removed]
        if not good:
            return f"no good snapshot holds namespace {namespace!r:.80}"
        for info in holding:
            if (info.lineage, info.manifest["store"]["store_id"]) != (identity.lineage, identity.store_id):
                return f"snapshot {info.id} is of another copy of this store"
        if any(one.facts.get("promoted_epoch") is not None for one in incidents):
            return f"namespace {namespace!r:.80} served here in its home's place"
        changes = [one for one in incidents if not one.incident.startswith(HARMLESS)]
        return _Bounds(
            through=min((info.epoch, info.sequence) for info in holding),
            since=max(_since(info, changes) for info in holding),
            before=min([self._begun, *(info.at for info in holding)]),
        )


def _hidden(repository: Repository, name: str) -> set[str]:
    """Snapshots whose manifest was deleted while a lock keeps it, by retention or by somebody beside us."""
    if repository.objects.locks is None:
        return set()
    found = repository.objects.locks.uncover(f"snapshots/{name}/", lambda key: key.endswith("/manifest.json"), True)
    return {key.split("/")[2] for key in found}


def _since(info: SnapshotInfo, changes: t.Sequence[IncidentState]) -> int:
    """From when on (µs) a deletion before the snapshot is surely in it. One before a rebuild or restore may have been
    taken back by that; if a later one then brought it here again, the snapshot has the record all the same."""
    if all(one.lease_until < info.at for one in changes):
        return 0  # what the store held then is what it holds now, but for what applications did
    own = info.incident if info.purpose == "forensic" else None  # taken before anything was changed
    return max((one.lease_until for one in changes if one.opened <= info.at and one.incident != own), default=0)


def _begun(snapshot_id: str) -> int:
    return calendar.timegm(time.strptime(snapshot_id[:16], "%Y%m%dT%H%M%SZ")) * 1_000_000


def _old(store: Store, namespace: str, keyring: t.Any, bounds: _Bounds) -> t.Iterator[list[Row]]:
    """The tombstones that may go, in key order; a reader for each stretch, closed before they are handed out."""
    codec = RecordCodec(namespace)
    back: set[str] = set()  # an isolated record may come back to a place that is empty
    groups = outstanding(store, namespace)
    if groups:
        with store.reader() as reader:
            for held in aside_of(reader, namespace, groups):
                back.update(row[KEY] for row in held)

    def may_go(row: Row) -> bool:
        if row[DELETED].__class__ is not int or not bounds.since < row[DELETED] < bounds.before or row[KEY] in back:
            return False
        # what is damaged, or only looks like a deletion, stays for the diagnosis
        if not codec.intact(row) or is_isolated(row) or (row[EPOCH], row[SEQUENCE]) > bounds.through:
            return False
        try:
            return bool(keyring.open_payload(row[PAYLOAD], codec.head(row), row[KEY_ID]) == b"")
        except (RecordCorrupt, KeyUnavailable):
            return False

    after: str | None = None
    while True:
        found: list[Row] = []
        seen = 0
        ended = True
        with store.reader() as reader:
            batches = reader.scan(namespace, after=after)
            try:
                for rows in batches:
                    found += [row for row in rows if row[DELETED] is not None and may_go(row)]
                    seen += len(rows)
                    after = rows[-1][KEY] if rows else after
                    if len(found) >= BATCH or seen >= LOOK:
                        ended = False
                        break
            finally:
                getattr(batches, "close", lambda: None)()
        for start in range(0, len(found), BATCH):
            yield found[start : start + BATCH]
        if ended:
            return
