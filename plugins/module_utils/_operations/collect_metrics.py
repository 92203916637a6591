# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a store, its repository and its keyring tell about themselves, as metrics. Changes nothing.

PRIVATE to the collection.
"""

from __future__ import annotations

import time
import typing as t

from .._codec import RecordCodec, log_checksum
from .._errors import CapabilityMissing, KeyUnavailable, MemoryOpsError, RecordCorrupt, StoreDamaged
from .._keyring_unsealed import opener
from .._layouts import seals
from .._metrics import Sample
from .._model import DELETED, KEY_ID, PAYLOAD
from .._replication import open_server, own_store
from .._repository import holds
from .._repository.catalogue import read_checks
from .._repository.manifest import folder, read_keys
from .._store import Reader, Store, open_store
from . import integrity
from .coverage import oldest_saved
from .evidence import newest, newest_whole
from .incident import base, microseconds
from .integrity import as_keyring
from .monitor import MIN_SAMPLES
from .retention import suspect
from .scrub import read_notes

BUFFERED = 60.0  # seconds that an application may keep what it read before it tells the log
CHECKED = 20  # snapshots, newest first, whose checks are looked at for a restore that passed
MAX_KEYS = 5000  # records met corrupt that are looked at again
OPERATIONS = ("hit", "miss", "corrupt")


class Gathered(t.NamedTuple):
    samples: list[Sample]
    warnings: list[str]  # what could not be asked; its metrics are not there


def gather(
    *,
    store_params: t.Mapping[str, t.Any],
    cluster: str,
    host: str,
    open_keyring: t.Callable[[], t.Any] | None = None,
    open_repository: t.Callable[[], t.Any] | None = None,
    window: float = 900.0,
    scan: bool = True,
    work_dir: str | None = None,
    now: float | None = None,
) -> Gathered:
    """Every sample has the labels ``cluster`` and ``memory_host``, those of a namespace ``namespace`` too.

    ``window`` (seconds): the reads that make the hit rate, which is left out below 100 of them. ``scan``: read and
    check every record (structure apart); else only those that applications met corrupt within the window are looked at
    again. ``now``: seconds since 1970. Errors: those of opening the store; what else fails is a warning.
    """
    asked = _Asked({"cluster": cluster, "memory_host": host}, time.time() if now is None else now)
    store = open_store(store_params)
    try:
        replica = asked.replication(store_params)
        ring = None
        try:
            ring = open_keyring() if open_keyring is not None else None
        except MemoryOpsError as exc:
            asked.warnings.append(exc.message)
        opening = as_keyring(opener(store, ring))
        asked.namespaces(store, window, replica, None if scan else opening)
    finally:
        store.close()  # the scan forks
    if scan:
        asked.scan(store_params, opening)
    else:
        asked.scrubbed(work_dir or base(store_params))
    if ring is not None and seals(str(store_params.get("layout") or "native")):
        asked.key_age(ring)
    if open_repository is not None:
        asked.repository(open_repository, cluster, ring)
    asked.add("metrics_timestamp_seconds", asked.now)
    return Gathered(asked.samples, asked.warnings)


class _Asked:
    def __init__(self, labels: dict[str, str], now: float) -> None:
        self.labels, self.now = labels, now
        self.samples: list[Sample] = []
        self.warnings: list[str] = []
        self.names: list[str] = []

    def add(self, name: str, value: float, namespace: str | None = None) -> None:
        more = {} if namespace is None else {"namespace": namespace}
        self.samples.append(Sample(f"memops_{name}", {**self.labels, **more}, float(value)))

    def replication(self, params: t.Mapping[str, t.Any]) -> bool:
        """Whether the server is a replica; then how long it heard nothing of its primary."""
        try:
            server = open_server(own_store(params))
            try:
                standing = server.standing()
            finally:
                server.close()
        except CapabilityMissing:
            return False  # no server, no replica
        except MemoryOpsError as exc:
            self.warnings.append(exc.message)
            return False
        # The age of the newest change would grow while the primary has nothing to tell.
        lag = standing.silent_seconds if standing.link else standing.behind_seconds or standing.silent_seconds
        if standing.role == "replica" and lag is not None:
            self.add("replication_lag_seconds", max(0.0, lag))
        return standing.role == "replica"

    def namespaces(self, store: Store, window: float, replica: bool, ring: t.Any) -> None:
        behind = []
        with store.reader() as reader:
            states = reader.namespaces()
            self.names = [state.name for state in states]
            for state in states:
                copy = replica or state.state == "standby"
                self.add("fence_standing", state.state == "quarantined", state.name)
                self.add("standby", copy, state.name)
                self.add("records", reader.count(state.name), state.name)
                if state.state == "standby" and state.restored_at is not None and not replica:
                    behind.append(self.now - state.restored_at / 1e6)
            if "log" in store.capabilities():
                self._reads(reader, window, ring)
        if behind:
            self.add("replication_lag_seconds", max(0.0, *behind))

    def _reads(self, reader: Reader, window: float, ring: t.Any) -> None:
        """The hit rates; with ``ring`` also the records that applications met corrupt and that still are."""
        since = int((self.now - window) * 1e6)
        reads = {name: dict.fromkeys(OPERATIONS, 0) for name in self.names}
        corrupt: dict[str, dict[str, None]] = {name: {} for name in self.names}
        for batch in reader.log(after_id=log_position(reader, since - int(BUFFERED * 1e6))):
            for entry in batch:
                at, namespace, operation, key = entry[1], entry[2], entry[3], entry[4]
                if at < since or namespace not in reads or operation not in OPERATIONS:
                    continue
                if log_checksum(entry) != entry[11]:
                    continue
                reads[namespace][operation] += 1
                if operation == "corrupt" and key is not None and len(corrupt[namespace]) < MAX_KEYS:
                    corrupt[namespace][key] = None
        for namespace, counted in reads.items():
            total = sum(counted.values())
            if total >= MIN_SAMPLES:
                self.add("hit_rate", counted["hit"] / total, namespace)
            if ring is not None:
                damaged = still_damaged(reader, namespace, list(corrupt[namespace]), ring)
                self.add("integrity_findings", damaged, namespace)

    def scan(self, params: t.Mapping[str, t.Any], ring: t.Any) -> None:
        whole = ring is not None
        for namespace in self.names:
            try:
                found = integrity.scan(
                    store_params=params, keyring=ring, namespace=namespace, structure=False, application=True
                )
                damaged = int(found["damaged"])
            except StoreDamaged as exc:
                self.warnings.append(exc.message)
                damaged = 1  # not even its rows can be read
            except MemoryOpsError as exc:
                self.warnings.append(exc.message)
                whole = False
                continue
            self.add("integrity_findings", damaged, namespace)
        if whole:
            self.add("scrub_last_success_timestamp_seconds", self.now)

    def scrubbed(self, folder: str) -> None:
        """What the scheduled scrub has noted, once it has come to every namespace."""
        notes = read_notes(folder)
        if self.names and all(name in notes for name in self.names):
            self.add("scrub_last_success_timestamp_seconds", min(notes[name]["at"] for name in self.names) / 1e6)

    def key_age(self, ring: t.Any) -> None:
        try:
            created = ring.created(ring.active_id)
        except MemoryOpsError as exc:
            self.warnings.append(exc.message)
            return
        if created is not None:
            self.add("key_age_seconds", max(0.0, self.now - created / 1e6))

    def repository(self, open_repository: t.Callable[[], t.Any], cluster: str, ring: t.Any) -> None:
        """The newest snapshot to restore from, and the newest restore of one that passed and is noted with it."""
        try:
            repository = open_repository()
            found = repository.snapshots(cluster, ring)
            good = [info for info in found if info.good and not info.problem]
            held = _held(repository, cluster, ring)
            locked = _locked_until(repository, cluster, good)
            drilled = max((_drilled(repository, cluster, info.id, ring) for info in good[:CHECKED]), default=0.0)
            last = None if ring is None else newest(repository, ring, cluster)
            if last is not None and last.get("verdict") == "pass" and last.get("left_out"):
                last = newest_whole(repository, ring, cluster)
            if last is not None and last.get("verdict") == "pass":
                drilled = max(drilled, (microseconds(last.get("at")) or 0) / 1e6)
        except MemoryOpsError as exc:
            self.warnings.append(exc.message)
            self.add("repository_up", 0)
            return
        self.add("repository_up", 1)
        oldest = oldest_saved(good)
        self.add("backup_last_success_timestamp_seconds", 0.0 if oldest is None else oldest[1].at / 1e6)
        self.add("backup_locked_until_timestamp_seconds", locked)
        self.add("backup_suspect", suspect(found) is not None)
        self.add("snapshots", len(found))
        self.add("snapshots_held", held)
        if drilled:
            self.add("drill_last_success_timestamp_seconds", drilled)


def log_position(reader: Reader, since: int) -> int:
    """An id of the log after which all entries from ``since`` (µs) on come, found by a few looks into it: their ids
    grow with time, but for what applications buffer."""

    def before(place: int) -> bool:
        """Whether the entry after ``place`` is older than ``since``."""
        batch = next(reader.log(after_id=place, batch=1), None)
        return batch is not None and batch[0][1] < since

    low, high = 0, 1
    if not before(low):
        return 0
    while before(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return high


def still_damaged(reader: Reader, namespace: str, keys: t.Sequence[str], ring: t.Any) -> int:
    """How many of these records are damaged now."""
    codec, damaged = RecordCodec(namespace), 0
    for first in range(0, len(keys), 500):
        for row in reader.get_many(namespace, sorted(keys[first : first + 500])).values():
            try:
                if not codec.intact(row):
                    damaged += 1
                elif row[DELETED] is None:
                    ring.open_payload(row[PAYLOAD], codec.head(row), row[KEY_ID])
            except (KeyUnavailable, RecordCorrupt):
                damaged += 1
    return damaged


def _held(repository: t.Any, cluster: str, ring: t.Any) -> int:
    """How many snapshots a hold keeps: one walk over their folder, then those are asked that ever had one."""
    keys = (info.key for info in repository.objects.list(f"snapshots/{cluster}/"))
    asked = {key.split("/")[2] for key in keys if key.endswith(holds.ENDINGS)}
    return sum(1 for one in asked if holds.standing(repository.objects, cluster, one, ring))


def _locked_until(repository: t.Any, cluster: str, good: t.Sequence[t.Any]) -> float:
    """Of the newest good snapshot; 0: no lock keeps it."""
    locks = repository.objects.locks
    if locks is None or not good:
        return 0.0
    return float(locks.until([f"{folder(cluster, max(good, key=lambda info: info.at).id)}manifest.json"])[0])


def _drilled(repository: t.Any, cluster: str, snapshot: str, ring: t.Any) -> float:
    """When this snapshot last was restored and passed; 0: never, or nobody noted it."""
    secret = None if ring is None else read_keys(repository.objects, cluster, snapshot, ring)[0]
    checks = read_checks(repository.objects, cluster, snapshot, secret)
    passed = [one["at"] / 1e6 for one in checks if one.get("depth") == "restored" and one.get("verdict") == "pass"]
    return max(passed, default=0.0)
