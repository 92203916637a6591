# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Times as applications write them into SQLite columns, as microseconds since 1970 UTC. No I/O.

PRIVATE to the collection. One column may hold several forms of text; without a zone it is UTC.
"""
from __future__ import annotations

import datetime
import json
import typing as t

from .._layouts.tables import Moment

_EPOCH: t.Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND: t.Final = datetime.timedelta(microseconds=1)
_DAY: t.Final = datetime.timedelta(days=1)


class BadTime(ValueError):
    """What stands there is no time."""


def microseconds(moment: Moment | None, columns: t.Mapping[str, t.Any]) -> int | None:
    """The time that a row has there; None for none. Errors: BadTime."""
    if moment is None:
        return None
    value = columns.get(moment.column)
    try:
        if value is not None and moment.json is not None:
            inner = json.loads(value)
            value = inner.get(moment.json) if isinstance(inner, dict) else None
        if value is None:
            return None
        if moment.form in ("seconds", "milliseconds"):
            return round(float(value) * (1_000_000 if moment.form == "seconds" else 1000))
        if not isinstance(value, str):
            raise BadTime(f"{value!r:.40}")
        at = _parsed(value)
        return (at + (_DAY if moment.form == "date" else 0 * _DAY) - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise BadTime(str(exc)) from None


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
