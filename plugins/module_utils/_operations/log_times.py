# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""When an application wrote a line of its log.

PRIVATE to the collection.
"""

from __future__ import annotations

import datetime
import re

_ISO = re.compile(
    r"(?:\W|\w+=|\"\w+\": ?\"){0,4}?(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)"
    r"(?:[.,](\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)?"
)
_SYSLOG = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)\b")
_UNIX = re.compile(r"\[?(\d{10})(?:\.(\d{1,9}))?\b")
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def timestamp(line: str) -> int | None:
    """The time with which a line begins, in µs since 1970: ISO 8601, syslog or seconds since 1970; else None."""
    try:
        found = _ISO.match(line)
        if found:
            year, month, day, hour, minute, second, fraction, zone = found.groups()
            moment = datetime.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))
            moment = moment.replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")))
            if zone == "Z":
                moment = moment.replace(tzinfo=datetime.timezone.utc)
            elif zone:
                minutes = int(zone[1:3]) * 60 + int(zone[-2:])
                offset = datetime.timedelta(minutes=-minutes if zone[0] == "-" else minutes)
                moment = moment.replace(tzinfo=datetime.timezone(offset))
            return _microseconds(moment)
        found = _UNIX.match(line)
        if found:
            return int(found.group(1)) * 1_000_000 + int((found.group(2) or "0")[:6].ljust(6, "0"))
        found = _SYSLOG.match(line)
        if found:
            number = _MONTHS.index(found.group(1)) // 3 + 1
            now = datetime.datetime.now()
            day_, hour_, minute_, second_ = (int(part) for part in found.groups()[1:])
            moment = datetime.datetime(now.year, number, day_, hour_, minute_, second_)
            if moment > now + datetime.timedelta(days=1):  # a line of last year
                moment = moment.replace(year=now.year - 1)
            return _microseconds(moment)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _microseconds(moment: datetime.datetime) -> int:
    return int(moment.astimezone().timestamp()) * 1_000_000 + moment.microsecond
