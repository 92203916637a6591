# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records and log entries as binary COPY wants them, and as the chunks of snapshots hold them.

PRIVATE to the collection.

COPY costs the server a third of what an INSERT of the same entries does. The bytes of a chunk are put together by the
server itself: a restore's proof hashes them, and no stored row becomes values on the way.
"""
from __future__ import annotations

import struct
import typing as t
from itertools import chain, repeat

from .._codec import log_checksum
from .._model import Row
from .postgresql_rows import HEAD_BYTES, escaped

_FILE_HEAD: t.Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_FILE_END: t.Final = b"\xff\xff"
_LENGTH = struct.Struct(">i").pack
_NUMBER = struct.Struct(">iq").pack
_NULL = _LENGTH(-1)
_DIGEST = _LENGTH(32)
_RECORD = struct.Struct(">hiqi").pack  # number of fields, generation, length of the key
_PLAIN = struct.Struct(">iqiqiqiqii").pack  # epoch, sequence, created, updated; neither expires nor deleted
_NUMBERS = struct.Struct(">iqiqiqiq").pack
_ENTRY = struct.Struct(">hiq").pack  # number of fields, id
_PLACE = struct.Struct(">iqiqiqiq").pack  # at, epoch, sequence, lock
RECORD_COLUMNS: t.Final = (
    "generation, key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"
)
ENTRY_COLUMNS: t.Final = (
    "id, at, epoch, sequence, lock, namespace, operation, digest, actor, reason, checksum, key, key_rest"
)


def records(generation: int, rows: t.Sequence[Row]) -> bytes | None:
    """None when a key is long or comes twice. Errors: those of BAD_VALUE."""
    out: list[bytes] = [_FILE_HEAD]
    heads: dict[int, bytes] = {}
    sizes: dict[tuple[t.Any, int], bytes] = {}
    last, ascending = "", True
    for key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum in rows:
        ascending = ascending and key > last
        last = key
        raw = key.encode()
        head = heads.get(len(raw))
        if head is None:
            if len(raw) > HEAD_BYTES:
                return None
            head = heads[len(raw)] = _RECORD(11, 8, generation, len(raw))
        size = sizes.get((key_id, len(payload)))
        if size is None:
            size = sizes[key_id, len(payload)] = _field(escaped(key_id)) + _LENGTH(len(payload))
        if expires is None and deleted is None:
            numbers = _PLAIN(8, epoch, 8, sequence, 8, created, 8, updated, -1, -1)
        else:
            numbers = _NUMBERS(8, epoch, 8, sequence, 8, created, 8, updated) + _int(expires) + _int(deleted)
        digest = _DIGEST if len(checksum) == 32 else _LENGTH(len(checksum))
        out.append(b"%b%b%b%b%b%b%b" % (head, raw, numbers, size, payload, digest, checksum))
    out.append(_FILE_END)
    if not ascending and len({row[0] for row in rows}) < len(rows):
        return None
    return b"".join(out)


def entry_bodies(entries: t.Sequence[t.Sequence[t.Any]]) -> list[bytes]:
    """Entries in LogEntry order without their ids; an empty checksum is computed here. Errors: those of BAD_VALUE."""
    out = []
    begins: dict[t.Any, bytes] = {}
    ends: dict[t.Any, bytes] = {}
    for entry in entries:
        _id, at, namespace, operation, key, epoch, sequence, digest, lock, actor, reason, checksum = entry
        if epoch is None or sequence is None or lock is None:
            numbers = _int(at) + _int(epoch) + _int(sequence) + _int(lock)
        else:
            numbers = _PLACE(8, at, 8, epoch, 8, sequence, 8, lock)
        begin = begins.get((namespace, operation))
        if begin is None:
            begin = begins[namespace, operation] = _field(escaped(namespace)) + _field(operation.encode())
        end = ends.get((actor, reason))
        if end is None:
            end = ends[actor, reason] = _field(escaped(actor)) + _field(escaped(reason))
        checksum = checksum or log_checksum(entry)
        raw = None if key is None else key.encode("utf-8", "surrogateescape")
        if raw is None or digest is None or len(raw) > HEAD_BYTES or len(digest) != 32 or len(checksum) != 32:
            body = b"".join((numbers, begin, _field(digest), end, _field(checksum), *_key_fields(raw)))
        else:
            body = b"%b%b\0\0\0\x20%b%b\0\0\0\x20%b%b%b\xff\xff\xff\xff" % (
                numbers, begin, digest, end, checksum, _LENGTH(len(raw)), raw,
            )  # fmt: skip
        out.append(body)
    return out


def entries_under(first: int, bodies: t.Sequence[bytes]) -> bytes:
    """Under ids from ``first``. Errors: struct.error."""
    ids = map(_ENTRY, repeat(13), repeat(8), range(first, first + len(bodies)))
    return b"".join([_FILE_HEAD, *chain.from_iterable(zip(ids, bodies)), _FILE_END])


def _key_fields(raw: bytes | None) -> tuple[bytes, bytes]:
    if raw is None or len(raw) <= HEAD_BYTES:
        return _field(raw), _NULL
    return _field(raw[:HEAD_BYTES]), _field(raw[HEAD_BYTES:])


def _int(value: int | None) -> bytes:
    return _NULL if value is None else _NUMBER(8, value)


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH(len(value)) + value


# --- the bytes of chunks ----------------------------------------------------------------------------------------
def packed_record(alias: str) -> str:
    """SQL for the msgpack bytes of a record without a long key, as a chunk holds it. What no sound record has (a
    negative number) makes other bytes: then the record itself has to be looked at."""
    numbers = [_packed_int(f"{alias}.{name}") for name in ("epoch", "sequence", "created", "updated")]
    times = [
        f"CASE WHEN {alias}.{name} IS NULL THEN '\\xc0'::bytea ELSE {_packed_int(f'{alias}.{name}')} END"
        for name in ("expires", "deleted")
    ]
    return " || ".join(
        [
            "'\\x9a'::bytea", _packed_text(f"{alias}.key"), *numbers, *times, _packed_text(f"{alias}.key_id"),
            _packed_bytes(f"{alias}.payload"), _packed_bytes(f"{alias}.checksum"),
        ]
    )  # fmt: skip


def _packed_int(value: str) -> str:
    sent = f"int8send({value})"
    return (
        f"(CASE WHEN {value} > 4294967295 THEN '\\xcf'::bytea || {sent} "
        f"WHEN {value} > 65535 THEN '\\xce'::bytea || substr({sent}, 5) "
        f"WHEN {value} > 255 THEN '\\xcd'::bytea || substr({sent}, 7) "
        f"WHEN {value} > 127 THEN '\\xcc'::bytea || substr({sent}, 8) "
        f"WHEN {value} >= 0 THEN substr({sent}, 8) ELSE ''::bytea END)"
    )


def _packed_text(value: str) -> str:
    length = f"octet_length({value})"
    return (
        f"(CASE WHEN {length} < 32 THEN set_byte('\\xa0'::bytea, 0, 160 + {length}) "
        f"WHEN {length} < 256 THEN '\\xd9'::bytea || substr(int4send({length}), 4) "
        f"ELSE '\\xda'::bytea || substr(int4send({length}), 3) END) || {value}"
    )


def _packed_bytes(value: str) -> str:
    length = f"octet_length({value})"
    return (
        f"(CASE WHEN {length} < 256 THEN '\\xc4'::bytea || substr(int4send({length}), 4) "
        f"WHEN {length} < 65536 THEN '\\xc5'::bytea || substr(int4send({length}), 3) "
        f"ELSE '\\xc6'::bytea || int4send({length}) END) || {value}"
    )
