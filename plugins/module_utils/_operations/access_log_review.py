# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Read the access log once and collect what a diagnosis needs: bursts of writes, rotations, misses over time.

PRIVATE to the collection. Memory use is bounded by the number of actors and time buckets, not by the log.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._model import LogEntry
from .commands import counted
from .incident import rfc3339

BURST_GAP_US = 60_000_000  # unlocked writes of one actor further apart than this are two bursts
BULK_WRITES = 50  # so many writes without a lock in one burst are a bulk write
READS = ("hit", "miss", "corrupt", "expired")
MAX_BUCKETS = 120
FOREVER: t.Final = (1 << 62, 0)  # later than any version


@dataclass
class Burst:
    """Consecutive writes of one actor, all without the write lock."""

    actor: str
    epoch: int
    first_sequence: int
    last_sequence: int
    first_at: int
    last_at: int
    writes: int = 0
    deletes: int = 0
    interleaved: int = 0  # entries of other actors between its own

    def evidence(self) -> str:
        extra = f", {counted(self.interleaved, 'write')} of others between them" if self.interleaved else ""
        return (
            f"{self.actor} made {counted(self.writes, 'write')} and {counted(self.deletes, 'deletion')} "
            f"without the write lock between {rfc3339(self.first_at)} and {rfc3339(self.last_at)} "
            f"(sequences {self.first_sequence} to {self.last_sequence}{extra})"
        )


@dataclass
class Review:
    """What the log of one namespace says."""

    entries: int = 0
    unlocked_entries: int = 0  # writes and deletions without the write lock, judged ones too
    unlocked: list[Burst] = field(default_factory=list)
    rotations_open: dict[str, int] = field(default_factory=dict)  # reason → time of a start without an end
    #: key → the newest version when the last rotation to it ended; FOREVER while one has not
    rotated_to: dict[str, tuple[int, int]] = field(default_factory=dict)
    first_corrupt: int | None = None
    expired_reads: int = 0
    reads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(READS, 0))
    series: list[dict[str, t.Any]] = field(default_factory=list)

    def hit_rate(self) -> float | None:
        """Hits among hits, misses and corrupt reads; None when nothing was read."""
        asked = self.reads["hit"] + self.reads["miss"] + self.reads["corrupt"]
        return self.reads["hit"] / asked if asked else None


def review(log: t.Iterable[list[LogEntry]], **options: t.Any) -> Review:
    """What these entries say; ``options`` as of Reviewer. All of them are taken as they are."""
    reviewer = Reviewer(**options)
    for batch in log:
        reviewer.add(batch)
    return reviewer.result()


class Reviewer:
    """Takes the log in batches, oldest first.

    ``since``/``until`` limit the reads that are counted (µs). Writes without a lock up to the sequence ``settled``
    were judged by an earlier incident and are passed over.
    """

    def __init__(
        self, *, since: int = 0, until: int | None = None, settled: int = 0, bucket_us: int = 1_000_000
    ) -> None:
        self._since, self._until, self._settled = since, 1 << 62 if until is None else until, settled
        self._bucket_us = bucket_us
        self._found = Review()
        self._open_bursts: dict[str, Burst] = {}
        self._finished: list[Burst] = []
        self._buckets: dict[int, dict[str, int]] = {}
        self._last_write: LogEntry | None = None

    def add(self, batch: t.Sequence[LogEntry]) -> None:
        found, buckets = self._found, self._buckets
        found.entries += len(batch)
        for entry in batch:
            operation = entry[3]
            if operation in ("write", "delete"):
                if entry[8] is None:
                    found.unlocked_entries += 1
                    if (entry[6] or 0) > self._settled:
                        last = self._last_write[9] if self._last_write is not None else None
                        _burst(entry, self._open_bursts, self._finished, last)
                self._last_write = entry
            elif operation in READS:
                at = entry[1]
                if operation == "corrupt":
                    found.first_corrupt = min(at, found.first_corrupt or at)
                elif operation == "expired":
                    found.expired_reads += 1
                if self._since <= at <= self._until:
                    found.reads[operation] += 1
                    bucket = buckets.setdefault(at // self._bucket_us, dict.fromkeys(READS, 0))
                    bucket[operation] += 1
                    if len(buckets) > 2 * MAX_BUCKETS:
                        buckets = self._coarsen()
            elif operation == "rotate":
                _rotation(entry, found, self._last_write)

    def result(self) -> Review:
        found = self._found
        found.unlocked = sorted([*self._finished, *self._open_bursts.values()], key=lambda b: b.first_sequence)
        while len(self._buckets) > MAX_BUCKETS:
            self._coarsen()
        found.series = [
            {"at": rfc3339(number * self._bucket_us), "hits": b["hit"], "misses": b["miss"], "corrupt": b["corrupt"]}
            for number, b in sorted(self._buckets.items())
        ]
        return found

    def _coarsen(self) -> dict[int, dict[str, int]]:
        self._buckets, self._bucket_us = _coarser(self._buckets), self._bucket_us * 2
        return self._buckets


def _burst(entry: LogEntry, open_bursts: dict[str, Burst], finished: list[Burst], last_writer: str | None) -> None:
    at, actor = entry[1], entry[9]
    burst = open_bursts.get(actor)
    epoch, sequence = entry[5] or 0, entry[6] or 0
    if burst is None or at - burst.last_at > BURST_GAP_US or burst.epoch != epoch:
        if burst is not None:
            finished.append(burst)
        burst = Burst(actor, epoch, sequence, sequence, at, at)
        open_bursts[actor] = burst
    elif last_writer is not None and last_writer != actor:
        burst.interleaved += 1
    burst.last_at, burst.last_sequence = at, max(sequence, burst.last_sequence)
    burst.first_sequence = min(sequence, burst.first_sequence)
    if entry[3] == "write":
        burst.writes += 1
    else:
        burst.deletes += 1


def _rotation(entry: LogEntry, found: Review, last: LogEntry | None) -> None:
    """A rotation is logged as "start: from A to B" and "end: from A to B". ``last``: the write before it."""
    phase, _colon, what = (entry[10] or "").partition(": ")
    target = what.rpartition(" to ")[2]
    if target:
        version = (last[5] or 0, last[6] or 0) if last is not None else (0, 0)
        found.rotated_to[target] = version if phase == "end" else FOREVER
    if phase == "start":
        found.rotations_open[what] = entry[1]
    elif phase == "end":
        found.rotations_open.pop(what, None)


def _coarser(buckets: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
    merged: dict[int, dict[str, int]] = {}
    for number, counts in buckets.items():
        into = merged.setdefault(number // 2, dict.fromkeys(READS, 0))
        for name, value in counts.items():
            into[name] += value
    return merged
