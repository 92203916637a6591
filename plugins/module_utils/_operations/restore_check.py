# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Read a new generation back while it is still being loaded, and compare the logs meanwhile.

PRIVATE to the collection. What the store gives back must make, chunk by chunk, the very bytes whose SHA-256 the
snapshot's authenticated index names. The log of the store that the snapshot was taken of is compared in the same way,
without fetching the snapshot's: an entry that is there needs no import.
"""

from __future__ import annotations

import hashlib
import typing as t

from .._errors import StoreDamaged
from .._model import Row
from .._repository.chunks import ChunkRef, RowPacker
from .._store import Reader, Store, open_store
from .._store_optional import PackedRows
from .snapshot_check import Checker, Tally
from .snapshot_scan import LogPartCopier, holds_log_parts
from .workers import Parent, Worker

LOG_CHUNKS = 8  # that are compared at a time
PACKED_CHUNKS = 8  # that the engine brings at a time
PACKED_BYTES = 2 << 20  # of a chunk: a bigger one is looked at row by row
WAIT_SECONDS = 1.0
SETTLE_AFTER = 6  # transactions that were loaded: each time that they are put away the disk is waited for


def read_back(store: Store, namespace: str, generation: int, each: t.Callable[[], None]) -> Tally:
    """What the rows of a generation come to, each checksum recomputed; ``each`` is called per batch."""
    tally = Tally()
    checker = Checker(namespace, tally)
    with store.reader() as reader:
        for rows in reader.scan(namespace, generation=generation):
            checker(rows)
            each()
    return tally


class Proof:
    """Whether a generation holds exactly the rows of these chunks, looked at as far as they are committed."""

    def __init__(self, store: Store, namespace: str, generation: int, chunks: t.Sequence[ChunkRef]) -> None:
        self._store, self._namespace, self._generation, self._chunks = store, namespace, generation, chunks
        packer = RowPacker()
        self._pack, self._header = packer.pack, packer.header
        self._next = 0
        self.rows = 0
        self.wrong: str | None = None  # the first place where the store holds something else

    def follow(self, committed: int) -> None:
        """Look at the chunks up to ``committed``, the number of chunks that are loaded."""
        if self.wrong is not None or committed <= self._next:
            return
        chunks = self._chunks[self._next : committed]
        after = self._chunks[self._next - 1].last_key if self._next else None
        self._next = committed
        waiting: list[Row] = []
        position = 0
        with self._store.reader() as reader:
            if isinstance(reader, PackedRows) and self._holds(reader, after, chunks):
                self.rows += sum(chunk.rows for chunk in chunks)
                return
            for rows in reader.scan(
                self._namespace, after=after, until=chunks[-1].last_key, generation=self._generation
            ):
                waiting += rows
                while position < len(chunks) and len(waiting) >= chunks[position].rows:
                    chunk = chunks[position]
                    if hashlib.sha256(self._pack(waiting[: chunk.rows])).digest() != chunk.digest:
                        self.wrong = _between(chunk)
                        return
                    waiting = waiting[chunk.rows :]
                    self.rows += chunk.rows
                    position += 1
        if waiting or position < len(chunks):
            self.wrong = _between(chunks[min(position, len(chunks) - 1)])

    def _holds(self, reader: PackedRows, after: t.Any, chunks: t.Sequence[ChunkRef]) -> bool:
        """Whether the stored bytes are these chunks; if not, the rows tell more."""
        if max(chunk.length for chunk in chunks) > PACKED_BYTES:
            return False
        for start in range(0, len(chunks), PACKED_CHUNKS):
            part = chunks[start : start + PACKED_CHUNKS]
            lows = [after, *(chunk.last_key for chunk in part[:-1])]
            found = reader.packed_rows(
                self._namespace, self._generation, [(low, chunk.last_key) for low, chunk in zip(lows, part)]
            )
            made = [hashlib.sha256(self._header(chunk.rows) + rows).digest() for chunk, rows in zip(part, found)]
            if made != [chunk.digest for chunk in part]:
                return False
            after = part[-1].last_key
        return True

    def finish(self) -> None:
        """Every chunk was looked at; nothing may lie behind the last one."""
        self.follow(len(self._chunks))
        after = self._chunks[-1].last_key if self._chunks else None
        with self._store.reader() as reader:
            if any(reader.scan(self._namespace, after=after, generation=self._generation, batch=1)):
                self.wrong = self.wrong or f"rows after {after!r:.80}"


class LogComparison:
    """Which chunks of a snapshot's log this store's log does not hold as they are: ``missing``, their positions."""

    def __init__(self, store: Store, namespace: str, chunks: t.Sequence[ChunkRef]) -> None:
        self._store, self._namespace, self._chunks = store, namespace, chunks
        self._pack = RowPacker().pack
        self._next = 0
        self.missing: list[int] = []

    def step(self) -> bool:
        """Compare some chunks more; whether any are left."""
        part = self._chunks[self._next : self._next + LOG_CHUNKS]
        first = self._next
        self._next += len(part)
        if part:
            try:
                same = self._same(part)
            except StoreDamaged:
                same = set()
            self.missing += [first + position for position in range(len(part)) if position not in same]
            if not first and not same:  # another store's log: none of its entries has the same number
                self.missing = list(range(len(self._chunks)))
                self._next = len(self._chunks)
        return self._next < len(self._chunks)

    def _same(self, chunks: t.Sequence[ChunkRef]) -> set[int]:
        if not all(isinstance(chunk.first_key, int) and isinstance(chunk.last_key, int) for chunk in chunks):
            return set()
        with self._store.reader() as reader:
            same: set[int] = set()
            if isinstance(reader, LogPartCopier):
                for position, chunk in enumerate(chunks):
                    dense = chunk.last_key - chunk.first_key < 2 * chunk.rows  # else most entries are of others
                    if dense and holds_log_parts(reader, self._namespace, chunk):
                        same.add(position)
            return same if len(same) == len(chunks) else same | self._same_entries(reader, chunks)

    def _same_entries(self, reader: Reader, chunks: t.Sequence[ChunkRef]) -> set[int]:
        same: set[int] = set()
        position = 0
        waiting: list[t.Any] = []
        for entries in reader.log(self._namespace, after_id=chunks[0].first_key - 1):
            waiting += entries
            while position < len(chunks) and waiting and waiting[-1][0] >= chunks[position].last_key:
                chunk = chunks[position]
                end = chunk.rows
                if end > len(waiting) or waiting[end - 1][0] != chunk.last_key:
                    end = next((n for n, entry in enumerate(waiting) if entry[0] > chunk.last_key), len(waiting))
                elif hashlib.sha256(self._pack(waiting[:end])).digest() == chunk.digest:
                    same.add(position)
                waiting = waiting[end:]
                position += 1
            if position == len(chunks):
                break
        return same


class Follower:
    """A process that proves what was committed so far, and compares the logs while it waits for more."""

    def __init__(
        self,
        store_params: t.Mapping[str, t.Any],
        namespace: str,
        generation: int,
        chunks: t.Sequence[ChunkRef],
        log: t.Sequence[ChunkRef],
    ) -> None:
        self._worker = Worker(_follow, dict(store_params), namespace, generation, chunks, log)

    def committed(self, chunks: int) -> None:
        """So many chunks are loaded. Errors: what the worker raised."""
        self._worker.send(chunks)

    def finish(self, each: t.Callable[[], None]) -> tuple[int, str | None, list[int]]:
        """(rows proven, where the store holds something else, log chunks to import); ``each`` is called meanwhile."""
        self.committed(-1)
        while not self._worker.channel.poll(WAIT_SECONDS):
            each()
        found: tuple[int, str | None, list[int]] = self._worker.receive()[1]
        return found

    def stop(self) -> None:
        self._worker.stop()


def _follow(
    parent: Parent,
    store_params: dict[str, t.Any],
    namespace: str,
    generation: int,
    chunks: t.Sequence[ChunkRef],
    log: t.Sequence[ChunkRef],
) -> None:
    store = open_store(store_params)
    proof = Proof(store, namespace, generation, chunks)
    comparison = LogComparison(store, namespace, log)
    more = True
    unsettled = 0
    while True:
        if more and not parent.waiting():
            more = comparison.step()
            parent.check()
            continue
        committed = parent.receive()
        if committed < 0:
            break
        proof.follow(committed)
        unsettled += 1
        if unsettled >= SETTLE_AFTER:
            store.settle()
            unsettled = 0
    proof.finish()
    while more:
        more = comparison.step()
        parent.check()
    parent.send("found", (proof.rows, proof.wrong, comparison.missing))


def _between(chunk: ChunkRef) -> str:
    return f"rows from {chunk.first_key!r:.80} to {chunk.last_key!r:.80}"
