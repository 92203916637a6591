# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""By which time retention tells what is old: never later than what other clocks say.

PRIVATE to the collection. A host whose clock was set ahead would remove what is young. The repository's clock tells
(S3), and where it has none of its own, the machine's time since its start: a clock that went ahead of that is believed
once it has stood for a day, which leaves the time to correct it. A clock that is behind only keeps things for longer.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .. import _steady_time
from .._errors import MemoryOpsError
from .._repository import Repository
from .retention_note import DAY, Note

SLACK: t.Final = 600.0  # seconds that clocks may differ


class Moment(t.NamedTuple):
    """``now`` in seconds since 1970; ``doubt``: why that is not this host's time, else empty."""

    now: float
    doubt: str


def moment(
    repository: Repository | None,
    store_params: t.Mapping[str, t.Any],
    name: str,
    work_dir: str | None,
    check: bool = False,
) -> Moment:
    """The time for retention. What was seen is noted on the memory host. Errors: none."""
    wall = time.time()
    theirs = None
    if repository is not None:
        with contextlib.suppress(MemoryOpsError):
            theirs = repository.objects.clock()
    if theirs is not None and wall > theirs + SLACK:
        return Moment(theirs, _doubt(wall - theirs, "the repository's"))
    note = Note(store_params, name, work_dir, name, "retention_clock")
    running, boot = _steady_time.since_start(), _steady_time.start()
    if running is None or boot is None:
        return Moment(wall, "")
    now, ahead = wall, 0
    if theirs is None and note.at and note.number("boot") == boot:
        true = note.at + running - note.number("running")
        if wall > true + SLACK:
            ahead = note.number("ahead") or max(1, int(running))
            now = true if running - ahead < DAY else wall
    if not check:
        note.keep(now, boot=boot, running=int(running), ahead=ahead if now < wall else 0)
    return Moment(now, _doubt(wall - now, "what it said before") if now < wall else "")


def _doubt(seconds: float, whose: str) -> str:
    return f"this host's clock is {seconds:,.0f} s ahead of {whose}, so nothing is removed that is not old without that"
