# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of an application's own memory object as the payloads of records, and records whose value nobody can read.

PRIVATE to the collection. A value is carried only when it comes back equal and of the same types: None inside of a
value, bool, int, finite float, text, lists, and dicts with texts as keys; and bytes by themselves.
"""
from __future__ import annotations

import math
import typing as t

from ._codec import UNREADABLE, RecordCodec, decode_value, encode_value
from ._errors import InvalidInput
from ._model import Row

MAGIC: t.Final = b"memops value 1\0"
MOST_WHY = 300


def pack(data: t.Any) -> bytes:
    """Errors: InvalidInput for a value that would not come back as it is."""
    if data.__class__ is not bytes:
        _plain(data)
    return MAGIC + encode_value(data)


def unpack(payload: bytes) -> t.Any:
    """The inverse of ``pack``. Errors: InvalidInput."""
    try:
        if payload[: len(MAGIC)] != MAGIC:
            raise ValueError("unknown value encoding")
        return decode_value(payload[len(MAGIC) :])
    except ValueError:
        raise InvalidInput(
            "A record holds no value of a memory object.", "take it from a snapshot of this store"
        ) from None


def _plain(data: t.Any) -> None:
    todo = [data]
    while todo:
        one = todo.pop()
        kind = one.__class__
        if kind is list:
            todo += one
        elif kind is dict:
            odd = next((key for key in one if key.__class__ is not str), None)
            if odd is not None:
                raise InvalidInput(
                    f"This value cannot be carried: a dict in it has a key of the type {type(odd).__name__}.",
                    "use texts as keys",
                )
            todo += one.values()
            todo += one
        elif kind is str:
            try:
                one.encode()
            except UnicodeEncodeError:
                raise InvalidInput(
                    "This value cannot be carried: a text in it is not valid Unicode.", "correct the text"
                ) from None
        elif kind is float and not math.isfinite(one):
            raise InvalidInput(f"This value cannot be carried: {one} is in it.", "use finite numbers")
        elif one is not None and kind not in (bool, int, float):
            raise InvalidInput(
                f"This value cannot be carried: something of the type {kind.__name__} is in it.",
                "give out dict, list, str, int, float, bool and None, or bytes alone",
            )


def record(codec: RecordCodec, key: str, payload: bytes) -> Row:
    """Nobody knows a record's version or times; its checksum is made here."""
    row = (key, 0, 0, 0, 0, None, None, "", payload)
    return (*row, codec.checksum(row))


def unreadable(key: str, why: str) -> Row:
    return (key, 0, 0, 0, 0, None, None, "", why[:MOST_WHY].encode("utf-8", "replace"), UNREADABLE)
