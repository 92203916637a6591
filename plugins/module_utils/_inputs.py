# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application may pass beside keys and values: seconds, moments, reasons; checked, and turned into our units.

PRIVATE to the collection.
"""
from __future__ import annotations

import datetime
import typing as t

from ._errors import InvalidInput

MAX_TTL = 1e10  # seconds
_EPOCH: t.Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def check_reason(reason: t.Any) -> None:
    """A short Unicode text or None. Errors: InvalidInput."""
    if reason is not None and (not isinstance(reason, str) or len(reason) > 2000):
        raise InvalidInput("A reason must be a text of at most 2000 characters.", "shorten the reason")
    if reason is not None:
        try:
            reason.encode()
        except UnicodeEncodeError:
            raise InvalidInput("The reason is not valid Unicode.", "correct the reason") from None


def check_seconds(what: str, value: t.Any, zero: bool = False) -> float:
    """A number above 0 (or 0 where ``zero``) and at most MAX_TTL. Errors: InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{what} must be a number of seconds, not {value!r:.40}.", f"correct {what}")
    if not (0 < value <= MAX_TTL or (zero and value == 0)):
        raise InvalidInput(f"{what} must be above 0 and at most {MAX_TTL:.0f} seconds.", f"correct {what}")
    return float(value)


def moment(since: t.Any) -> int:
    """µs since 1970. Errors: InvalidInput."""
    bad = InvalidInput(
        f"A time with a time zone is wanted (memory_since, memory_until, memory_onset), not {since!r:.60}.",
        "write it as 2026-01-31T12:00:00Z",
    )
    if since is None:
        return 0
    if isinstance(since, str):
        try:
            since = datetime.datetime.fromisoformat(since[:-1] + "+00:00" if since[-1:] in ("Z", "z") else since)
        except ValueError:
            raise bad from None
    if isinstance(since, datetime.datetime):
        if since.tzinfo is None:
            raise bad
        return (since - _EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(since, bool) or not isinstance(since, (int, float)) or not abs(since) < MAX_TTL:
        raise bad
    return int(since * 1e6)


def rfc3339(at: int, precision: str = "microseconds") -> str:
    """µs since 1970 as text in UTC; damaged times come out as the nearest that can be written.

    ``precision``: seconds, milliseconds or microseconds.
    """
    try:
        time = _EPOCH + datetime.timedelta(microseconds=at)
    except OverflowError:
        time = (datetime.datetime.max if at > 0 else datetime.datetime.min).replace(tzinfo=datetime.timezone.utc)
    return time.isoformat(timespec=precision)[:-6] + "Z"
