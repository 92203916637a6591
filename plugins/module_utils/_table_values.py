# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The values in a payload of tables as JSON, for people: exports, findings. No I/O.

PRIVATE to the collection.

PostgreSQL's cells are what its types send (as in COPY … BINARY). SQLite's begin with a byte for the storage class:
``i`` and ``r`` (decimal text, hexadecimal for a float), ``t`` and ``b`` (the bytes as they lie there).
"""
from __future__ import annotations

import base64
import datetime
import json
import struct
import typing as t
import uuid

from ._table_records import Cell, unpack

_FLOAT: t.Final = {"real": ">f", "double precision": ">d"}
_WHOLE: t.Final = frozenset(("smallint", "integer", "bigint"))
_TEXT: t.Final = frozenset(("text", "json", "character varying", "character", "name", "citext"))
_2000: t.Final = datetime.datetime(2000, 1, 1)


def sqlite_cell(value: t.Any) -> Cell:
    """``value`` as SQLite gives it with text as bytes tagged by ``bytes`` (BLOB), ``str``, ``int``, ``float``, None."""
    if value is None:
        return None
    if isinstance(value, int):
        return b"i%d" % value
    if isinstance(value, float):
        return b"r" + value.hex().encode()
    return b"t" + value.encode("utf-8", "surrogateescape") if isinstance(value, str) else b"b" + bytes(value)


def sqlite_value(cell: Cell) -> t.Any:
    """The inverse. Errors: ValueError."""
    if cell is None:
        return None
    kind, body = cell[:1], cell[1:]
    if kind == b"i":
        return int(body)
    if kind == b"r":
        return float.fromhex(body.decode("ascii"))
    if kind == b"t":
        return body.decode("utf-8", "surrogateescape")
    if kind == b"b":
        return body
    raise ValueError("unknown storage class")


def readable(payload: bytes) -> dict[str, t.Any]:
    """{table: [{column: value}]} of a payload. What JSON cannot say is {"base64": …}. Errors: RecordCorrupt."""
    engine, tables = unpack(payload)
    plain = _sqlite_plain if engine == "sqlite" else _postgresql_plain
    return {
        one.name: [
            {name: plain(kind, cell) for (name, kind), cell in zip(one.columns, row)} for row in one.rows
        ]
        for one in tables
    }  # fmt: skip


def _sqlite_plain(_kind: str, cell: Cell) -> t.Any:
    value = sqlite_value(cell)
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, bytes):
        return _bytes(value)
    return value


def _postgresql_plain(kind: str, cell: Cell) -> t.Any:
    if cell is None:
        return None
    base = kind.partition("(")[0]
    try:
        if base in _TEXT:
            return cell.decode()
        if base == "jsonb":
            return json.loads(cell[1:])
        if base in _WHOLE:
            return int.from_bytes(cell, "big", signed=True)
        if base == "boolean":
            return cell != b"\0"
        if base in _FLOAT:
            value = struct.unpack(_FLOAT[base], cell)[0]
            return value if value - value == 0 else str(value)
        if base == "uuid":
            return str(uuid.UUID(bytes=cell))
        if base == "vector":
            count = int.from_bytes(cell[:2], "big")
            return [float(x) for x in struct.unpack(f">{count}f", cell[4:])]
        if base.startswith("timestamp"):
            at = _2000 + datetime.timedelta(microseconds=int.from_bytes(cell, "big", signed=True))
            return at.isoformat() + ("Z" if kind.endswith("with time zone") else "")
    except (ValueError, OverflowError, struct.error):
        pass
    return _bytes(cell)


def _bytes(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}
