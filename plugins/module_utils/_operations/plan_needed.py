# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan does about records that are not there and that others, which are, refer to: they were lost, whatever the
window of the damage, where no application deletes them alone.

PRIVATE to the collection. Such a record comes back from the newest good copy, with what belongs to it; one that nobody
has is lost by its name. A baseline that was taken after a former rebuild, and lacks the record that the same one names,
says that this loss was told then.
"""
from __future__ import annotations

import typing as t

from .._model import CHECKSUM, KEY, Row
from .._store import Reader
from .._store_optional import Gap, LinkedRecords, Links, NeededRecords
from . import plan_torn
from .plan_file import UNSURE, Entry, PlanFile

NEEDED = "absent, and records that are there need it"
LACKING = "absent, though a record that is there follows it, and no good snapshot has it"
AHEAD = 100  # copies that are read at once, since what was lost is often a stretch


class Copies(t.Protocol):
    id: str
    purpose: str

    def scan(self, namespace: str, first: str | None = None, last: str | None = None) -> t.Iterator[list[Row]]: ...

    def get_many(self, namespace: str, keys: t.Sequence[str]) -> dict[str, Row]: ...


class Judge(t.Protocol):
    def good(self, row: Row | None) -> bool: ...

    def spent(self, copy: Row, source: t.Any) -> bool: ...


class Trusted(t.NamedTuple):
    """The snapshots, newest first, and those that may be trusted with a key."""

    all: t.Sequence[t.Any]
    of: t.Callable[[str], t.Sequence[t.Any]]


def come_back(draft: PlanFile, reader: Reader, namespace: str, sources: Trusted, judge: Judge) -> int:
    """How many come back that would not have, or are lost."""
    back = _needed(draft, reader, namespace)
    if isinstance(reader, LinkedRecords):
        chains = _Chains(draft, reader, namespace, sources, judge)
        for gap in reader.gaps(namespace):
            chains.mend(gap)
        back += chains.back
    return back


def _needed(draft: PlanFile, reader: Reader, namespace: str) -> int:
    back = 0
    if not isinstance(reader, NeededRecords):
        return back
    for action in (plan_torn.ABSENT, "repair"):
        for entries in draft.entries(action):
            some = [entry for entry in entries if _open(entry)]
            keys = set(reader.needed(namespace, [entry.key for entry in some])) if some else set()
            draft.add(entry._replace(action="repair", reason=NEEDED) for entry in some if entry.key in keys)
            back += len(keys) if action == plan_torn.ABSENT else 0
    return back


def _open(entry: Entry) -> bool:
    """Whether nobody knows yet that it was lost."""
    return entry.action == plan_torn.ABSENT or entry.reason == UNSURE


class _Chains:
    def __init__(self, draft: PlanFile, reader: t.Any, namespace: str, sources: Trusted, judge: Judge) -> None:
        self._draft, self._reader, self._namespace = draft, reader, namespace
        self._sources, self._judge = sources, judge
        self._by_id: dict[str, Copies] = {source.id: source for source in sources.all}
        self._ahead: dict[str, Row] = {}
        self.back = 0

    def mend(self, gap: Gap) -> None:
        """Plan for what was lost before one record, back to what is there."""
        for entry in self._draft.get([gap.after]):
            if entry.source is None and entry.action in ("suspect", "lost", "expired"):
                return  # it goes, too
        key, after = gap.key, gap.after
        while key > gap.oldest:
            before = self._one(key, after)
            if before is None:
                return
            key, after = before, key

    def _one(self, key: str, after: str) -> str | None:
        """Plan for one record; the one before it, where this one was not there, either."""
        planned = self._draft.get([key])
        if planned:
            entry = planned[0]
            if entry.expected is not None or entry.source not in self._by_id or entry.reason in (NEEDED, LACKING):
                return None
            self._come(entry)
            row = self._copy(entry)
            links = self._reader.links(row) if row is not None else None
            if links is not None:
                self._beside(links, None)
            return links.before if links is not None else None
        if self._reader.get_many(self._namespace, [key]):
            return None
        for source in self._sources.of(key):
            row = source.get_many(self._namespace, [key]).get(key)
            if row is not None and self._judge.good(row) and not self._judge.spent(row, source):
                self._come(Entry(key, plan_torn.ABSENT, "", None, source.id, row[CHECKSUM], None, None))
                links = self._reader.links(row)
                if links is not None:
                    self._beside(links, source)
                return links.before if links is not None else None
        if not self._told(key, after):
            self._draft.add([Entry(key, "lost", LACKING, None, None, None, None, None)])
            self.back += 1
        return None

    def _come(self, entry: Entry) -> None:
        self.back += entry.action == plan_torn.ABSENT
        self._draft.add([entry._replace(action="repair", reason=NEEDED)])

    def _copy(self, entry: Entry) -> Row | None:
        if entry.key not in self._ahead:
            ahead = [one for one in self._draft.gone_until(entry.key, AHEAD) if one.source == entry.source]
            keys = [one.key for one in ahead]
            self._ahead = self._by_id[str(entry.source)].get_many(self._namespace, keys)
        return self._ahead.get(entry.key)

    def _beside(self, links: Links, source: Copies | None) -> None:
        """What belongs to a record that comes back: as the plan has it, else from the same ``source``."""
        last = links.beside[:-1] + chr(ord(links.beside[-1]) + 1)
        mine = [*self._draft.get(links.values), *self._draft.gone_between(links.beside, last)]
        for entry in mine:
            if entry.expected is None and entry.source is not None and _open(entry):
                self._come(entry)
        if source is None:
            return
        rows = list(source.get_many(self._namespace, links.values).values())
        for batch in source.scan(self._namespace, links.beside, last):
            rows += batch
        known = {entry.key for entry in mine}
        there = self._reader.get_many(self._namespace, [row[KEY] for row in rows])
        for row in rows:
            if row[KEY] not in known and row[KEY] not in there and self._judge.good(row):
                self._come(Entry(row[KEY], plan_torn.ABSENT, "", None, source.id, row[CHECKSUM], None, None))

    def _told(self, key: str, after: str) -> bool:
        """Whether a rebuild said before that this one is lost."""
        for source in self._sources.all:
            row = source.get_many(self._namespace, [after]).get(after) if source.purpose == "baseline" else None
            links = self._reader.links(row) if row is not None else None
            if links is not None and links.before == key:
                return True
        return False
