# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading one snapshot: its chunks in bulk, in order or by key. Nothing unauthenticated leaves this file.

PRIVATE to the collection.
"""
from __future__ import annotations

import bisect
import hashlib
import typing as t
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from .._errors import NamespaceUnknown, SnapshotUnusable
from .._model import KEY, LogEntry, Row
from .chunks import ChunkRef, unpack_rows
from .manifest import Index, SnapshotInfo, folder, read_keys, unpack_index
from .objects import ObjectMissing, ObjectStore
from .packs import FrameCipher, expand, pack_name

READ_BYTES = 4 << 20  # one request at most, but for a huge row
AHEAD_BYTES = 8 << 20  # that may be asked for ahead of what is read
GAP_BYTES = 1 << 20  # reading this much too much costs less than another request


class Snapshot:
    """One authenticated snapshot. ``manifest`` is its whole manifest; rows come as tuples in the order of Record."""

    def __init__(
        self, objects: ObjectStore, info: SnapshotInfo, secret: bytes, wrapped: dict[str, t.Any], keyring: t.Any
    ) -> None:
        self._objects = objects
        self._keyring = keyring
        self._wrapped = wrapped
        self._secrets = {info.id: secret}
        self._ciphers: dict[tuple[str, int], FrameCipher] = {}
        self._index: Index | None = None
        self.info = info
        self.id = info.id
        self.name = info.name
        self.purpose = info.purpose
        self.good = info.good
        self.manifest = info.manifest

    @property
    def secret(self) -> bytes:
        """The snapshot key, for those who append to the snapshot."""
        return self._secrets[self.id]

    def wrapped_keys(self) -> dict[str, t.Any]:
        """Record key id → wrapped key, fit for Keyring.adopt."""
        return dict(self._wrapped)

    def namespaces(self) -> list[str]:
        return sorted(self.manifest["namespaces"])

    def index(self) -> Index:
        """Errors: SnapshotUnusable."""
        if self._index is None:
            try:
                data = self._objects.get(folder(self.name, self.id) + "index")
            except ObjectMissing:
                raise SnapshotUnusable(f"Snapshot {self.id} has lost its index.", "use another snapshot") from None
            if hashlib.sha256(data).hexdigest() != self.manifest["index"]["sha256"]:
                raise SnapshotUnusable(f"The index of snapshot {self.id} was changed.", "use another snapshot")
            self._index = unpack_index(self.id, self.secret, data)
        return self._index

    def chunks(self, namespace: str, kind: str = "records") -> list[ChunkRef]:
        """The chunks of a namespace's records or log, in order. Errors: NamespaceUnknown, SnapshotUnusable."""
        index = self.index()
        if namespace not in index:
            raise NamespaceUnknown(
                f"Snapshot {self.id} holds no namespace {namespace!r:.80}.",
                f"name one of: {', '.join(map(repr, list(index)[:10]))}",
            )
        return index[namespace][kind]

    def scan(self, namespace: str, after: t.Any = None, until: t.Any = None) -> t.Iterator[list[Row]]:
        """Rows with after < key <= until in key order, tombstones included. Errors: SnapshotUnusable, mid-way too."""
        chunks = self.chunks(namespace)
        if after is not None or until is not None:
            chunks = [
                chunk
                for chunk in chunks
                if not (_before(chunk.last_key, after, True) or _before(until, chunk.first_key, False))
            ]
        for chunk, rows in self.read(chunks):
            whole = not (after is not None or until is not None) or (
                _before(after, chunk.first_key, False) and not _before(until, chunk.last_key, False)
            )
            if whole:
                yield list(rows)
            else:
                part = [
                    row for row in rows if not _before(row[KEY], after, True) and not _before(until, row[KEY], False)
                ]
                if part:
                    yield part

    def get_many(self, namespace: str, keys: t.Iterable[str]) -> dict[str, Row]:
        """The rows of these keys, as far as they are there."""
        chunks = [chunk for chunk in self.chunks(namespace) if isinstance(chunk.last_key, str)]
        lasts = [chunk.last_key for chunk in chunks]
        wanted: dict[int, set[str]] = {}
        for key in keys:
            position = bisect.bisect_left(lasts, key)
            if position < len(chunks) and not _before(key, chunks[position].first_key, False):
                wanted.setdefault(position, set()).add(key)
        found: dict[str, Row] = {}
        positions = sorted(wanted)
        for position, (_chunk, rows) in zip(positions, self.read([chunks[p] for p in positions], threads=8)):
            keep = wanted[position]
            found.update((row[KEY], row) for row in rows if row[KEY] in keep)
        return found

    def log(self, namespace: str) -> t.Iterator[list[LogEntry]]:
        """The namespace's access log as it was, oldest first."""
        for _chunk, rows in self.read(self.chunks(namespace, "log")):
            yield [LogEntry._make(row) for row in rows]

    def read(
        self, chunks: t.Sequence[ChunkRef], threads: int = 2
    ) -> t.Iterator[tuple[ChunkRef, t.Tuple[Row, ...]]]:
        """Every chunk with its rows, in the given order; requests run ahead. Errors: SnapshotUnusable."""
        for chunk, plain in self.plain(chunks, threads):
            yield chunk, rows_of(chunk, plain)

    def plain(self, chunks: t.Sequence[ChunkRef], threads: int = 2) -> t.Iterator[tuple[ChunkRef, bytes]]:
        """Every chunk with its msgpack bytes, authenticated, in the given order. Errors: SnapshotUnusable."""
        runs = list(_runs(chunks))
        with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
            ahead: deque[Future[bytes]] = deque()
            position = asked = 0
            try:
                for run in runs:
                    while position < len(runs) and (
                        not ahead or (len(ahead) <= threads and asked + _length(runs[position]) <= AHEAD_BYTES)
                    ):
                        ahead.append(pool.submit(self._fetch, runs[position]))
                        asked += _length(runs[position])
                        position += 1
                    data = ahead.popleft().result()
                    asked -= _length(run)
                    start = run[0].offset
                    for chunk in run:
                        piece = data[chunk.offset - start : chunk.offset - start + chunk.length]
                        yield chunk, self._open(chunk, piece)
            finally:
                for future in ahead:
                    future.cancel()

    def _fetch(self, run: list[ChunkRef]) -> bytes:
        key = f"{folder(self.name, run[0].snapshot)}packs/{pack_name(run[0].pack)}.pack"
        return self._objects.get(key, run[0].offset, _length(run))

    def decode(self, chunk: ChunkRef, data: bytes) -> t.Tuple[Row, ...]:
        """Errors: SnapshotUnusable with pack and frame."""
        return rows_of(chunk, self._open(chunk, data))

    def _open(self, chunk: ChunkRef, data: bytes) -> bytes:
        where = _where(chunk)
        if len(data) != chunk.length:
            raise SnapshotUnusable(f"{where} is cut short.", "verify the snapshot, use another one")
        try:
            plain = expand(self._cipher(chunk.snapshot, chunk.pack).open(chunk.frame, data, chunk.last))
        except SnapshotUnusable as exc:
            raise SnapshotUnusable(f"{where} was changed. {exc.message}", exc.next_step) from None
        if hashlib.sha256(plain).digest() != chunk.digest:
            raise SnapshotUnusable(f"{where}, frame {chunk.frame}, has another digest than its index says.", "verify")
        return plain

    def unlock(self, chunks: t.Sequence[ChunkRef]) -> None:
        """Unwrap the keys of every snapshot that these chunks lie in; a forked process then needs no master key."""
        for snapshot in {chunk.snapshot for chunk in chunks}:
            self._secret(snapshot)

    def _secret(self, snapshot: str) -> bytes:
        if snapshot not in self._secrets:
            self._secrets[snapshot] = read_keys(self._objects, self.name, snapshot, self._keyring)[0]
        return self._secrets[snapshot]

    def _cipher(self, snapshot: str, pack: int) -> FrameCipher:
        found = self._ciphers.get((snapshot, pack))
        if found is None:
            found = FrameCipher(self._secret(snapshot), snapshot, f"pack {pack_name(pack)}")
            self._ciphers = {**dict(list(self._ciphers.items())[-15:]), (snapshot, pack): found}
        return found


def rows_of(chunk: ChunkRef, plain: bytes) -> t.Tuple[Row, ...]:
    """The rows of a chunk's msgpack bytes. Errors: SnapshotUnusable."""
    rows = unpack_rows(plain)
    if len(rows) != chunk.rows:
        raise SnapshotUnusable(f"{_where(chunk)}, frame {chunk.frame}, holds another number of rows.", "verify")
    return rows


def _where(chunk: ChunkRef) -> str:
    return f"Pack {pack_name(chunk.pack)} of snapshot {chunk.snapshot}"


def _before(left: t.Any, right: t.Any, or_equal: bool) -> bool:
    """Whether left < right (or <=) as keys; None and damaged keys compare with nothing."""
    if not isinstance(left, str) or not isinstance(right, str):
        return False
    return left <= right if or_equal else left < right


def _length(run: list[ChunkRef]) -> int:
    return run[-1].offset + run[-1].length - run[0].offset


def _runs(chunks: t.Sequence[ChunkRef]) -> t.Iterator[list[ChunkRef]]:
    """Group chunks that lie one after the other in one pack into single requests."""
    run: list[ChunkRef] = []
    for chunk in chunks:
        if run:
            end = run[-1].offset + run[-1].length
            near = (
                (chunk.snapshot, chunk.pack) == (run[0].snapshot, run[0].pack)
                and 0 <= chunk.offset - end <= GAP_BYTES
                and chunk.offset + chunk.length - run[0].offset <= READ_BYTES
            )
            if not near:
                yield run
                run = []
        run.append(chunk)
    if run:
        yield run
