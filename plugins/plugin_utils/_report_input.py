# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report is made of: the lines of steps.jsonl, read with distrust: what is not as it should be is None.

PRIVATE to the collection.

Order is the order of the file, never that of clocks: a controller appends a line when a module call has finished.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import typing as t
from dataclasses import dataclass

PASS, FAIL, UNKNOWN = "pass", "fail", "could-not-verify"
_RANK = {PASS: 0, UNKNOWN: 1, FAIL: 2}
_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BASELINE = {"baseline", "baseline_snapshot", "snapshot_baseline"}
#: What a store mapping may show: nothing that could hold a secret.
_STORE_FIELDS = (
    "engine",
    "layout",
    "path",
    "url",
    "schema",
    "prefix",
    "name",
    "host",
    "store_id",
    "lineage",
    "epoch",
    "sequence",
    "generation",
    "records",
)


@dataclass
class Step:
    """One finished module call. ``result`` is the module's own result; every other field is already clean."""

    name: str
    verdict: str
    changed: bool
    started: t.Optional[str]
    seconds: t.Optional[float]
    host: str
    attempt: str
    detail: str
    result: t.Dict[str, t.Any]

    def ended(self) -> t.Optional[str]:
        begin = moment(self.started)
        if begin is None or self.seconds is None:
            return None
        try:
            return rfc3339(begin + datetime.timedelta(seconds=self.seconds))
        except OverflowError:
            return None


def worst(*verdicts: str) -> str:
    """fail before could-not-verify before pass; nothing at all, or a word that is none of them, is could-not-verify."""
    if not verdicts:
        return UNKNOWN
    return max((v if v in _RANK else UNKNOWN for v in verdicts), key=lambda v: _RANK[v])


def mapping(value: t.Any) -> t.Dict[str, t.Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, t.Mapping) else {}


def sequence(value: t.Any) -> t.List[t.Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def text(value: t.Any) -> t.Optional[str]:
    return value if isinstance(value, str) and value else None


def texts(value: t.Any, limit: int = 1000) -> t.List[str]:
    """A list of sentences or keys; one alone counts as a list of one."""
    if isinstance(value, str):
        return [value] if value else []
    return [v if isinstance(v, str) else json.dumps(v, default=str) for v in sequence(value)[:limit]]


def flag(value: t.Any) -> t.Optional[bool]:
    return value if isinstance(value, bool) else None


def number(value: t.Any) -> t.Optional[float]:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def count(value: t.Any) -> t.Optional[int]:
    """A whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def ratio(value: t.Any) -> t.Optional[float]:
    value = number(value)
    return value if value is not None and value <= 1 else None


def moment(value: t.Any) -> t.Optional[datetime.datetime]:
    """A point in time from RFC 3339 text or from microseconds since 1970 UTC."""
    try:
        if isinstance(value, str):
            iso = re.sub(r"[zZ]$", "+00:00", value.strip())
            # Python 3.9 reads only three or six digits of a second
            iso = re.sub(r"\.(\d+)", lambda m: "." + (m.group(1) + "000000")[:6], iso, count=1)
            found = datetime.datetime.fromisoformat(iso)
            return found.astimezone(datetime.timezone.utc) if found.tzinfo else None
        if isinstance(value, int) and not isinstance(value, bool):
            epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
            return epoch + datetime.timedelta(microseconds=value)
    except (ValueError, OverflowError):
        pass
    return None


def rfc3339(value: t.Any) -> t.Optional[str]:
    found = value if isinstance(value, datetime.datetime) else moment(value)
    if found is None:
        return None
    # isoformat, not strftime: strftime does not pad years before 1000
    return found.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def between(start: t.Any, end: t.Any) -> t.Optional[float]:
    """Seconds from start to end, negative when the clocks say so; None when one of them is not known."""
    first, last = moment(start), moment(end)
    return None if first is None or last is None else (last - first).total_seconds()


def duration(value: t.Any) -> t.Optional[float]:
    """Seconds from 900, "900", "15m", "1.5 h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
        if match is None or match.group(2) not in _UNITS:
            return None
        return number(float(match.group(1)) * _UNITS[match.group(2)])
    return number(value)


def store(value: t.Any) -> t.Optional[t.Dict[str, t.Any]]:
    """The harmless part of a store mapping; a bare name counts as one."""
    if isinstance(value, str) and value:
        return {"name": value}
    found = mapping(value)
    shown = {k: found[k] for k in _STORE_FIELDS if isinstance(found.get(k), (str, int)) and found[k] != ""}
    return {k: v for k, v in shown.items() if not isinstance(v, bool)} or None


def step(raw: t.Any) -> t.Optional[Step]:
    """One line of steps.jsonl, or None: no result of a named step, or one of --check, which did nothing."""
    found = mapping(raw)
    name = text(found.get("name"))
    if name is None or found.get("check") is True:
        return None
    result = mapping(found.get("result"))
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    if name in _BASELINE or (name == "snapshot" and result.get("purpose") == "baseline"):
        name = "baseline"
    verdict = worst(text(found.get("verdict")) or UNKNOWN)
    if "verdict" in result:  # a module's own verdict may lower the step's, never raise it
        verdict = worst(verdict, str(result["verdict"]))
    if result.get("failed") is True or result.get("unreachable") is True:
        verdict = FAIL
    return Step(
        name=name or "unnamed",
        verdict=verdict,
        changed=found.get("changed") is True,
        started=rfc3339(found.get("started")),
        seconds=number(found.get("seconds")),
        host=text(found.get("host")) or "",
        attempt=text(found.get("attempt")) or "",
        detail=" ".join((text(found.get("detail")) or text(result.get("msg")) or "").split())[:2000],
        result=result,
    )


def read_steps(path: str) -> t.Tuple[t.List[t.Dict[str, t.Any]], int]:
    """The steps of a steps.jsonl and how many of its lines cannot be read (a killed controller leaves a torn last one).

    A file that does not exist has no steps. Raises OSError when it exists and cannot be read.
    """
    found: t.List[t.Dict[str, t.Any]] = []
    unreadable = 0
    try:
        with open(path, "rb") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    value = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    found.append(value)
                else:
                    unreadable += 1
    except FileNotFoundError:
        pass
    return found, unreadable


def merge(steps: t.Sequence[Step]) -> Step:
    """The results of one step on several hosts as one: the worst verdict, and the sentence that goes with it."""
    if len(steps) == 1:
        return steps[0]
    verdict = worst(*(s.verdict for s in steps))
    result: t.Dict[str, t.Any] = {}
    for one in steps:
        result.update(one.result)
    starts = sorted(s.started for s in steps if s.started)
    ends = sorted(e for e in (s.ended() for s in steps) if e)
    seconds = between(starts[0], ends[-1]) if starts and ends else None
    return Step(
        name=steps[0].name,
        verdict=verdict,
        changed=any(s.changed for s in steps),
        started=starts[0] if starts else None,
        seconds=number(seconds),
        host=", ".join(s.host for s in steps if s.host),
        attempt=steps[-1].attempt,
        detail=next(s.detail for s in reversed(steps) if s.verdict == verdict),
        result=result,
    )
