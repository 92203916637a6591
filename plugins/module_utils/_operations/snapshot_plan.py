# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How the work of one snapshot is divided into ranges, and what they came to put together again.

PRIVATE to the collection.
"""
from __future__ import annotations

import bisect
import typing as t

from .._errors import MemoryOpsError
from .._model import NamespaceState
from .._store import Reader
from .snapshot_check import Tally
from .snapshot_scan import Base, Job, LogCopier, LogRange, Range, Tallies, Task

PIECES = 4  # ranges of a big namespace, and of the log, for each process
LEAST_RECORDS = 20_000  # in one range, where there are namespaces enough for all processes
LEAST_ENTRIES = 50_000  # of the log in one range


def plan(reader: Reader, states: t.Sequence[NamespaceState], job: Job, count: int) -> list[Task]:
    """Ranges of records in key order and of the log in the order of ids, for ``count`` processes."""
    tasks: list[Task] = []
    pieces = PIECES * count if count > 1 else 1
    many = len(states) > pieces
    for state in states:
        parts = min(pieces, _records(reader, state.name, job.base) // LEAST_RECORDS) if many else pieces
        tasks += _ranges(reader, state.name, job.base, parts)
    tasks += _log_ranges(reader, [state.name for state in states], job, count)
    return tasks


def gathered(
    tasks: t.Sequence[Task], found: t.Mapping[int, Tallies]
) -> tuple[list[tuple[str, Tally]], dict[str, Tally]]:
    """(parts of the records, the log by namespace) as snapshot_manifest.Scanned has them."""
    parts: list[tuple[str, Tally]] = []
    log: dict[str, Tally] = {}
    for number, task in enumerate(tasks):
        for namespace, tally in found[number].items():
            if isinstance(task, Range):
                parts.append((namespace, tally))
            elif namespace in log:
                log[namespace].append(tally)
            else:
                log[namespace] = tally
    return parts, log


def _log_ranges(reader: Reader, names: t.Sequence[str], job: Job, count: int) -> t.Iterator[LogRange]:
    """What the base holds is one range; the rest is cut by ids where the engine can copy a part."""
    if not isinstance(reader, LogCopier):
        yield LogRange(tuple(names), 0, None, False)
        return
    after, end = 0, reader.log_end()
    base = job.base
    if base is not None and base.same_log and not job.forensic:  # evidence is read, not inferred
        held = max(
            (chunk.last_key for kinds in base.chunks.values() for chunk in kinds.get("log", {}).values()), default=0
        )
        if 0 < held <= end:
            yield LogRange(tuple(names), 0, held, True)
            after = held
    pieces = max(1, min(PIECES * count, (end - after) // LEAST_ENTRIES)) if count > 1 else 1
    for piece in range(pieces):
        until = end if piece == pieces - 1 else after + (end - after) // (pieces - piece)
        yield LogRange(tuple(names), after, until, False)
        after = until


def _records(reader: Reader, namespace: str, base: Base | None) -> int:
    """About how many the namespace has; where the base knows it nothing is counted."""
    known = 0 if base is None else sum(chunk.rows for chunk in base.of(namespace, "records").values())
    try:
        return known or reader.count(namespace)
    except MemoryOpsError:
        return 0  # damaged: one range, whose scan tells where


def _ranges(reader: Reader, namespace: str, base: Base | None, parts: int) -> list[Range]:
    """Cut a namespace; where the base has chunks at their ends, so that a cut costs no chunk."""
    chunks = [] if base is None else list(base.of(namespace, "records").values())
    ends = sorted(chunk.last_key for chunk in chunks if isinstance(chunk.last_key, str))
    cuts: list[str] = []
    if parts > 1 and len(ends) > 8 * parts:
        cuts = [ends[len(ends) * part // parts] for part in range(1, parts)]
    elif parts > 1:
        try:
            cuts = reader.boundaries(namespace, parts)
        except MemoryOpsError:
            cuts = []  # damaged: one range, whose scan tells where
        if len(ends) > parts:
            cuts = sorted({ends[min(len(ends) - 1, bisect.bisect_left(ends, cut))] for cut in cuts})
    edges = [None, *cuts, None]
    return [Range(namespace, edges[i], edges[i + 1]) for i in range(len(edges) - 1)]
