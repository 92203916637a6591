# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Chunks: where a run of rows in key order is cut, their canonical bytes, and digests of whole namespaces.

PRIVATE to the collection.
"""
from __future__ import annotations

import hashlib
import typing as t
from bisect import bisect_left, bisect_right
from itertools import accumulate, chain
from zlib import crc32

from .._errors import MemoryOpsError, SnapshotUnusable
from .._log_parts import BLOCK as LOG_BLOCK  # a log chunk holds some 4 blocks
from .._log_parts import LogPart, entries_of
from .._model import CHECKSUM, KEY, PAYLOAD, Row

MINIMUM = 64 << 10
AVERAGE = 256 << 10
MAXIMUM = 1 << 20
ROW_OVERHEAD = 128  # what a row's other fields take, about
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
    sums: t.Optional[bytes] = None  # of a chunk of intact records: checksums_digest of its rows


def checksums_digest(rows: t.Sequence[Row]) -> bytes:
    """SHA-256 over the rows' checksums. Of intact rows it tells every byte of them, and their order."""
    return hashlib.sha256(b"".join([row[CHECKSUM] for row in rows])).digest()


def row_sizes(rows: t.Sequence[Row]) -> list[int]:
    """What Chunker counts for each row."""
    try:
        return [len(row[PAYLOAD]) + ROW_OVERHEAD for row in rows]
    except TypeError:  # damaged
        return [(len(row[PAYLOAD]) if hasattr(row[PAYLOAD], "__len__") else 8) + ROW_OVERHEAD for row in rows]


class Chunker:
    """Cuts records into chunks of some 256 KiB at places that only keys decide (but for minimum and maximum)."""

    def __init__(self) -> None:
        self.held: list[Row] = []  # the chunk under way
        self._size = 0

    def take(self, rows: t.Sequence[Row], sizes: t.Sequence[int], start: int) -> tuple[list[Row] | None, int]:
        """Take rows from position ``start`` on: (the chunk that they complete, the position behind it), or
        (None, len(rows)) while it is not complete. ``sizes``: of row_sizes."""
        bounds = list(accumulate(sizes[start:], initial=self._size))  # what is held before each row, and at the end
        first = start + bisect_left(bounds, MINIMUM, 1) - 1  # the first row that may be the last of its chunk
        full = bisect_right(bounds, MAXIMUM, 1) - 1
        end = start + (full if full < len(bounds) and bounds[full] else full + 1)  # the chunk ends before this row
        position = first
        for row, length in zip(rows[first:end], sizes[first:end]):
            position += 1
            try:
                number = crc32(row[KEY].encode())
            except (AttributeError, UnicodeEncodeError):  # damaged
                number = crc32(repr(row[KEY]).encode())
            if number < length * _FACTOR:
                return self.rest(rows[start:position]), position
        if end < len(rows):
            return self.rest(rows[start:end]), end
        self.held.extend(rows[start:])
        self._size = bounds[-1]
        return None, len(rows)

    def rest(self, more: t.Sequence[Row] = ()) -> list[Row]:
        """What is held, and ``more``; may be empty."""
        rows = self.held
        rows.extend(more)
        self.held = []
        self._size = 0
        return rows


def _before_id(entries: t.Sequence[t.Any], limit: int, start: int) -> int:
    """The position behind the entries whose id is below ``limit``."""
    if entries[-1][0] < limit:
        return len(entries)
    end = len(entries)
    while start < end:
        middle = (start + end) // 2
        if entries[middle][0] < limit:
            start = middle + 1
        else:
            end = middle
    return start


class LogChunker:
    """Cuts one namespace's log entries at ids that are multiples of LOG_BLOCK; packs them as they come.

    A chunk of entries alone is the array of them; one that holds a LogPart is a map of its parts.
    """

    def __init__(self) -> None:
        self._packer = RowPacker()
        self._parts: list[tuple[int, bytes]] = []  # (number of rows, their items), or (0, a packed LogPart)
        self.rows = 0  # entries of the chunk under way
        self.first: t.Any = None  # their ids
        self.last: t.Any = None

    def add(self, entries: LogPart | t.Sequence[t.Any]) -> t.Iterator[tuple[bytes, int, t.Any, t.Any]]:
        """The chunks that these entries complete: (bytes, number of entries, first id, last id)."""
        if isinstance(entries, LogPart):
            if self.rows and self._ends(self.last // LOG_BLOCK, entries.first // LOG_BLOCK):
                yield self.rest()
            self._hold(0, self._packer.pack_map(entries.fields()), entries.rows, entries.first, entries.last)
            return
        start = 0
        while start < len(entries):
            number = entries[start][0] // LOG_BLOCK
            end = _before_id(entries, (number + 1) * LOG_BLOCK, start)
            block = entries if end - start == len(entries) else entries[start:end]
            start = end
            if self.rows and self._ends(self.last // LOG_BLOCK, number):
                yield self.rest()
            self._hold(len(block), self._packer.items(block), len(block), block[0][0], block[-1][0])

    def _hold(self, items: int, packed: bytes, rows: int, first: t.Any, last: t.Any) -> None:
        self._parts.append((items, packed))
        self.rows += rows
        self.first = first if self.first is None else self.first
        self.last = last

    def _ends(self, former: int, block: int) -> bool:
        """Whether the chunk ends between these blocks: decided by their number, within a minimum and a maximum."""
        if former == block or self.rows < LOG_BLOCK:
            return False
        return not crc32(b"%d" % former) & 3 or self.rows >= 16 * LOG_BLOCK

    def rest(self) -> tuple[bytes, int, t.Any, t.Any]:
        """The chunk under way; has ``rows`` 0 when there is none."""
        chunk = (self._packed(), self.rows, self.first, self.last)
        self._parts, self.rows, self.first, self.last = [], 0, None, None
        return chunk

    def _packed(self) -> bytes:
        packer = self._packer
        if all(items for items, _packed in self._parts):
            return packer.header(self.rows) + b"".join([packed for _items, packed in self._parts])
        parts = [packer.header(items) + packed if items else packed for items, packed in self._parts]
        return packer.map_of("parts", packer.header(len(parts)) + b"".join(parts))


class RowPacker:
    """A chunk's canonical bytes: the msgpack array of its rows, each an array in the order of Record or LogEntry."""

    def __init__(self) -> None:
        try:
            import msgpack
        except ImportError:
            raise MemoryOpsError("The Python package msgpack is missing.", "pip install msgpack") from None
        packer = msgpack.Packer(unicode_errors="surrogateescape")
        self._packb: t.Callable[[t.Any], bytes] = packer.pack
        self.header: t.Callable[[int], bytes] = packer.pack_array_header
        self._map_header: t.Callable[[int], bytes] = packer.pack_map_header

    def pack(self, rows: t.Sequence[t.Sequence[t.Any]]) -> bytes:
        try:
            return self._packb(rows)
        except (ValueError, TypeError, OverflowError, UnicodeEncodeError):
            # damaged rows only: text that is no Unicode becomes its bytes, anything unknown its description
            return self._packb([tuple(_plain(value) for value in row) for row in rows])

    def pack_map(self, fields: t.Mapping[str, t.Any]) -> bytes:
        return self._packb(fields)

    def map_of(self, name: str, packed: bytes) -> bytes:
        """The map with this one entry, whose value is packed already."""
        return self._map_header(1) + self._packb(name) + packed

    def items(self, rows: t.Sequence[t.Sequence[t.Any]]) -> bytes:
        """The rows without their array's header, so that parts can be joined."""
        return self.pack(rows)[len(self.header(len(rows))) :]


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
        found = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape", strict_map_key=False)
        if isinstance(found, dict):  # of the log
            parts = [entries_of(part) if isinstance(part, dict) else part for part in found["parts"]]
            found = tuple(chain.from_iterable(parts))
        rows: t.Tuple[Row, ...] = found
    except Exception as exc:
        raise SnapshotUnusable(f"A chunk cannot be decoded: {exc}.", "verify the snapshot") from None
    return rows


def _sum(checksums: list[bytes]) -> int:
    """The sum of 32-byte big-endian numbers: all of them as one number, whose halves are added until one is left."""
    slot = 40 * 8  # 32 bytes and room for the carry
    total = int.from_bytes(bytes(8).join(checksums), "big")
    count = len(checksums)
    while count > 1:
        count = (count + 1) // 2
        total = (total >> (count * slot)) + (total & ((1 << (count * slot)) - 1))
    return total


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
        self.total += _sum([row[CHECKSUM] for row in rows])

    def merge(self, count: int, total: int) -> None:
        self.count += count
        self.total += total

    def hexdigest(self) -> str:
        body = self.count.to_bytes(8, "big") + (self.total % (1 << 256)).to_bytes(32, "big")
        return hashlib.sha256(b"memops namespace 1\0" + body).hexdigest()
