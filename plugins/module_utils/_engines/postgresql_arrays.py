# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole columns of values as PostgreSQL arrays in their binary form, so that one statement carries a batch.

PRIVATE to the collection.

The driver would build these element by element; a batch made here costs a tenth of that.
"""
from __future__ import annotations

import struct
import typing as t
from itertools import chain

_HEAD = struct.Struct(">iiiii").pack  # dimensions, is an element null, their type, length, first index
_LENGTH = struct.Struct(">i").pack
_INT = struct.Struct(">iq").pack
_NULL = _LENGTH(-1)
INT8, BYTEA, TEXT = 20, 17, 25  # type numbers, the same in every PostgreSQL
INT8_ARRAY, BYTEA_ARRAY, TEXT_ARRAY = 1016, 1001, 1009


class Ints:
    """bigint[]. Errors: struct.error for what is no 64-bit integer."""

    def __init__(self, values: t.Sequence[int | None]) -> None:
        n = len(values)
        if None in values:
            body = b"".join([_NULL if v is None else _INT(8, v) for v in values])
            self.data = _HEAD(1, 1, INT8, n, 1) + body
        else:
            mixed: list[t.Any] = [8] * (2 * n)
            mixed[1::2] = values
            self.data = _HEAD(1, 0, INT8, n, 1) + struct.pack(">" + "iq" * n, *mixed)


def _blobs(values: t.Sequence[bytes | None], kind: int) -> bytes:
    if None in values:
        body = b"".join([_NULL if v is None else _LENGTH(len(v)) + v for v in values])
        return _HEAD(1, 1, kind, len(values), 1) + body
    known = t.cast(t.Sequence[bytes], values)
    body = b"".join(chain.from_iterable(zip(map(_LENGTH, map(len, known)), known)))
    return _HEAD(1, 0, kind, len(values), 1) + body


class Blobs:
    """bytea[]. Errors: TypeError for what is no bytes."""

    def __init__(self, values: t.Sequence[bytes | None]) -> None:
        self.data = _blobs(values, BYTEA)


class Texts:
    """text[], of values that are ASCII."""

    def __init__(self, values: t.Sequence[str | None]) -> None:
        self.data = _blobs([None if v is None else v.encode() for v in values], TEXT)


def teach(con: t.Any) -> None:
    """Let a connection send the arrays above."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class Sender(Dumper):
        format = Format.BINARY

        def dump(self, obj: t.Any) -> bytes:
            return t.cast(bytes, obj.data)

    for kind, number in ((Ints, INT8_ARRAY), (Blobs, BYTEA_ARRAY), (Texts, TEXT_ARRAY)):
        con.adapters.register_dumper(kind, type("Sender", (Sender,), {"oid": number}))
