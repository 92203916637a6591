# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The moving part of a snapshot: read rows, recompute every checksum, cut chunks, refer to the base or send.

PRIVATE to the collection. One Scribe runs per process; processes share nothing but the numbering of their packs.
"""
from __future__ import annotations

import hashlib
import typing as t

from .._errors import StoreDamaged
from .._log_parts import LogPart
from .._model import KEY, Row
from .._repository.chunks import (
    Chunker,
    ChunkRef,
    LogChunker,
    RowPacker,
    checksums_digest,
    row_sizes,
)
from .._repository.packs import PackWriter, Put
from .._store import Reader
from .snapshot_check import Checker, Tally

BATCH = 500  # rows that are in hand at once: they stay in the processor's cache
HELD_ENTRIES = 100_000  # log entries that may wait for their chunks, all namespaces together


class Base(t.NamedTuple):
    """The snapshot that chunks may be referred to: its own chunks by namespace, kind and digest."""

    snapshot: str
    chunks: t.Dict[str, t.Dict[str, t.Dict[bytes, ChunkRef]]]
    same_log: bool  # it is of this very store: entries with the same ids are the same

    def of(self, namespace: str, kind: str) -> dict[bytes, ChunkRef]:
        return self.chunks.get(namespace, {}).get(kind, {})


class Job(t.NamedTuple):
    """What every process of one snapshot knows."""

    name: str
    snapshot: str
    secret: bytes
    base: t.Optional[Base]
    before: t.Mapping[str, t.Tuple[int, int, int]]  # (epoch, sequence, at) of each namespace's last good snapshot
    forensic: bool


class Range(t.NamedTuple):
    """One task: the rows of a namespace with after < key <= until."""

    namespace: str
    after: t.Optional[str]
    until: t.Optional[str]


class LogRange(t.NamedTuple):
    """One task: the log entries of all these namespaces with after < id <= until (None: to the end)."""

    namespaces: t.Tuple[str, ...]
    after: int
    until: t.Optional[int]
    known: bool  # the base holds this part, unless entries have gone since


Task = t.Union[Range, LogRange]
Tallies = t.Dict[str, "Tally"]  # by namespace; of a Range just one


@t.runtime_checkable
class LogCopier(t.Protocol):
    """A reader whose log can be copied in parts, without an object for each entry."""

    def log_rows(self, after_id: int, until_id: int) -> t.Iterator[list[Row]]: ...

    def log_count(self, after_id: int, until_id: int) -> int: ...

    def log_end(self) -> int: ...


@t.runtime_checkable
class LogPartCopier(t.Protocol):
    """A LogCopier whose engine can put entries together itself."""

    def log_parts(self, after_id: int, until_id: int, *, compared: bool = False) -> t.Iterator[LogPart | list[Row]]:
        """``compared``: with a part that was put together without it, which says what it leaves unproven."""


class Scribe:
    """Writes packs ``first``, ``first + step``, … of one snapshot. ``keyring``: to open every payload as well."""

    def __init__(
        self, job: Job, reader: Reader, put: Put, keyring: t.Any = None, first: int = 0, step: int = 1
    ) -> None:
        self._job = job
        self._reader = reader
        self._keyring = keyring
        self._writer = PackWriter(put, job.secret, job.snapshot, first, step)
        self._pack = RowPacker().pack

    def finish(self) -> list[list[t.Any]]:
        """Put what is left; the packs [number, size, SHA-256, frames]. Entries are complete only after this."""
        self._writer.close()
        return self._writer.packs

    def run(self, task: Task, progress: t.Callable[[int], None]) -> Tallies:
        """Store one range. Errors: StoreDamaged unless forensic, RepositoryUnavailable."""
        if isinstance(task, LogRange):
            return self._log(task, progress)
        return {task.namespace: self._range(task, progress)}

    # --- records ------------------------------------------------------------------------------------------------
    def _range(self, task: Range, progress: t.Callable[[int], None]) -> Tally:
        tally = Tally()
        chunker = Chunker()
        check = Checker(task.namespace, tally, self._job.before.get(task.namespace), self._keyring)
        base = self._job.base
        known = {} if base is None else {
            chunk.first_key: chunk for chunk in base.of(task.namespace, "records").values() if chunk.sums is not None
        }  # fmt: skip
        last: str | None = task.after
        waiting: list[Row] = []
        try:
            for rows in self._reader.scan(task.namespace, after=task.after, until=task.until, batch=BATCH):
                last = rows[-1][0]
                check(rows)
                if tally.damaged:
                    known = {}  # from here on every chunk is packed and compared by its bytes
                waiting = self._cut(task.namespace, waiting + rows if waiting else rows, known, chunker, tally, True)
                progress(len(rows))
        except StoreDamaged:
            if not self._job.forensic:
                raise
            self._cut(task.namespace, waiting, known, chunker, tally, False)
            self._add(task.namespace, chunker.rest(), tally)
            self._from_the_end(task, last, check, tally, progress)
        else:
            self._cut(task.namespace, waiting, known, chunker, tally, False)
            self._add(task.namespace, chunker.rest(), tally)
        return tally

    def _cut(
        self, namespace: str, rows: list[Row], known: dict[t.Any, ChunkRef], chunker: Chunker, tally: Tally, more: bool
    ) -> list[Row]:
        """Store what these rows complete; returns those that wait for ``more``, because they begin like a chunk of
        the base. Rows that have the recomputed checksums of that chunk's rows, in their order, are that chunk."""
        start = 0
        sizes: list[int] | None = None
        while start < len(rows):
            chunk = known.get(rows[start][KEY]) if known and not chunker.held else None
            if chunk is not None:
                end = start + chunk.rows
                if end > len(rows) and more:
                    return rows[start:]
                if end <= len(rows) and checksums_digest(rows[start:end]) == chunk.sums:
                    self._refer(chunk, tally)
                    start = end
                    continue
            if sizes is None:
                sizes = row_sizes(rows)
            complete, start = chunker.take(rows, sizes, start)
            if complete is not None:
                self._add(namespace, complete, tally)
        return []

    def _from_the_end(
        self, task: Range, last: str | None, check: Checker, tally: Tally, progress: t.Callable[[int], None]
    ) -> None:
        """An unreadable page: take what can be read from the other end of the range, and note the hole."""
        keep = len(tally.entries)
        parts: list[tuple[list[str], list[list[t.Any]]]] = []
        first: str | None = task.until
        try:
            for rows in self._reader.scan(task.namespace, after=last, until=task.until, descending=True, batch=BATCH):
                first = rows[-1][0]
                rows = rows[::-1]
                check(rows)
                chunker = Chunker()
                self._cut(task.namespace, rows, {}, chunker, tally, False)
                self._add(task.namespace, chunker.rest(), tally)
                parts.append((tally.origins[keep:], tally.entries[keep:]))
                del tally.origins[keep:], tally.entries[keep:]
                progress(len(rows))
        except StoreDamaged:
            pass
        for origins, entries in reversed(parts):
            tally.origins += origins
            tally.entries += entries
        tally.holes.append((last, first))

    def _add(self, namespace: str, rows: t.Sequence[Row], tally: Tally) -> None:
        if rows:
            sums = None if tally.damaged else checksums_digest(rows)
            self._store("records", namespace, self._pack(rows), len(rows), rows[0][KEY], rows[-1][KEY], sums, tally)

    def _store(
        self, kind: str, namespace: str, plain: bytes, rows: int, first: t.Any, last: t.Any, sums: bytes | None,
        tally: Tally,
    ) -> None:  # fmt: skip
        """Send a chunk, or refer to the base where it has the same bytes."""
        digest = hashlib.sha256(plain).digest()
        base = self._job.base
        known = None if base is None else base.of(namespace, kind).get(digest)
        if known is not None:
            self._refer(known, tally)
            return
        entry: list[t.Any] = [0, 0, 0, 0, False, rows, digest, first, last, sums]
        tally.origins.append(self._job.snapshot)
        tally.entries.append(entry)
        tally.sent += len(plain)
        self._writer.add(plain, entry, kind)

    def _refer(self, chunk: ChunkRef, tally: Tally) -> None:
        tally.origins.append(chunk.snapshot)
        tally.entries.append(list(chunk[1:]))
        tally.referenced += chunk.length

    # --- the log ------------------------------------------------------------------------------------------------
    def _log(self, task: LogRange, progress: t.Callable[[int], None]) -> Tallies:
        """Copy the access log of these namespaces, all in one pass."""
        tallies = {namespace: Tally() for namespace in task.namespaces}
        if task.known and self._unchanged(task, tallies):
            return tallies
        chunkers = {namespace: LogChunker() for namespace in task.namespaces}

        def add(namespace: str, chunk: tuple[bytes, int, t.Any, t.Any]) -> None:
            self._store("log", namespace, *chunk, None, tallies[namespace])

        held = 0
        after = task.after
        try:
            for entries in self._entries(task):
                for namespace, part, count, last in _by_namespace(entries):
                    after = max(after, last)
                    if namespace in tallies:
                        tally = tallies[namespace]
                        tally.rows += count
                        tally.last_id = last
                        held += count
                        for chunk in chunkers[namespace].add(part):
                            held -= chunk[1]
                            add(namespace, chunk)
                if held > HELD_ENTRIES:
                    held = 0
                    for namespace, chunker in chunkers.items():
                        if chunker.rows:
                            add(namespace, chunker.rest())
                progress(0)
        except StoreDamaged:
            if not self._job.forensic:
                raise
            for tally in tallies.values():
                tally.holes.append((str(after), None if task.until is None else str(task.until)))
        for namespace, chunker in chunkers.items():
            if chunker.rows:
                add(namespace, chunker.rest())
        return tallies

    def _entries(self, task: LogRange) -> t.Iterator[LogPart | t.Sequence[Row]]:
        reader = self._reader
        if task.until is None:
            return reader.log(after_id=task.after)
        if isinstance(reader, LogPartCopier):
            return reader.log_parts(task.after, task.until)
        return t.cast(LogCopier, reader).log_rows(task.after, task.until)

    def _unchanged(self, task: LogRange, tallies: Tallies) -> bool:
        """Entries are only added, at the end, and removed by pruning (or damage): as many as the base holds up to its
        end are those that it holds."""
        base, reader = self._job.base, self._reader
        if base is None or task.until is None or not isinstance(reader, LogCopier):
            return False
        chunks = [(chunk, namespace) for namespace in base.chunks for chunk in base.of(namespace, "log").values()]
        if reader.log_count(task.after, task.until) != sum(chunk.rows for chunk, _namespace in chunks):
            return False
        # a store that was set back to an older state and written to since has others at the end
        newest, name = max(chunks, key=lambda one: one[0].last_key)
        if not (isinstance(reader, LogPartCopier) and holds_log_parts(reader, name, newest)):
            parts = reader.log_rows(newest.first_key - 1, newest.last_key)
            now = self._pack([row for part in parts for row in part if row[2] == name])
            if hashlib.sha256(now).digest() != newest.digest:
                return False
        for namespace, tally in tallies.items():
            for chunk in base.of(namespace, "log").values():
                self._refer(chunk, tally)
                tally.rows += chunk.rows
                tally.last_id = chunk.last_key
        return True


def holds_log_parts(reader: LogPartCopier, namespace: str, chunk: ChunkRef) -> bool:
    """Whether the log makes the bytes of this chunk, put together as this reader's snapshots are."""
    made = LogChunker()
    for entries in reader.log_parts(chunk.first_key - 1, chunk.last_key, compared=True):
        for name, part, _count, _last in _by_namespace(entries):
            if name == namespace:
                list(made.add(part))  # ends no chunk: it is cut where the snapshot's was
    return hashlib.sha256(made.rest()[0]).digest() == chunk.digest


def _by_namespace(
    entries: LogPart | t.Sequence[Row],
) -> t.Iterator[tuple[str, LogPart | t.Sequence[Row], int, int]]:
    """(namespace, its entries, how many, id of the last)."""
    if isinstance(entries, LogPart):
        yield entries.namespace, entries, entries.rows, entries.last
        return
    names = [entry[2] for entry in entries]
    if names.count(names[0]) == len(names):  # nearly always
        yield names[0], entries, len(entries), entries[-1][0]
        return
    parts: dict[str, list[Row]] = {}
    for namespace, entry in zip(names, entries):
        parts.setdefault(namespace, []).append(entry)
    for namespace, part in parts.items():
        yield namespace, part, len(part), part[-1][0]
