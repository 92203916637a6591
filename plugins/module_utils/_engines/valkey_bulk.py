# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records and log entries of a Valkey store by the thousand, in the bytes of the protocol.

PRIVATE to the collection. The members of a generation and the rows of a snapshot's chunk hold the same msgpack bytes:
one becomes the other without a look at the fields.
"""
from __future__ import annotations

import operator
import struct
import typing as t
from itertools import chain

from .._model import Row
from .valkey_connect import packed
from .valkey_values import END, key_bytes, raw_key

AT_A_TIME: t.Final = 500  # members of one command
SOME_BYTES: t.Final = 4 << 20  # that one command brings
_KEY_END: t.Final = END + b"\x99"  # and the head of a msgpack array of nine
_number = struct.Struct(">Q").pack


def ascending(values: t.Sequence[t.Any]) -> bool:
    """Strictly, so that none comes twice."""
    return all(map(operator.lt, values, values[1:]))


def in_order(rows: t.Sequence[Row]) -> bool:
    """Whether their keys ascend."""
    return ascending([row[0].encode() for row in rows])


def add_members(records: str, members: t.Sequence[bytes]) -> list[bytes]:
    """The commands that add them to a generation."""
    out: list[bytes] = []
    head = packed("ZADD", records)[4:-2]  # behind its number of arguments, which is one digit
    sizes = list(map(len, members))
    scores = {size: b"\r\n$1\r\n0\r\n$%d\r\n" % size for size in set(sizes)}  # and what a member begins with
    many = max(1, min(AT_A_TIME, SOME_BYTES // max(scores, default=1)))
    for start in range(0, len(members), many):
        some = members[start : start + many]
        between = map(scores.__getitem__, sizes[start : start + many])
        pairs = chain.from_iterable(zip(between, some))
        out.append(b"".join([b"*%d\r\n" % (2 + 2 * len(some)), head, *pairs, b"\r\n"]))
    return out


class Ready(t.NamedTuple):
    """Members that are ready to be sent to a generation."""

    commands: list[bytes]
    largest: int
    ends: list[t.Any]  # when a record expires, and its key, in turns
    between: tuple[bytes, bytes] = (b"", b"")  # the bounds around them
    newest: tuple[int, int, int] = (0, 0, 0)  # epoch, sequence, when it was updated


def made_ready(records: str, rows: t.Sequence[Row], members: t.Sequence[bytes]) -> Ready:
    ends = [x for row in rows if row[5] is not None and expires(row) for x in (row[5], key_bytes(row[0]))]
    return Ready(add_members(records, members), max(map(len, members), default=0), ends)


def expires(row: Row) -> bool:
    """Whether the record is one that a sweep takes away some day."""
    return row[5].__class__ is int and row[6] is None


def append_entries(stream: str, first: int, bodies: t.Sequence[bytes]) -> list[bytes]:
    """The commands that append them to a log under ids from ``first``."""
    head = packed("XADD", stream).replace(b"*2", b"*5", 1)
    out = []
    for number, body in enumerate(bodies, first):
        place = b"%d-0" % number
        out.append(b"%b$%d\r\n%b\r\n$1\r\ne\r\n$%d\r\n%b\r\n" % (head, len(place), place, len(body), body))
    return out


def numbered(stems: t.Sequence[bytes], first: int) -> list[bytes]:
    """Members of the index of logged writes: a stem is all of it but the entry's id."""
    return [stem + _number(number) for number, stem in enumerate(stems, first)]


def packed_rows(members: t.Sequence[bytes]) -> bytes:
    """The items of a chunk's msgpack array. Of members that are not as they should be it makes what no chunk holds."""
    parts = [member.partition(_KEY_END) for member in members]
    if {part[1] for part in parts} - {_KEY_END}:
        return b""
    keys = [part[0] for part in parts]
    if b"\0" in b"".join(keys):
        if any(END in key for key in keys):
            return b""
        keys = [raw_key(key) for key in keys]
    sizes = list(map(len, keys))
    heads = {size: _text_head(size) for size in set(sizes)}
    return b"".join([x for size, key, part in zip(sizes, keys, parts) for x in (heads[size], key, part[2])])


def _text_head(size: int) -> bytes:
    """What an array of ten begins with, up to the first byte of a text of that size."""
    if size < 32:
        return b"\x9a%c" % (0xA0 | size)
    if size < 256:
        return b"\x9a\xd9%c" % size
    return b"\x9a\xda" + size.to_bytes(2, "big") if size < 65536 else b"\x9a\xdb" + size.to_bytes(4, "big")
