# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Values as the server serialises them (DUMP): are they whole, and the same bytes for the same value.

PRIVATE to the collection. A dump is a type, the value, two bytes of version and a CRC-64 over all before it. Hash
tables and sets come in the order in which they lie in the server's memory, which changes while they do not:
``canonical`` puts their members in the order of their bytes. RESTORE takes that as well.
"""
from __future__ import annotations

import typing as t

from .._errors import CapabilityMissing

FOOTER = 10
POLYNOMIAL = 0x95AC9329AC4BC9B5  # Jones, reflected
MODULES = frozenset((6, 7))
#: type → (values of one member, bytes of its expiry): what has no order of its own
UNORDERED: t.Final = {2: (1, 0), 4: (2, 0), 22: (2, 8)}


def _table() -> tuple[int, ...]:
    out = []
    for number in range(256):
        crc = number
        for _bit in range(8):
            crc = (crc >> 1) ^ POLYNOMIAL if crc & 1 else crc >> 1
        out.append(crc)
    return tuple(out)


TABLE: t.Final = _table()


def crc64(data: bytes | memoryview) -> int:
    crc, table = 0, TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc


#: Byte k of every entry of the table: what one step does to byte k of the CRC, for a whole column of values at once.
PLANES: t.Final = tuple(bytes((entry >> (8 * k)) & 255 for entry in TABLE) for k in range(8))
FEW = 32  # values that are not worth a column


def whole(dumps: t.Sequence[bytes]) -> list[bool]:
    """``sound`` of each. Byte by byte a CRC costs more than all else that is done to a value, so values of about the
    same length go through it side by side: in front of a shorter one stand zeros, which change nothing."""
    found = [False] * len(dumps)
    places = sorted((n for n, dump in enumerate(dumps) if len(dump) > FOOTER), key=lambda n: len(dumps[n]))
    while places:
        shortest = len(dumps[places[0]])
        some = [n for n in places[:4096] if len(dumps[n]) <= shortest + shortest // 4 + 16]
        places = places[len(some) :]
        if len(some) < FEW:
            for n in some:
                found[n] = sound(dumps[n])
        else:
            for n, crc in zip(some, _columns([dumps[n][:-8] for n in some])):
                found[n] = crc == dumps[n][-8:]
    return found


def _columns(bodies: t.Sequence[bytes]) -> t.Iterator[bytes]:
    """The CRC of each, as it stands in a dump."""
    length, count = max(map(len, bodies)), len(bodies)
    flat = b"".join([body.rjust(length, b"\0") for body in bodies])
    number = int.from_bytes
    crc = [0] * 8  # byte k of all CRCs, in one number
    for place in range(length):
        index = (crc[0] ^ number(flat[place::length], "big")).to_bytes(count, "big")
        changed = [number(index.translate(plane), "big") for plane in PLANES]
        crc = [after ^ change for after, change in zip([*crc[1:], 0], changed)]
    return map(bytes, zip(*(one.to_bytes(count, "big") for one in crc)))


def sound(dump: bytes) -> bool:
    """Whether the dump is whole: long enough, and its CRC holds."""
    return len(dump) > FOOTER and crc64(memoryview(dump)[:-8]) == int.from_bytes(dump[-8:], "little")


def canonical(dump: bytes) -> bytes | None:
    """A dump that is whole, with the members of sets and hash tables in order; None when it has no such order."""
    shape = UNORDERED.get(dump[0])
    if shape is None:
        return dump
    try:
        body = _ordered(dump[:-FOOTER], *shape)
    except (IndexError, ValueError):
        return None
    if body is None:
        return dump
    whole = body + dump[-FOOTER:-8]
    return whole + crc64(whole).to_bytes(8, "little")


def refuse_module(dump: bytes, key: str) -> None:
    """Errors: CapabilityMissing for a value that only a module of that server can read."""
    if dump and dump[0] in MODULES:
        raise CapabilityMissing(
            f"The key {key!r:.80} has the type of a module; values of modules are not carried.",
            "choose a memory_store.pattern without such keys, and save them with the module's own tools",
        )


def _ordered(body: bytes, values: int, more: int) -> bytes | None:
    """``body`` with its members in order; None when they are."""
    count, start = _length(body, 1)
    at = start
    members: list[bytes] = []
    for _member in range(count):
        begin = at
        for _value in range(values):
            at = _behind(body, at)
        at += more
        members.append(body[begin:at])
    if at != len(body):
        raise ValueError("more than its members")
    ordered = sorted(members)
    return None if ordered == members else body[:start] + b"".join(ordered)


def _length(body: bytes, at: int) -> tuple[int, int]:
    """(length, where it ends)."""
    first = body[at]
    kind = first >> 6
    if kind == 0:
        return first & 63, at + 1
    if kind == 1:
        return (first & 63) << 8 | body[at + 1], at + 2
    if first == 0x80:
        return int.from_bytes(body[at + 1 : at + 5], "big"), at + 5
    if first == 0x81:
        return int.from_bytes(body[at + 1 : at + 9], "big"), at + 9
    raise ValueError("no length")


def _behind(body: bytes, at: int) -> int:
    """Where the string ends that begins at ``at``."""
    first = body[at]
    if first >> 6 == 3:
        if first < 0xC3:  # a number of 1, 2 or 4 bytes
            return at + 1 + (1, 2, 4)[first & 63]
        if first != 0xC3:
            raise ValueError("no string")
        packed, at = _length(body, at + 1)
        _plain, at = _length(body, at)
        return at + packed
    size, at = _length(body, at)
    return at + size
