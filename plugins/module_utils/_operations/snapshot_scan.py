# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The moving part of a snapshot: read rows, recompute every checksum, cut chunks, refer to the base or send.

PRIVATE to the collection. One Scribe runs per process; processes share nothing but the numbering of their packs.
"""
from __future__ import annotations

import hashlib
import typing as t
from zlib import crc32

from .._codec import HEAD, RecordCodec, namespace_prefix
from .._errors import KeyUnavailable, RecordCorrupt, StoreDamaged
from .._model import Row
from .._repository.chunks import ROW_OVERHEAD, Chunker, ChunkRef, NamespaceDigest, RowPacker
from .._repository.manifest import folder
from .._repository.objects import ObjectStore
from .._repository.packs import PackWriter, Uploader
from .._store import Reader

EXAMPLES = 20  # damaged keys that a result names
HELD_ENTRIES = 50_000  # log entries that may wait for their chunks, all namespaces together


class Base(t.NamedTuple):
    """The snapshot that chunks may be referred to: its own chunks by namespace, kind and digest."""

    snapshot: str
    chunks: t.Dict[str, t.Dict[str, t.Dict[bytes, ChunkRef]]]


class Job(t.NamedTuple):
    """What every process of one snapshot knows."""

    name: str
    snapshot: str
    secret: bytes
    objects: ObjectStore
    read_back: bool
    base: t.Optional[Base]
    before: t.Optional[t.Tuple[int, int, int]]  # (epoch, sequence, at) of the last good snapshot
    forensic: bool
    keyring: t.Any  # to open every payload as well; None: do not


class Range(t.NamedTuple):
    """One task: the rows of a namespace with after < key <= until."""

    namespace: str
    after: t.Optional[str]
    until: t.Optional[str]


class Tally:
    """What one range came to."""

    def __init__(self) -> None:
        self.entries: list[list[t.Any]] = []  # ChunkRef fields but the snapshot
        self.origins: list[str] = []
        self.rows = self.tombstones = self.damaged = self.unopenable = self.overwritten = 0
        self.total = 0  # of the NamespaceDigest
        self.examples: list[str] = []
        self.key_ids: set[str] = set()
        self.holes: list[tuple[str | None, str | None]] = []
        self.sent = self.referenced = 0  # plain bytes
        self.last_id = 0  # of log entries

    def chunks(self) -> list[ChunkRef]:
        return [ChunkRef(origin, *entry) for origin, entry in zip(self.origins, self.entries)]


class Scribe:
    """Writes packs ``first``, ``first + step``, … of one snapshot."""

    def __init__(self, job: Job, reader: Reader, first: int = 0, step: int = 1) -> None:
        self._job = job
        self._reader = reader
        where = folder(job.name, job.snapshot)
        self._uploader = Uploader(job.objects, read_back=job.read_back)
        self._writer = PackWriter(
            lambda key, data, sha256: self._uploader.put(where + key, data, sha256), job.secret, job.snapshot, first, step
        )
        self._pack = RowPacker().pack

    def finish(self) -> list[list[t.Any]]:
        """Put what is left; the packs [number, size, SHA-256, frames]. Entries are complete only after this."""
        self._writer.close()
        self._uploader.finish()
        return self._writer.packs

    def stop(self) -> None:
        self._uploader.abandon()

    def range(self, task: Range, progress: t.Callable[[int], None]) -> Tally:
        """Store one range. Errors: StoreDamaged unless forensic, RepositoryUnavailable."""
        tally = Tally()
        chunker = Chunker()
        check = Checker(task.namespace, tally, self._job.before, self._job.keyring)
        last: str | None = task.after
        try:
            for rows in self._reader.scan(task.namespace, after=task.after, until=task.until):
                last = rows[-1][0]
                for chunk in chunker.cut(rows, *check(rows)):
                    self._add("records", task.namespace, chunk, tally)
                progress(len(rows))
        except StoreDamaged:
            if not self._job.forensic:
                raise
            self._add("records", task.namespace, chunker.rest(), tally)
            self._from_the_end(task, last, check, tally, progress)
        else:
            self._add("records", task.namespace, chunker.rest(), tally)
        return tally

    def _from_the_end(
        self, task: Range, last: str | None, check: Checker, tally: Tally, progress: t.Callable[[int], None]
    ) -> None:
        """An unreadable page: take what can be read from the other end of the range, and note the hole."""
        keep = len(tally.entries)
        parts: list[tuple[list[str], list[list[t.Any]]]] = []
        first: str | None = task.until
        try:
            for rows in self._reader.scan(task.namespace, after=last, until=task.until, descending=True, batch=500):
                first = rows[-1][0]
                rows = rows[::-1]
                chunker = Chunker()
                for chunk in [*chunker.cut(rows, *check(rows)), chunker.rest()]:
                    self._add("records", task.namespace, chunk, tally)
                parts.append((tally.origins[keep:], tally.entries[keep:]))
                del tally.origins[keep:], tally.entries[keep:]
                progress(len(rows))
        except StoreDamaged:
            pass
        for origins, entries in reversed(parts):
            tally.origins += origins
            tally.entries += entries
        tally.holes.append((last, first))

    def log(self, namespaces: t.Collection[str], progress: t.Callable[[int], None]) -> dict[str, Tally]:
        """Store the access log of these namespaces, all in one pass."""
        tallies = {namespace: Tally() for namespace in namespaces}
        chunkers = {namespace: Chunker() for namespace in namespaces}
        held = 0
        after = 0
        try:
            for entries in self._reader.log():
                parts: dict[str, list[t.Any]] = {}
                for entry in entries:
                    parts.setdefault(entry[2], []).append(entry)
                after = entries[-1][0]
                for namespace, part in parts.items():
                    if namespace in tallies:
                        tally = tallies[namespace]
                        tally.rows += len(part)
                        tally.last_id = part[-1][0]
                        held += len(part)
                        for chunk in chunkers[namespace].entries(part):
                            held -= len(chunk)
                            self._add("log", namespace, chunk, tally)
                if held > HELD_ENTRIES:
                    held = 0
                    for namespace, chunker in chunkers.items():
                        self._add("log", namespace, chunker.rest(), tallies[namespace])
                progress(0)
        except StoreDamaged:
            if not self._job.forensic:
                raise
            for tally in tallies.values():
                tally.holes.append((str(after), None))
        for namespace, chunker in chunkers.items():
            self._add("log", namespace, chunker.rest(), tallies[namespace])
        return tallies

    def _add(self, kind: str, namespace: str, rows: t.Sequence[t.Any], tally: Tally) -> None:
        if not rows:
            return
        plain = self._pack(rows)
        digest = hashlib.sha256(plain).digest()
        base = self._job.base
        known = None
        if base is not None:
            known = base.chunks.get(namespace, {}).get(kind, {}).get(digest)
        if base is not None and known is not None:
            tally.origins.append(base.snapshot)
            tally.entries.append(list(known[1:]))
            tally.referenced += len(plain)
            return
        entry: list[t.Any] = [0, 0, 0, 0, False, len(rows), digest, rows[0][0], rows[-1][0]]
        tally.origins.append(self._job.snapshot)
        tally.entries.append(entry)
        tally.sent += len(plain)
        self._writer.add(plain, entry)


class Checker:
    """Recomputes checksums and counts, a batch at a time; returns what the chunker needs: hashes and sizes."""

    def __init__(
        self,
        namespace: str,
        tally: Tally,
        before: tuple[int, int, int] | None = None,
        keyring: t.Any = None,
    ) -> None:
        self._prefix = namespace_prefix(namespace)
        self._length = len(namespace.encode())
        self._codec = RecordCodec(namespace)
        self._before = before
        self._keyring = keyring
        self._tally = tally
        self.bad: list[int] = []  # positions of the damaged rows of the newest batch

    def __call__(self, rows: t.Sequence[Row]) -> tuple[list[int], list[int]]:
        tally = self._tally
        hashes: list[int] = []
        damaged: list[int] = []
        pack, prefix, length, sha256 = HEAD.pack, self._prefix, self._length, hashlib.sha256
        add = hashes.append
        for position, row in enumerate(rows):
            key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum = row
            try:
                text, name = key.encode(), key_id.encode()
                add(crc32(text))
                head = pack(
                    length, len(text), len(name), epoch, sequence, created, updated,
                    -1 if expires is None else expires if expires != -1 else None,
                    -1 if deleted is None else deleted if deleted != -1 else None,
                )  # fmt: skip
                if sha256(b"".join((head, prefix, text, name, payload))).digest() != checksum:
                    damaged.append(position)
            except Exception:  # fields of a wrong type: damaged, and never in the way
                if len(hashes) <= position:
                    add(crc32(repr(key).encode()))
                damaged.append(position)
        good: t.Sequence[Row] = rows
        self.bad = damaged
        if damaged:
            tally.damaged += len(damaged)
            room = EXAMPLES - len(tally.examples)
            tally.examples += [str(rows[position][0]) for position in damaged[:room]]
            bad = set(damaged)
            good = [row for position, row in enumerate(rows) if position not in bad]
            sizes = [(len(row[8]) if hasattr(row[8], "__len__") else 8) + ROW_OVERHEAD for row in rows]
        else:
            sizes = [len(row[8]) + ROW_OVERHEAD for row in rows]
        digest = NamespaceDigest()
        digest.add(rows, set(damaged))
        tally.rows += len(rows)
        tally.total += digest.total
        tally.tombstones += sum([row[6] is not None for row in good])
        tally.key_ids.update({row[7] for row in good})
        if self._before is not None:
            epoch, sequence, at = self._before
            new = [row for row in good if row[2] > sequence or row[1] != epoch]
            tally.overwritten += sum([row[3] <= at and (row[1], row[2]) > (epoch, sequence) for row in new])
        if self._keyring is not None:
            for row in good:
                try:
                    self._keyring.open_payload(row[8], self._codec.head(row), row[7])
                except (RecordCorrupt, KeyUnavailable):
                    tally.unopenable += 1
        return hashes, sizes
