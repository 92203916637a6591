# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How a memory store lies in Valkey: the names of its keys, and the bytes of records and log entries.

PRIVATE to the collection.

A generation of a namespace is ONE sorted set. All scores are 0, so that its members stand in the order of their bytes;
a member is the record's key, a terminator, and the record's other fields: one look brings whole records in key order,
nothing lies twice, and no index can disagree with what it leads to. An empty member says that the set itself is there.
"""
from __future__ import annotations

import os
import struct
import typing as t
import urllib.parse
from functools import partial
from operator import itemgetter

from .._codec import log_checksum
from .._errors import InvalidInput
from .._model import LastWrite, LogEntry, Row

FORMAT: t.Final = 1
AT_ONCE: t.Final = 32 << 20  # bytes that replies may hold together
END: t.Final = b"\0\0"  # ends a key; a NUL inside a key is followed by 0xff, which no UTF-8 text contains
THERE: t.Final = b""  # the member that every generation has
READS: t.Final = frozenset(("hit", "miss", "corrupt", "expired", "refused"))
WRITES: t.Final = frozenset(("write", "delete"))
POSITION = struct.Struct(">QQQ")  # epoch, sequence, id of the log entry
_PLACE, _NUMBER = struct.Struct(">QQ").pack, struct.Struct(">Q").pack
SPAN = struct.Struct(">QQQ")  # epoch, first, last
FIELDS = 9  # of a record, without its key
_new_entry = tuple.__new__
_checksum = itemgetter(8)  # of the fields behind the key


def written(name: str) -> str:
    """A namespace as it stands in key names: no glob character, no brace, no space, whatever its text."""
    return urllib.parse.quote(name.encode("utf-8", "surrogateescape"), safe="")


class Names:
    """The keys of one store. What applications must be kept from in a quarantine lies below ``fenced``."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        own = f"{prefix}:store"
        self.store = own  # hash: identity and counters
        self.hold = f"{own}:hold"  # who writes now
        self.namespaces = f"{own}:namespaces"  # hash: name → control row (JSON)
        self.generations = f"{own}:generations"  # hash: name → the active one and all of them (JSON)
        self.incidents = f"{own}:incidents"  # hash: namespace and incident → JSON
        self.given = f"{own}:given"  # sorted set of spans of sequences that have log entries
        self.reserved = f"{own}:reserved"  # sorted set of spans that operators took
        self.logs = f"{own}:logs"  # set of namespaces that have a log
        self.fences = f"{own}:fences"  # hash: ACL user → what was taken from it (JSON)

    def fenced(self, namespace: str) -> str:
        """The beginning of all keys of a namespace that applications may lose; of all namespaces when it is ""."""
        if not namespace:
            return f"{self.prefix}:{{"
        return f"{self.prefix}:{{{written(namespace)}}}:"

    def records(self, namespace: str, generation: int) -> str:
        return f"{self.fenced(namespace)}r:{generation}"

    def expiry(self, namespace: str, generation: int) -> str:
        """Sorted set: key → when it expires."""
        return f"{self.fenced(namespace)}x:{generation}"

    def copies(self, namespace: str, generation: int, token: str) -> str:
        """Sorted set: members of a generation as they were at a point that is kept. In the fence, as the records."""
        return f"{self.fenced(namespace)}k:{generation}:{token}"

    def keep(self, token: str) -> str:
        """Its lease says that a point is still being read."""
        return f"{self.prefix}:store:keep:{token}"

    def kept(self, token: str) -> str:
        """Set: the names of all ``copies`` of a point."""
        return f"{self.prefix}:store:kept:{token}"

    def aside(self, namespace: str) -> str:
        """Stream of rows that were set aside."""
        return f"{self.fenced(namespace)}aside"

    def log(self, namespace: str) -> str:
        """Stream; outside of the fence, because reads that a quarantine refuses are logged too."""
        return f"{self.prefix}:store:log:{written(namespace)}"

    def writes(self, namespace: str) -> str:
        """Sorted set: key, epoch, sequence and id of every logged write, for "newest write per key, in key order"."""
        return f"{self.prefix}:store:writes:{written(namespace)}"


def key_bytes(key: str) -> bytes:
    """A key as members begin with it. Errors: UnicodeEncodeError."""
    raw = key.encode()
    return raw.replace(b"\0", b"\0\xff") if b"\0" in raw else raw


def keys_bytes(rows: t.Sequence[Row]) -> list[bytes]:
    """``key_bytes`` of each row. Errors: UnicodeEncodeError."""
    raw = [row[0].encode() for row in rows]
    return raw if b"\0" not in b"".join(raw) else [key_bytes(row[0]) for row in rows]


def raw_key(raw: bytes) -> bytes:
    """The key's own bytes."""
    return raw.replace(b"\0\xff", b"\0") if b"\0" in raw else raw


def key_text(raw: bytes) -> str:
    """The inverse of key_bytes. Errors: UnicodeDecodeError."""
    return raw_key(raw).decode()


def one_key(key: str) -> tuple[bytes, bytes]:
    """The bounds around the members of one key."""
    raw = key_bytes(key)
    return b"[" + raw + END, b"(" + raw + b"\0\1"


class Envelopes:
    """Records as members of a generation, and back."""

    def __init__(self) -> None:
        from msgpack import Packer, Unpacker, unpackb

        self._pack, self._unpack = Packer().pack, unpackb
        self._pack_other = Packer(unicode_errors="surrogateescape").pack
        self._new_unpacker: t.Callable[[], t.Any] = partial(Unpacker, use_list=False, max_buffer_size=0)
        self._unpacker = self._new_unpacker()
        self._between = os.urandom(16)  # stands nowhere else

    def member(self, row: Row) -> bytes:
        """Errors: InvalidInput for a field that no column could hold either."""
        return self.members([row])[0]

    def members(self, rows: t.Sequence[Row], keys: t.Sequence[bytes] = ()) -> list[bytes]:
        """``keys``: the rows' key_bytes, where they are known. Errors: as of ``member``."""
        pack = self._pack
        try:
            keys = keys or keys_bytes(rows)
            return [*map(END.join, zip(keys, map(pack, [tuple(row[1:]) for row in rows])))]
        except (TypeError, ValueError, OverflowError, AttributeError) as exc:
            raise InvalidInput(
                f"The store does not take this record: {type(exc).__name__}.", "correct or split the record"
            ) from None

    def row(self, member: bytes) -> Row | None:
        """The record; None for a member that belongs to no key. A damaged envelope becomes a row that is not intact."""
        end = member.find(END)
        if end < 1:
            return None
        try:
            key = key_text(member[:end])
        except UnicodeDecodeError:
            return None
        body = member[end + 2 :]
        try:
            fields = self._unpack(body, use_list=False)
        except Exception:  # whatever another program wrote there
            fields = None
        if fields.__class__ is not tuple or len(fields) != FIELDS or fields[8].__class__ is not bytes:
            return (key, 0, 0, 0, 0, None, None, "", body, b"")
        return (key, *fields)

    def rows(self, members: t.Sequence[bytes]) -> list[Row]:
        """Records in order. Of members with the same key (damage) the first counts, as for a single look."""
        if not members:
            return []
        try:
            return self._sound(members)
        except Exception:  # a damaged one is among them, or a key with a NUL
            self._unpacker = self._new_unpacker()  # without what is left in the former one
            return self._each(members)

    def _sound(self, members: t.Sequence[bytes]) -> list[Row]:
        """All in one go, which takes two thirds as long. Errors: any, where one is not quite as it should be."""
        parts = [member.partition(END) for member in members]
        keys = [part[0] for part in parts]
        if b"\0" in b"".join(keys) or b"" in keys or len(set(keys)) != len(keys):
            raise ValueError
        found = self._unpacked([part[2] for part in parts])
        if {*map(type, found)} != {tuple} or {*map(len, found)} != {FIELDS}:
            raise ValueError
        if {*map(type, map(_checksum, found))} != {bytes}:
            raise ValueError
        return [(key.decode(), *fields) for key, fields in zip(keys, found)]

    def _unpacked(self, packed: t.Sequence[bytes]) -> list[t.Any]:
        """The one object that each of these is. Errors: of any kind, where one of them is not just that.

        That is so if what is put between them is found as often, at every other place: what ends too early or too late
        would shift or hide it.
        """
        self._unpacker.feed(t.cast(bytes, self._pack(self._between)).join(packed))
        unpacked = list(self._unpacker)
        between = unpacked[1::2]
        if len(unpacked) != 2 * len(packed) - 1 or between.count(self._between) != len(between):
            raise ValueError
        return unpacked[::2]

    def _each(self, members: t.Sequence[bytes]) -> list[Row]:
        unpack, find = self._unpack, bytes.find
        out: list[Row] = []
        last = None
        for member in members:
            end = find(member, END)
            raw = member[:end]
            if end < 1 or raw == last:
                continue
            last = raw
            try:
                fields = unpack(member[end + 2 :], use_list=False)
                if len(fields) != FIELDS or fields[8].__class__ is not bytes or b"\0" in raw:
                    raise ValueError
                out.append((raw.decode(), *fields))
            except Exception:  # the slow way tells what can be told
                row = self.row(member)
                if row is not None:
                    out.append(row)
        return out

    def other(self, value: t.Any) -> bytes:
        return t.cast(bytes, self._pack_other(value))

    def any(self, raw: bytes) -> t.Any:
        """Errors: ValueError."""
        try:
            return self._unpack(raw, use_list=False, unicode_errors="surrogateescape")
        except Exception:
            raise ValueError("no such value") from None

    # --- log ----------------------------------------------------------------------------------------------------
    def entry_bytes(self, entry: t.Sequence[t.Any]) -> bytes:
        """A log entry without id and namespace, which its place in the stream tells. Errors: InvalidInput."""
        return self.entries_bytes([entry])[0]

    def entries_bytes(self, entries: t.Sequence[t.Sequence[t.Any]]) -> list[bytes]:
        """Errors: as of ``entry_bytes``."""
        pack = self._pack_other
        try:
            return [pack((entry[1], *entry[3:12])) for entry in entries]
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidInput(
                f"The store does not take this log entry: {type(exc).__name__}.", "correct the entry"
            ) from None

    def entry(self, namespace: str, number: int, fields: t.Sequence[bytes]) -> LogEntry:
        """A damaged entry comes out with a checksum that does not hold."""
        try:
            value = self.any(fields[1])
            if value.__class__ is tuple and len(value) == 10:
                return _new_entry(LogEntry, (number, value[0], namespace, *value[1:]))
        except (ValueError, IndexError):
            pass
        return LogEntry(number, 0, namespace, "", None, None, None, None, None, "", None, b"")


def sealed(entry: t.Sequence[t.Any]) -> tuple[t.Any, ...]:
    """The entry with its checksum."""
    return (*entry[:11], log_checksum(entry))


def is_write(entry: t.Sequence[t.Any]) -> bool:
    return entry[3] in WRITES


def write_member(key: str, epoch: int, sequence: int, number: int) -> bytes:
    """What the index of logged writes holds for one entry."""
    return write_stems([key], [(epoch, sequence)])[0] + _NUMBER(number)


def write_stems(keys: t.Sequence[str], places: t.Sequence[tuple[int, int]]) -> list[bytes]:
    """All of that but the entry's id, which comes last."""
    raw = [key.encode("utf-8", "surrogateescape") for key in keys]
    if b"\0" in b"".join(raw):
        raw = [key.replace(b"\0", b"\0\xff") for key in raw]
    return [b"%b\0\0%b" % (key, _PLACE(*place)) for key, place in zip(raw, places)]


def write_position(member: bytes) -> tuple[bytes, int, int, int] | None:
    """(raw key, epoch, sequence, id) of a member of that index; None for what another program put there."""
    end = len(member) - POSITION.size
    if end < 2 or member[end - 2 : end] != END:
        return None
    return (member[: end - 2], *POSITION.unpack_from(member, end))


def last_write(entry: LogEntry) -> LastWrite:
    return LastWrite(
        t.cast(str, entry.key), t.cast(int, entry.epoch), t.cast(int, entry.sequence), entry.operation,
        t.cast(bytes, entry.digest), entry.lock, entry.actor, entry.at,
    )  # fmt: skip
