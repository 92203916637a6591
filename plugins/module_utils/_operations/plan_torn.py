# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan does where a store holds what cannot be read as any record: a line of a file that is cut, or has a hole.

PRIVATE to the collection. Nobody knows how many records are in it, so those that are absent are taken for damaged. A
snapshot that was taken since has the same line, and does not have the records either: older ones are asked then.
"""
from __future__ import annotations

import typing as t

from .._model import Row
from .._store import Reader
from .plan import Source, _rows
from .plan_file import Entry, PlanFile

RESERVED = "\0memops/"  # keys of the collection's own
ABSENT = "absent"
TORN = "absent since the snapshot, and there is what cannot be read"
UNREAD = "cannot be read as any record; one of those that come back"
SPARE = "what is left of a record that is there"


class Decides(t.Protocol):
    def good(self, row: Row | None) -> bool: ...

    def spent(self, copy: Row, source: Source | None) -> bool: ...


def come_back(
    draft: PlanFile, reader: Reader, namespace: str, sources: t.Sequence[Source], unread: str, decide: Decides
) -> int:
    """Plan for what cannot be read (its keys begin with ``unread``). ``sources``: snapshots, newest first. How many
    records that are absent are repaired; so many of what cannot be read are not lost."""
    torn = False
    for entries in draft.entries("lost"):
        mine = [entry for entry in entries if entry.key.startswith(unread)]
        spare = [entry for entry in mine if "/" in entry.key[len(unread) :]]
        draft.add(entry._replace(action="suspect", reason=SPARE) for entry in spare)
        # made anew: no memory is lost with it
        draft.add(entry._replace(action="expired") for entry in entries if entry.key.startswith(RESERVED))
        torn = torn or len(mine) > len(spare)
    if not torn:
        return 0
    whole = next((place for place, source in enumerate(sources) if not _has(source, namespace, unread)), None)
    if whole:
        _look_behind(draft, reader, namespace, sources[whole], decide)
    back = 0
    for entries in draft.entries(ABSENT):
        draft.add(entry._replace(action="repair", reason=TORN) for entry in entries)
        back += len(entries)
    left = back
    for entries in draft.entries("lost"):
        mine = [entry for entry in entries if entry.key.startswith(unread)][:left]
        draft.add(entry._replace(action="suspect", reason=UNREAD) for entry in mine)
        left -= len(mine)
    return back


def _has(source: Source, namespace: str, unread: str) -> bool:
    """Whether the snapshot holds what cannot be read."""
    rows = _rows(source.scan(namespace, after=unread, until=unread + "\U0010ffff"))
    return next(rows, None) is not None


def _look_behind(draft: PlanFile, reader: Reader, namespace: str, source: Source, decide: Decides) -> None:
    """What is absent since this snapshot, which is older than what cannot be read."""
    pending: dict[str, Row] = {}

    def note() -> None:
        known = {entry.key for entry in draft.get(list(pending))}
        draft.add(
            Entry(key, ABSENT, TORN, None, source.id, row[-1], None, None)
            for key, row in pending.items()
            if key not in known
        )
        pending.clear()

    for key, (live, copy) in merged([_rows(reader.scan(namespace)), _rows(source.scan(namespace))]):
        if live is None and decide.good(copy) and not decide.spent(copy, source):
            pending[key] = copy
        if len(pending) >= 1000:
            note()
    note()


def merged(streams: t.Sequence[t.Iterator[t.Any]]) -> t.Iterator[tuple[str, list[t.Any]]]:
    """Full outer join of streams in key order: each key once, with what each stream has of it."""
    heads = [next(stream, None) for stream in streams]
    while True:
        there = [head[0] for head in heads if head is not None]
        if not there:
            return
        key = min(there)
        row = [head if head is not None and head[0] == key else None for head in heads]
        for number, one in enumerate(row):
            if one is not None:
                heads[number] = next(streams[number], None)
        yield key, row
