# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A diagnosis' look at the store's structure and at the access log, in a process beside the scan of the records.

PRIVATE to the collection. The log is read once for its health, for bursts of writes and for entries in doubt; a second
time, only where there is such a doubt, for the entries that can be believed instead.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._model import WRITE_OPERATIONS, LogEntry, Window
from .._store import Reader, open_store
from .access_log_review import Review, Reviewer
from .acknowledged import Acknowledged, believed
from .diagnose import windows
from .workers import Parent


class Structure(t.NamedTuple):
    """What the engine finds wrong with itself, what it rebuilt, what stays wrong."""

    found: list[str]
    mended: list[str]
    broken: list[str]


class Log(t.NamedTuple):
    """What the log says, when the store's newest sequence was ``sequence``."""

    sequence: int
    health: dict[str, t.Any]
    review: Review
    distrust: list[Window]
    believed: str | None  # file of an Acknowledged; None: the newest entry of each key can be believed
    pruned: tuple[int, int]  # (epoch, sequence) up to which entries of the namespace's writes may have been pruned


@dataclass
class LogReading:
    """``since``/``until`` (µs) and ``settled`` as of Reviewer; ``path`` is where an Acknowledged may be kept."""

    namespace: str
    onset_sequence: int | None
    since: int
    until: int
    settled: int
    path: str

    def read(self, reader: Reader) -> Log:
        epoch = reader.identity.epoch
        reviewer = Reviewer(since=self.since, until=self.until, settled=self.settled)
        given = windows(Review(), epoch=epoch, onset_sequence=self.onset_sequence)
        acknowledged = Acknowledged(self.path)
        oldest: list[tuple[int, int]] = []

        def each(entries: t.Sequence[LogEntry], sound: t.Sequence[bool]) -> None:
            here = [(entry, good) for entry, good in zip(entries, sound) if entry[2] == self.namespace]
            # what is damaged proves nothing, and what could have been there before it is asked
            reviewer.add([entry for entry, good in here if good])
            places = [
                (entry[5], entry[6])
                for entry, good in here
                if good and entry[5] is not None and entry[6] is not None and entry[3] in WRITE_OPERATIONS
            ]
            if places:
                oldest[:] = [min([*oldest, *places])]
            acknowledged.doubt(
                [
                    entry
                    for entry, good in here
                    if not good
                    or entry[8] is None
                    or entry[6].__class__ is not int
                    or entry[5].__class__ is not int
                    or (given and not believed(entry, given, False))
                ]
            )

        try:
            health = reader.log_health(each)
            review = reviewer.result()
            distrust = windows(review, epoch=epoch, onset_sequence=self.onset_sequence)
            needed = bool(review.unlocked_entries or distrust) or not health["intact"]
            if needed:
                acknowledged.fill(reader, self.namespace, distrust, verify=not health["intact"])
        except BaseException:
            acknowledged.close()
            raise
        acknowledged.close(keep=needed)
        # entries that came with a restore reach further back than what this store gave out
        pruned = min([health["pruned"], *((epoch, sequence - 1) for epoch, sequence in oldest)])
        return Log(reader.identity.sequence, health, review, distrust, self.path if needed else None, pruned)


def read_beside(parent: Parent, store_params: dict[str, t.Any], reading: LogReading, check: bool) -> None:
    """A worker: sends "read" (Structure, Log). Before it mends anything it sends "broken" and waits for an answer: what
    is being read elsewhere is not to change, but a broken index of the log would make the plan lie."""
    store = open_store(store_params)
    with store.reader() as reader:
        found = reader.structure()
    structure = Structure(found, [], [])
    if found and not check:
        parent.send("broken", None)
        parent.receive()
        mended = store.repair_structure()
        with store.reader() as reader:
            structure = Structure(found, mended, reader.structure())
    with store.reader() as reader:
        parent.send("read", (structure, reading.read(reader)))
