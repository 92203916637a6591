# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Decide, for every key, what a rebuild does where nobody logged who wrote it, or when: no access log, no sequences, no
tombstones.

PRIVATE to the collection. A record is good when it is sound and either equals a verified snapshot or is newer than
that and lies outside the window of the damage. The window is what the operator says: since when (onset), and which
keys. Where records say when they were changed, one that was changed between snapshot and onset is outside of it, and
one that differs although its update time does not is damaged, window or not, as is one that differs although the
application never changes such a record; where nobody knows, every key is inside.
Three streams are merged in key order: the live rows, the newest good snapshot, and the newest good one from before the
onset. Nothing is held in memory but a batch of each.
"""
from __future__ import annotations

import fnmatch
import hashlib
import heapq
import re
import secrets
import typing as t
from dataclasses import dataclass, field

from .._codec import RecordCodec
from .._layouts import nameless, written_once
from .._model import CHECKSUM, EXPIRES, KEY, UPDATED, Row
from .._store import Reader
from .._table_records import put_off, silent
from . import plan_needed, plan_torn
from .held_records import aside_of
from .plan_file import UNSURE, Entry, PlanFile
from .plan_gap import Source
from .plan_streams import damaged, one_by_one
from .plan_summary import summary

PROBES = 200
CHANGED = 100  # keys that are named
ABSENT = plan_torn.ABSENT
NEEDED, LACKING = plan_needed.NEEDED, plan_needed.LACKING
GONE = (ABSENT, UNSURE, NEEDED, LACKING)  # of what is to come back, or was lost
CHANGED_INSIDE = "changed inside the window"
SILENT = "changed although its update time did not"
NEVER = "changed although the application never changes such a record"
UNSAID = (SILENT, NEVER)
OTHERWISE = (CHANGED_INSIDE, *UNSAID)  # sound, and not what it has to be: no scan finds it
MADE_INSIDE = "made inside the window; no snapshot from before has it"
RESERVED = plan_torn.RESERVED


@dataclass(frozen=True)
class Window:
    """What the operator says of the damage. Times are µs; without any of it nothing is inside."""

    onset: int | None = None
    until: int | None = None
    keys: frozenset[str] = field(default_factory=frozenset)
    pattern: str | None = None
    rebase: bool = False  # copies that come back expire later by the time that passed since they were saved

    @property
    def given(self) -> bool:
        return self.onset is not None or bool(self.keys) or self.pattern is not None

    def inside(self) -> t.Callable[[str], bool]:
        """Whether a key is meant; with a time alone every key is."""
        if self.pattern is None and not self.keys:
            return lambda _key: self.onset is not None
        matches = re.compile(fnmatch.translate(self.pattern)).match if self.pattern is not None else None
        return lambda key: key in self.keys or bool(matches and matches(key))


def told(onset: str | None, window: Window | None) -> dict[str, t.Any]:
    """What a diagnosis was told of the damage, as the incident notes it. ``window``: None where there is a log."""
    if window is None:
        return {"onset": onset} if onset else {}
    said = {"onset": window.onset, "until": window.until, "keys": sorted(window.keys), "pattern": window.pattern}
    return {name: value for name, value in {**said, "rebase": window.rebase}.items() if value not in (None, [], False)}


def told_otherwise(known: t.Mapping[str, t.Any], said: t.Mapping[str, t.Any]) -> bool:
    """Whether the incident was diagnosed, and for another window than is given now. None given: as it was."""
    return bool(known.get("diagnosed") and said and known.get("told", said) != said)


@dataclass
class Found:
    """What a plan of this kind counts beside its entries."""

    good: int = 0
    damaged: int = 0
    changed: int = 0  # sound, other than the newest snapshot, outside the window: kept
    changed_keys: list[str] = field(default_factory=list)  # the first of them
    as_saved: int = 0  # chosen by key or pattern alone, and as in the newest snapshot: nothing is repaired
    as_saved_keys: list[str] = field(default_factory=list)  # the first of them
    inside: int = 0  # damaged, and inside the window

    def unmoved(self, *keys: str) -> None:
        self.as_saved += len(keys)
        self.as_saved_keys += keys[: CHANGED - len(self.as_saved_keys)]


def make(
    *,
    reader: Reader,
    namespace: str,
    sources: t.Sequence[tuple[int, Source]],
    window: Window,
    now: int,
    held: frozenset[str],
    damage_file: str | None,
    target: str,
) -> tuple[dict[str, t.Any], list[dict[str, t.Any]]]:
    """Write the plan to ``target``; its summary, and probes (see probes.fix_probes). ``sources``: (time, snapshot),
    newest first. Probes are records on whose value two copies agree, so that none comes from one source alone."""
    draft = PlanFile.create(target + ".new")
    base = next((n for n, (at, _s) in enumerate(sources) if window.onset is None or at < window.onset), None)
    newest = sources[0][1] if sources else None
    before = None if base is None else sources[base][1]
    # what changed after a snapshot that is younger than the window's end was not changed inside the window
    later = bool(sources) and window.until is not None and sources[0][0] >= window.until
    taken = {source.id: at for at, source in sources}
    once = written_once(reader.identity.layout)
    decide = _Decisions(namespace, window, later, newest, before, now, taken, once)
    sample = _Sample()
    found = Found()
    streams = [
        one_by_one(reader.scan(namespace)),
        one_by_one(newest.scan(namespace)) if newest else iter(()),
        one_by_one(before.scan(namespace)) if before is not None and before is not newest else iter(()),
        damaged(damage_file),
    ]
    unseen = set(window.keys) if window.onset is None and newest is not None else set()
    pending: list[Entry] = []
    for key, (live, copy, old, hurt) in _merged(streams):
        if before is newest:
            old = copy
        unseen.discard(key)
        entry = decide(key, live, copy, old, hurt, found)
        reserved = key.startswith(RESERVED)
        if not reserved and copy is not None and not decide.spent(copy, newest) and _agreed(copy, live, old, entry):
            sample.add(copy)
        if entry is not None:
            pending.append(entry)
        if len(pending) >= 1000:
            draft.add(pending)
            pending = []
    draft.add(pending)
    found.unmoved(*sorted(unseen))  # neither here nor there
    for place, (_at, source) in enumerate(sources):
        if base is not None and place > base:
            _look_deeper(draft, namespace, source, decide)
    unread = nameless(reader.identity.layout)
    if unread is not None:
        found.damaged += plan_torn.come_back(draft, unread)
    copies = [source for _at, source in sources]
    older = [] if base is None else copies[base:]
    trusted = plan_needed.Trusted(copies, lambda key: older if decide.inside(key) else copies)
    found.damaged += plan_needed.come_back(draft, reader, namespace, trusted, decide)
    found.damaged -= _respect_isolation(draft, reader, namespace, held)
    counts = {"good_before": found.good, "damaged": found.damaged}
    # no record says when a copy was written last before it was lost: what was written after the snapshot is not in it
    kept = max((taken[source] for source in draft.repairs_from() if source in taken), default=0)
    plan = draft.finish(
        target, counts=counts, unlogged=0, log_intact=True, newest=kept, changed=found.changed,
        changed_keys=found.changed_keys, newest_snapshot=newest.id if newest else None,
        # of many that a pattern means some are damaged; who names a key means that one
        as_saved=0 if window.pattern is not None and found.inside else found.as_saved,
        as_saved_keys=found.as_saved_keys,
    )  # fmt: skip
    return summary(plan), sample.probes()


class _Decisions:
    def __init__(
        self,
        namespace: str,
        window: Window,
        later: bool,
        newest: Source | None,
        before: Source | None,
        now: int,
        taken: t.Mapping[str, int],
        once: t.Callable[[str], bool],
    ) -> None:
        self._taken, self._rebase, self._once = taken, window.rebase, once
        self._codec, self._inside, self._later, self._now = RecordCodec(namespace), window.inside(), later, now
        self._onset = window.onset
        self._named = bool(window.keys) or window.pattern is not None
        self._newest, self._before = newest, before

    def inside(self, key: str) -> bool:
        return self._inside(key)

    def good(self, row: Row | None) -> bool:
        return row is not None and self._codec.intact(row)

    def over(self, row: Row) -> bool:
        return _over(row, self._now)

    def spent(self, copy: Row, source: Source | None) -> bool:
        """Whether a copy's time is over, so that it does not come back."""
        return _over(copy, self._taken[source.id] if self._rebase and source is not None else self._now)

    def _earlier(self, live: Row | None, before: Row | None) -> bool:
        """Whether the record says that it was changed between the last snapshot from before the window and that."""
        if live is None or self._onset is None or not 0 < _latest(live[UPDATED]) < self._onset:
            return False
        return before is None or before[UPDATED] < live[UPDATED]

    def _silent(self, live: Row, copy: Row, source: Source) -> bool:
        return (
            live[CHECKSUM] != copy[CHECKSUM]
            and not self.over(live)
            and not self.spent(copy, source)
            and self.good(copy)
            and silent(live, copy, self._taken[source.id], self._once(live[KEY]))
        )

    def __call__(
        self, key: str, live: Row | None, newest: Row | None, before: Row | None, hurt: t.Any, found: Found
    ) -> Entry | None:
        """What to do with the key; None when nothing is."""
        if hurt is None and live is not None:  # when it expires may have been put off by whoever read it
            newest = live if newest is not None and put_off(live, newest) else newest
            before = live if before is not None and put_off(live, before) else before
        same = live is not None and newest is not None and live[CHECKSUM] == newest[CHECKSUM]
        later = self._later and not same and not (live is None and newest is None)
        inside = self._inside(key) and not self._earlier(live, before) and not later
        copy, source = (before, self._before) if inside else (newest, self._newest)
        if not self.good(copy):
            copy = None
        id_ = source.id if source is not None else None
        found.inside += inside and (hurt is not None or not same)
        if inside and same and hurt is None and self._onset is None and not key.startswith(RESERVED):
            found.unmoved(key)
        if hurt is not None:
            found.damaged += 1
            if copy is None:
                return _entry(key, "lost", str(hurt[1]), live, None, None)
            return _entry(key, "expired" if self.spent(copy, source) else "repair", str(hurt[1]), live, copy, id_)
        if live is None:
            if copy is None or self.spent(copy, source):
                return None  # it was not there, or its time was over: it does not come back
            if not inside:
                return _entry(key, ABSENT, "absent since the snapshot: deleted or lost", None, copy, id_)
            found.damaged += 1
            # there when the damage had begun, or meant by name; else it may have been deleted since ``copy`` was saved
            sure = self._named or (newest is not None and source is not self._newest)
            return _entry(key, "repair", ABSENT if sure else UNSURE, None, copy, id_)
        if inside and (copy is None or copy[CHECKSUM] != live[CHECKSUM]):
            if self.over(live):
                return None
            found.damaged += 1
            if copy is None:
                return _entry(key, "suspect", MADE_INSIDE, live, None, None)
            if self.spent(copy, source):
                return _entry(key, "expired", f"{CHANGED_INSIDE}; what was there had expired", live, None, None)
            return _entry(key, "repair", CHANGED_INSIDE, live, copy, id_)
        if newest is not None and self._newest is not None and self._silent(live, newest, self._newest):
            found.damaged += 1
            return _entry(key, "repair", NEVER if self._once(key) else SILENT, live, newest, self._newest.id)
        if not self.over(live):
            found.good += 1
            # of what is a layout's own, such as the order of lines, nobody has to decide anything
            if not same and newest is not None and not key.startswith(RESERVED):
                found.changed += 1
                if len(found.changed_keys) < CHANGED:
                    found.changed_keys.append(key)
        return None


def _latest(at: int) -> int:
    """The last moment that a time may stand for, µs: SQLite's CURRENT_TIMESTAMP has whole seconds."""
    return at + 999_999 if at > 0 and at % 1_000_000 == 0 else at


def _entry(key: str, action: str, reason: str, live: Row | None, copy: Row | None, source: str | None) -> Entry:
    kept = copy if action != "expired" else None
    return Entry(
        key, action, reason, None if live is None else live[CHECKSUM], source if kept is not None else None,
        kept[CHECKSUM] if kept is not None else None, None, None,
    )  # fmt: skip


def _agreed(copy: Row, live: Row | None, old: Row | None, entry: Entry | None) -> bool:
    """Whether another copy has the value of ``copy`` too, and the key is to have it after the plan."""
    digest = copy[CHECKSUM]
    if entry is None:
        return live is not None and live[CHECKSUM] == digest
    return entry.digest == digest and old is not None and old is not copy and old[CHECKSUM] == digest


def _over(row: Row, now: int) -> bool:
    return row[EXPIRES] is not None and row[EXPIRES] <= now


def _look_deeper(draft: PlanFile, namespace: str, source: Source, decide: _Decisions) -> None:
    """A damaged record of which the newer snapshots have no good copy gets that of an older one."""
    for entries in draft.unsourced():
        wanted = {entry.key: entry for entry in entries if entry.action == "lost"}
        found = source.get_many(namespace, list(wanted)) if wanted else {}
        draft.add(
            wanted[key]._replace(action="repair", source=source.id, digest=row[CHECKSUM])
            for key, row in found.items()
            if decide.good(row) and not decide.spent(row, source)
        )


def _respect_isolation(draft: PlanFile, reader: Reader, namespace: str, groups: frozenset[str]) -> int:
    """A record that an operator isolated is absent because of that. How many of them were counted as damaged."""
    dropped = 0
    for rows in aside_of(reader, namespace, groups):
        mine = [entry for entry in draft.get([row[KEY] for row in rows]) if entry.expected is None]
        dropped += sum(entry.action != ABSENT for entry in mine)
        draft.drop([entry.key for entry in mine])
    return dropped


class _Sample:
    """Keys drawn at random, whatever order they come in."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(8)
        self._heap: list[tuple[int, str, bytes, int | None]] = []

    def add(self, row: Row) -> None:
        digest = hashlib.blake2b(row[KEY].encode(), digest_size=8, key=self._salt).digest()
        one = (-int.from_bytes(digest, "big"), row[KEY], row[CHECKSUM], row[EXPIRES])
        if len(self._heap) < PROBES:
            heapq.heappush(self._heap, one)
        elif one > self._heap[0]:
            heapq.heapreplace(self._heap, one)

    def probes(self) -> list[dict[str, t.Any]]:
        found = {
            key: {"key": key, "digest": digest.hex(), "at": 0, "epoch": None, "sequence": None, "expires": expires}
            for _rank, key, digest, expires in self._heap
        }
        return [found[key] for key in sorted(found)]


def _merged(streams: t.Sequence[t.Iterator[t.Any]]) -> t.Iterator[tuple[str, list[t.Any]]]:
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
