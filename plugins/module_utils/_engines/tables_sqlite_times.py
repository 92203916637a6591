# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Times as applications write them into SQLite columns, as microseconds since 1970 UTC. No I/O.

PRIVATE to the collection. One column may hold several forms of text; without a zone it is UTC.
"""
from __future__ import annotations

import datetime
import json
import typing as t
import uuid

from .._layouts.tables import Moment

_EPOCH: t.Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND: t.Final = datetime.timedelta(microseconds=1)
_DAY: t.Final = datetime.timedelta(days=1)
_GREGORIAN: t.Final = 0x01B21DD213814000  # from 1582-10-15, where identifiers begin to count, to 1970, in 100 ns


class BadTime(ValueError):
    """What stands there is no time."""


def microseconds(moment: Moment | None, columns: t.Mapping[str, t.Any]) -> int | None:
    """The time that a row has there; None for none. Errors: BadTime."""
    if moment is None:
        return None
    value = columns.get(moment.column)
    if value is None and moment.instead is not None:
        value = columns.get(moment.instead)
    try:
        if value is not None and moment.json is not None:
            inner = json.loads(value)
            value = inner.get(moment.json) if isinstance(inner, dict) else None
        if value is None:
            return None
        if moment.form in ("seconds", "milliseconds"):
            return round(float(value) * (1_000_000 if moment.form == "seconds" else 1000))
        if moment.form == "uuid6":
            return _inside(value)
        if not isinstance(value, str):
            raise BadTime(f"{value!r:.40}")
        at = _parsed(value)
        return (at + (_DAY if moment.form == "date" else 0 * _DAY) - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise BadTime(str(exc)) from None


def _inside(value: t.Any) -> int | None:
    """The time that an identifier of version 6 holds; None for any other, which an application may choose."""
    try:
        number = uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        return None
    if number.version != 6:
        return None
    ticks = number.int >> 80 << 12 | number.int >> 64 & 0xFFF
    return (ticks - _GREGORIAN) // 10


def _parsed(text: str) -> datetime.datetime:
    text = text.strip()
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"
    head, dot, rest = text.partition(".")
    if dot:  # fromisoformat takes three or six digits before Python 3.11
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits):]}"
    at = datetime.datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=datetime.timezone.utc)
