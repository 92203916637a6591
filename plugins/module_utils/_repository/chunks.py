# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Chunks: where a run of rows in key order is cut, their canonical bytes, and digests of whole namespaces.

PRIVATE to the collection.
"""
from __future__ import annotations

import hashlib
import typing as t
from zlib import crc32

from .._errors import MemoryOpsError, SnapshotUnusable
from .._model import CHECKSUM, Row

MINIMUM = 64 << 10
AVERAGE = 256 << 10
MAXIMUM = 1 << 20
ROW_OVERHEAD = 128  # what a row's other fields take, about
LOG_ENTRY_SIZE = 192
#: A key ends a chunk when its hash, as a fraction of 2**32, is below row size / (AVERAGE - MINIMUM).
_FACTOR = (1 << 32) // (AVERAGE - MINIMUM)


class ChunkRef(t.NamedTuple):
    """Where a chunk lies, as an index tells it."""

    snapshot: str  # the one whose pack holds it
    pack: int
    frame: int
    offset: int
    length: int
    last: bool  # the last frame of its pack
    rows: int
    digest: bytes  # SHA-256 of the chunk's msgpack bytes
    first_key: t.Any  # of a log chunk: ids
    last_key: t.Any


class Chunker:
    """Cuts a stream into chunks of some 256 KiB at places that only keys decide (but for minimum and maximum)."""

    def __init__(self) -> None:
        self._items: list[t.Any] = []
        self._size = 0

    def entries(self, entries: t.Sequence[t.Any]) -> t.Iterator[list[t.Any]]:
        """Log entries, cut by their id."""
        return self.cut(entries, [crc32(b"%d" % entry[0]) for entry in entries], [LOG_ENTRY_SIZE] * len(entries))

    def cut(self, items: t.Sequence[t.Any], hashes: list[int], sizes: list[int]) -> t.Iterator[list[t.Any]]:
        """The chunks that these items, in key order, complete.

        ``hashes``: CRC-32 of each key's UTF-8; ``sizes``: bytes of each payload and ROW_OVERHEAD.
        """
        start = 0
        size = self._size
        for position, length in enumerate(sizes):
            if size + length > MAXIMUM and (self._items or position > start):
                yield self._take(items[start:position])
                start, size = position, 0
            size += length
            if size >= MINIMUM and hashes[position] < length * _FACTOR:
                yield self._take(items[start : position + 1])
                start, size = position + 1, 0
        self._items.extend(items[start:])
        self._size = size

    def _take(self, more: t.Sequence[t.Any]) -> list[t.Any]:
        items = self._items
        items.extend(more)
        self._items = []
        return items

    def rest(self) -> list[t.Any]:
        """What is left at the end of the namespace or range; may be empty."""
        self._size = 0
        return self._take(())


class RowPacker:
    """A chunk's canonical bytes: the msgpack array of its rows, each an array in the order of Record or LogEntry."""

    def __init__(self) -> None:
        try:
            import msgpack
        except ImportError:
            raise MemoryOpsError("The Python package msgpack is missing.", "pip install msgpack") from None
        self._packb: t.Callable[[t.Any], bytes] = msgpack.Packer(unicode_errors="surrogateescape").pack

    def pack(self, rows: t.Sequence[t.Sequence[t.Any]]) -> bytes:
        try:
            return self._packb(rows)
        except (ValueError, TypeError, OverflowError, UnicodeEncodeError):
            # damaged rows only: text that is no Unicode becomes its bytes, anything unknown its description
            return self._packb([tuple(_plain(value) for value in row) for row in rows])


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return repr(value)
    return value if value is None or isinstance(value, (bytes, int, float)) else repr(value)


def unpack_rows(data: bytes) -> t.Tuple[Row, ...]:
    """Errors: SnapshotUnusable."""
    try:
        import msgpack
    except ImportError:
        raise MemoryOpsError("The Python package msgpack is missing.", "pip install msgpack") from None
    try:
        rows: t.Tuple[Row, ...] = msgpack.unpackb(
            data, use_list=False, unicode_errors="surrogateescape", strict_map_key=False
        )
    except Exception as exc:
        raise SnapshotUnusable(f"A chunk cannot be decoded: {exc}.", "verify the snapshot") from None
    return rows


class NamespaceDigest:
    """The digest of a namespace's rows, whatever their order, chunks and generation; parts can be added up.

    The sum of the rows' checksums modulo 2**256, then SHA-256 over count and sum. A row whose checksum is not its own
    counts with the SHA-256 of its msgpack bytes. It tells equal from different; it does not resist a forger.
    """

    def __init__(self, count: int = 0, total: int = 0) -> None:
        self.count = count
        self.total = total

    def add(self, rows: t.Sequence[Row], damaged: t.Collection[int] = ()) -> None:
        """``damaged``: positions in ``rows`` of those that are not intact."""
        self.count += len(rows)
        convert = int.from_bytes
        if damaged:
            pack = RowPacker().pack
            for position in damaged:
                self.total += convert(hashlib.sha256(pack([rows[position]])).digest(), "big")
            rows = [row for position, row in enumerate(rows) if position not in damaged]
        self.total += sum([convert(row[CHECKSUM], "big") for row in rows])

    def merge(self, count: int, total: int) -> None:
        self.count += count
        self.total += total

    def hexdigest(self) -> str:
        body = self.count.to_bytes(8, "big") + (self.total % (1 << 256)).to_bytes(32, "big")
        return hashlib.sha256(b"memops namespace 1\0" + body).hexdigest()
