# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Take a snapshot: an immutable, verifiable copy of namespaces and their access log at one point.

PRIVATE to the collection. The manifest is put last; until then there is no snapshot, whatever happens.
"""
from __future__ import annotations

import contextlib
import secrets
import time
import typing as t

from .. import _progress
from .._codec import RecordCodec, encode_value
from .._errors import (
    InvalidInput,
    KeyUnavailable,
    MemoryOpsError,
    NamespaceUnknown,
    RepositoryGone,
    RepositoryRefused,
    RepositoryUnavailable,
    SnapshotUnusable,
)
from .._model import READ_OPERATIONS, LogEntry, NamespaceState, Record, StoreIdentity
from .._repository import Repository, Snapshot, SnapshotInfo
from .._repository.catalogue import choose_base, new_id, read_problem
from .._repository.manifest import (
    PURPOSES,
    folder,
    keys_name,
    manifest_key,
    pack_index,
    pack_keys,
    read_keys,
    seal_line,
)
from .._repository.objects import check_name
from .._repository.packs import put_checked
from .._store import Reader, Store, open_store
from . import commands
from .coverage import to_compare
from .former_repository import Former
from .integrity import as_keyring
from .other_copies import beside
from .probes import CANARY
from .retention_lock import extend_one
from .snapshot_manifest import Scanned, body, lacking_keys, result_of, summary, suspicions, unjudged
from .snapshot_scan import Base, Job
from .snapshot_workers import Crew

BIG = 50_000  # records from which on a second process is worth its start

Progress = t.Optional[t.Callable[[t.Dict[str, t.Any]], None]]


def create(
    *,
    store_params: t.Mapping[str, t.Any],
    repository: Repository | t.Mapping[str, t.Any],
    keyring: t.Any,
    name: str,
    purpose: str,
    namespaces: t.Sequence[str] | None = None,
    incident: str | None = None,
    workers: int = 2,
    min_interval: float = 0,
    base: str | None = "auto",
    spool: str | None = None,
    open_payloads: bool = False,
    progress: Progress = None,
    former: Former | None = None,
    since: int | None = None,
) -> dict[str, t.Any]:
    """Publish a snapshot of the store ``name``; every checksum is recomputed on the way.

    ``repository`` is an open one or its parameters (then it is made when it is missing); ``namespaces`` None: all.
    ``base``: "auto", a snapshot id, or None for a full one. ``min_interval`` (seconds): when nothing was written since
    the newest good snapshot of this purpose and it is younger, that one is returned. ``spool``: a directory that takes
    a forensic snapshot while the repository is away. ``open_payloads`` also decrypts every payload. ``former``: which
    repository the store was saved to before, noted anew. ``since`` (µs since 1970): a forensic snapshot of the incident
    from before that is of another damage.

    Returns {changed, snapshot, name, purpose, incident, suspect, reasons, point {epoch, sequence}, at, namespaces
    {name: {records, tombstones, damaged, unopenable, digest, log_entries, holes, …}}, damaged {name: n}, examples
    {name: [keys]}, holes {name: [[after, until]]}, bytes {sent, referenced, stored}, base, spooled, location, warnings,
    seconds}.
    Errors: InvalidInput, NamespaceUnknown, StoreUnavailable, StoreDamaged (unless forensic), KeyUnavailable,
    RepositoryUnavailable, RepositoryRefused (another store's).
    """
    started = time.monotonic()
    check_name("store", name)
    if purpose not in PURPOSES:
        raise InvalidInput(f"There is no purpose {purpose!r:.40}.", f"use one of: {', '.join(PURPOSES)}")
    if purpose == "forensic" and not incident:
        raise InvalidInput("A forensic snapshot belongs to an incident, and none is named.", "name the incident")

    def take(place: Repository) -> dict[str, t.Any]:
        creation = _Creation(place, dict(store_params), keyring, name, purpose, namespaces, incident, progress)
        creation.since = since or 0
        return creation.run(max(1, workers), min_interval, base, open_payloads)

    spooled = False
    try:
        if isinstance(repository, Repository):
            place = repository
        elif former is None:
            place = Repository.open(repository, create=True)
        else:
            place = former.open(repository)
        result = take(place)
        if former is not None:
            result["repository_made"] = place.made
            if purpose != "scheduled" or not former.first(place):  # the first backup of all makes it, and says so
                result["warnings"] += former.warnings(place, place.location)
            former.note(place)
    except (RepositoryUnavailable, RepositoryGone) as exc:
        if not spool or purpose != "forensic":
            raise
        place = Repository.open({"url": "file://" + spool}, create=True)
        result = take(place)
        spooled = True
        result["warnings"].append(f"{exc.message} The snapshot lies in {place.location} until it can be taken again.")
    return {**result, "spooled": spooled, "location": place.location, "seconds": round(time.monotonic() - started, 3)}


class _Creation:
    """One attempt at one snapshot."""

    def __init__(
        self,
        repository: Repository,
        store_params: dict[str, t.Any],
        keyring: t.Any,
        name: str,
        purpose: str,
        namespaces: t.Sequence[str] | None,
        incident: str | None,
        progress: Progress,
    ) -> None:
        self.repository = repository
        self.objects = repository.objects
        self.read_back = repository.seen.get("checksum_verified") is False
        self.store_params = store_params
        self.keyring = keyring
        self.name = name
        self.purpose = purpose
        self.wanted = None if namespaces is None else list(dict.fromkeys(namespaces))
        self.incident = incident
        self.progress = progress
        self.warnings = list(repository.warnings)
        self._former: dict[str, SnapshotInfo] = {}  # of each namespace what this snapshot is compared with
        self.done = self.since = 0
        self.doubts: list[str] = []  # why somebody has to accept it

    def run(self, workers: int, min_interval: float, base: str | None, open_payloads: bool) -> dict[str, t.Any]:
        with Crew(self.store_params, as_keyring(self.keyring) if open_payloads else None, workers) as crew:
            return self._run(crew, min_interval, base)

    def _run(self, crew: Crew, min_interval: float, base: str | None) -> dict[str, t.Any]:
        snapshots = self.repository.snapshots(self.name)
        if self.purpose == "forensic":
            for info in snapshots:
                if info.purpose == "forensic" and info.incident == self.incident and info.at >= self.since:
                    found = self.repository.snapshot(self.name, info.id, self.keyring)
                    return self._unchanged(found)
        store = open_store(self.store_params)
        try:
            self.known = known = store.capabilities()
            if "sequence" not in known:  # what is saved is known from now on, also when all of it is gone
                with store.reader() as reader:
                    names = [state.name for state in self._states(reader)]
                for namespace in names:
                    store.create_namespace(namespace)
            identity = store.identity()
            self._same_store(snapshots, identity)
            self.doubts, told = beside(self.purpose, identity, snapshots)
            self.warnings += told
            before = self._last_good(snapshots)
            self._former = to_compare([info for info in snapshots if info.good])
            with store.reader() as reader:
                states = self._states(reader)
                if self.purpose != "forensic" and before is not None and min_interval > 0 and "sequence" in known:
                    fresh = self._nothing_written(reader, states, snapshots, min_interval)
                    if fresh is not None:
                        return self._unchanged(fresh)
            if self.purpose in ("scheduled", "baseline") and "log" in known:
                with store.reader() as reader:
                    bare = [
                        state.name
                        for state in states
                        if state.state == "serving" and not reader.get_many(state.name, [CANARY])
                    ]
                for namespace in bare:
                    self._canary(store, namespace)
        finally:
            store.close()
        chosen = self._base(snapshots, base, identity)
        job = Job(
            name=self.name,
            snapshot=new_id(time.time()),
            secret=secrets.token_bytes(32),
            base=chosen,
            before={name: (info.epoch, info.sequence, info.at) for name, info in self._former.items()},
            forensic=self.purpose == "forensic",
        )
        self.keyring.export_wrapped()  # what cannot be sealed must not be begun
        small = identity.sequence <= BIG  # no store has more records than it gave out sequences
        before_records = None if before is None else sum(e["records"] for e in before.namespaces.values())
        _progress.begin("copying records", before_records if self.wanted is None else None)
        scanned = crew.scan(job, self.objects, self.read_back, self._states, small, self._say)
        return self._publish(job, scanned, before)

    # --- before -----------------------------------------------------------------------------------------------------
    def _same_store(self, snapshots: t.Sequence[SnapshotInfo], identity: StoreIdentity) -> None:
        for info in snapshots:
            if info.lineage and info.lineage != identity.lineage:
                raise RepositoryRefused(
                    f"The snapshots of {self.name} in {self.objects.location} are of another store.",
                    "where that one was lost and this is new in its place, bring it back first: "
                    f"{commands.run('restore', memory_create='true')}; otherwise use another memory_cluster name or "
                    "another prefix for this store",
                )

    def _last_good(self, snapshots: t.Sequence[SnapshotInfo]) -> SnapshotInfo | None:
        return next((info for info in snapshots if info.good), None)

    def _states(self, reader: Reader) -> list[NamespaceState]:
        states = {state.name: state for state in reader.namespaces()}
        if self.wanted is None:
            return list(states.values())
        for namespace in self.wanted:
            if namespace in states:
                continue
            try:
                states[namespace] = reader.namespace(namespace)  # one that contains others need not be listed
            except NamespaceUnknown:
                raise NamespaceUnknown(
                    f"The store {self.name} has no namespace {namespace!r:.80}.",
                    f"name one of: {', '.join(map(repr, list(states)[:10])) or '(there is none)'}",
                ) from None
        return [states[namespace] for namespace in self.wanted]

    def _nothing_written(
        self, reader: Reader, states: list[NamespaceState], snapshots: t.Sequence[SnapshotInfo], min_interval: float
    ) -> Snapshot | None:
        """The newest good snapshot of this purpose, when it is young and still tells everything."""
        info = next((info for info in snapshots if info.good and info.purpose == self.purpose), None)
        if info is None or not 0 <= time.time() - info.manifest["created"] / 1e6 < min_interval:
            return None
        if (info.epoch, info.sequence) != (reader.identity.epoch, reader.identity.sequence):
            return None
        if {state.name: state.generation for state in states} != {
            namespace: entry["generation"] for namespace, entry in info.namespaces.items()
        }:
            return None
        for entries in reader.log(after_id=info.manifest["log_last_id"]):
            if any(entry[3] not in READ_OPERATIONS for entry in entries):
                return None  # an operator's change takes no sequence but is logged
        return self.repository.snapshot(self.name, info.id, self.keyring)

    def _unchanged(self, snapshot: Snapshot) -> dict[str, t.Any]:
        manifest = snapshot.manifest
        told = result_of(manifest, False, self.warnings, {}, {})
        told["suspect"] = told["suspect"] and not snapshot.info.accepted
        return told | {"bytes": {"sent": 0, "referenced": 0, "stored": 0}}

    def _canary(self, store: Store, namespace: str) -> None:
        """A record that must come back from every restore."""
        codec = RecordCodec(namespace)
        with store.writing(namespace, 1) as write:
            if write.current([CANARY]):
                return
            key_id = self.keyring.active_id
            row = Record(CANARY, write.epoch, write.first_sequence, write.at, write.at, None, None, key_id, b"", b"")
            value = encode_value({"canary": secrets.token_hex(16)})
            row = row._replace(payload=self.keyring.seal(value, codec.head(row), key_id))
            row = row._replace(checksum=codec.checksum(row))
            entry = LogEntry(
                0, write.at, namespace, "write", CANARY, row.epoch, row.sequence, row.checksum, write.lock,
                "memops:backup", "canary", b"",
            )  # fmt: skip
            write.put([tuple(row)], [tuple(entry)])

    def _base(self, snapshots: t.Sequence[SnapshotInfo], wanted: str | None, identity: StoreIdentity) -> Base | None:
        if wanted is None or (self.purpose == "forensic" and wanted != "auto"):
            return None
        chosen = choose_base(snapshots, identity.lineage, time.time()) if wanted == "auto" else wanted
        if chosen is None:
            return None
        try:
            snapshot = self.repository.snapshot(self.name, chosen, self.keyring)
            if not snapshot.good or snapshot.info.references:
                raise RepositoryRefused(f"Snapshot {chosen} cannot be a base: it is not full or not good.", "use auto")
            where = folder(self.name, chosen)
            sizes = {info.key[len(where) :]: info.size for info in self.objects.list(where + "packs/")}
            for number, size, _digest, _frames in snapshot.manifest["packs"]:
                if sizes.get(f"packs/{number:06d}.pack") != size:
                    raise RepositoryRefused(f"Snapshot {chosen} has lost pack {number:06d}.", "verify it")
            index = snapshot.index()
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            if wanted != "auto":
                raise
            self.warnings.append(f"{exc.message} The new snapshot is a full one instead.")
            return None
        chunks = {
            namespace: {kind: {chunk.digest: chunk for chunk in found} for kind, found in kinds.items()}
            for namespace, kinds in index.items()
        }
        same_log = snapshot.manifest["store"]["store_id"] == identity.store_id  # a copy of the store has ids of its own
        return Base(chosen, chunks, same_log)

    # --- the scan ---------------------------------------------------------------------------------------------------
    def _say(self, rows: int) -> None:
        self.done += rows
        _progress.add(rows)
        if self.progress is not None:
            self.progress({"phase": "snapshot", "records": self.done})

    def _lacking(
        self, scanned: Scanned, wrapped: t.Mapping[str, t.Any], before: SnapshotInfo | None
    ) -> list[str]:
        """Sentences about records under keys that the keyring lacks, and did not lack at the last good snapshot. Such
        snapshots must not push those out that have the keys."""
        lacking = lacking_keys(scanned, wrapped)
        if lacking and before is not None:
            with contextlib.suppress(KeyUnavailable, SnapshotUnusable):
                known = read_keys(self.objects, self.name, before.id, self.keyring)[1]
                former = set(before.manifest["keys"]) - set(known)
                lacking = {namespace: ids - former for namespace, ids in lacking.items()}
        return [
            f"records of namespace {namespace!r} are under the record key {', '.join(sorted(ids)[:3])}, which the "
            "keyring lacks: nothing opens them"
            for namespace, ids in sorted(lacking.items())
            if ids
        ]

    # --- after ------------------------------------------------------------------------------------------------------
    def _publish(self, job: Job, scanned: Scanned, before: SnapshotInfo | None) -> dict[str, t.Any]:
        index, entries = summary(scanned, self.known, self._former)
        wrapped = self.keyring.export_wrapped()  # after the scan: a rotation may have made the key of some rows since
        sealed = pack_keys(job.snapshot, job.secret, self.keyring, wrapped)
        # whose applications nothing can keep away, of that every snapshot is fuzzy: then it is told of evidence alone
        if scanned.moved and (job.forensic or "fence-reads" in self.known):
            self.warnings.append(
                f"The namespaces {', '.join(map(repr, scanned.moved[:5]))} were (or may have been) changed while they "
                "were read, and no point in time was kept for it: the snapshot is fuzzy, with some later writes beside "
                "all up to its point."
            )
        used = {chunk.pack for kinds in index.values() for chunks in kinds.values() for chunk in chunks
                if chunk.snapshot != job.snapshot}  # fmt: skip
        references: dict[str, t.Any] = {}
        if job.base is not None and used:
            base = self.repository.snapshot(self.name, job.base.snapshot, self.keyring)
            references[base.id] = [pack for pack in base.manifest["packs"] if pack[0] in used]
        reasons = self.doubts + ([] if job.forensic else suspicions(entries, self._former, self.wanted is None))
        lacking = [] if job.forensic else self._lacking(scanned, wrapped, before)
        if job.forensic or self.purpose == "failback":  # which is read at once; its home may have those keys
            self.warnings += [f"Snapshot {job.snapshot}: {line}." for line in lacking + scanned.dropped]
        else:
            reasons += lacking + scanned.dropped
            self.warnings += unjudged(entries, self._former)
        packed = pack_index(job.snapshot, job.secret, index)
        manifest = body(
            scanned,
            entries,
            snapshot=job.snapshot,
            name=self.name,
            purpose=self.purpose,
            incident=self.incident,
            packed=packed,
            references=references,
            predecessor=None if before is None else before.id,
            reasons=reasons,
        )
        where = folder(self.name, job.snapshot)
        put_checked(self.objects, where + keys_name(self.keyring.master_id), sealed, self.read_back)
        put_checked(self.objects, where + "index", packed, self.read_back)
        for referenced in references:
            if read_problem(self.objects, self.name, referenced):
                raise RepositoryUnavailable(
                    f"The base {referenced} was deleted while the snapshot was taken.", "run the same command again"
                )
            locks = self.objects.locks
            if locks is not None:  # a little longer than the manifest, which is put a little later
                until = time.time() + locks.seconds + min(60.0, locks.seconds / 10)
                extend_one(self.repository, self.name, referenced, until)
        self.keyring.export_wrapped()  # an error when its master key was given up meanwhile: nobody could open this
        line = seal_line(manifest, manifest_key(job.secret))
        self.objects.put(where + "manifest.json", line, if_absent=bool(self.repository.seen.get("conditional_put")))
        if self.read_back and self.objects.get(where + "manifest.json") != line:
            raise RepositoryUnavailable(f"{self.objects.location} stored the manifest wrongly.", "do not use it")
        examples: dict[str, list[str]] = {}
        holes: dict[str, list[t.Any]] = {}
        for namespace, tally in [*scanned.parts, *scanned.log.items()]:
            if tally.examples:
                examples.setdefault(namespace, []).extend(tally.examples)
            if tally.holes:
                holes.setdefault(namespace, []).extend(list(hole) for hole in tally.holes)
        return result_of(manifest, True, self.warnings, examples, holes)
