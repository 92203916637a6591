# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Decide, for every key, what a rebuild does: keep, repair, suspect, conflict, lost or expired.

PRIVATE to the collection. Three sorted streams are merged: the live rows, the newest logged write per key and the
newest good snapshot. Only keys that find no good copy there are looked up in older snapshots. What the integrity
scan found damaged comes in as a table on disk. Nothing is held in memory but a batch of each.
"""

from __future__ import annotations

import typing as t

from .. import _progress
from .._model import (
    CHECKSUM,
    DELETED,
    EPOCH,
    EXPIRES,
    KEY,
    KEY_ID,
    SEQUENCE,
    UPDATED,
    LastWrite,
    Row,
    Window,
    is_isolated,
)  # fmt: skip
from .._store import Reader
from .acknowledged import believed, inside
from .held_records import aside_of
from .plan_copies import REWRITTEN, UNLOGGED, acquit, logged_from
from .plan_doubted import Doubted
from .plan_evidence import Evidence
from .plan_file import Entry, PlanFile
from .plan_gap import UNKNOWN, Source
from .plan_streams import aligned, damaged, one_by_one
from .plan_summary import summary

Version = t.Tuple[int, int]
#: (is a live, good memory now, what to do with the key); None: nothing is there and nothing is missing
Decision = t.Optional[t.Tuple[bool, t.Optional[Entry]]]


def make(
    *,
    reader: Reader,
    namespace: str,
    sources: t.Sequence[Source],
    evidence: Evidence,
    damage_file: str | None,
    target: str,
) -> dict[str, t.Any]:
    """Write the plan to ``target`` and return its summary (see ``summary``)."""
    draft = PlanFile.create(target + ".new")
    tally = _Tally(draft)
    gap = evidence.gap
    evidence.logged_from = logged_from(reader, namespace, gap.pruned) if evidence.log_intact else None
    plain = _Plain(evidence)
    doubted = Doubted()
    _progress.begin("planning")
    streams = aligned(
        one_by_one(_progress.counted(reader.scan(namespace))),
        one_by_one(reader.last_writes(namespace)),
        one_by_one(gap.base.scan(namespace)),
        damaged(damage_file),
        plain.keeps,
    )
    for key, live, last, copy, damage in streams:
        write = evidence.acknowledged.newest(key, last)
        name = gap.base.name(key)
        decision = _decide(key, live, write, copy, damage, name, evidence)
        if copy is not None and evidence.unexplained(copy, write):
            other = _without(key, live, write, copy, damage, name, evidence)
            if other != decision:  # what the snapshots' logs say of the copy is not known yet
                doubted.add(key, copy[CHECKSUM], decision, other, write)
                continue
        tally.add(decision, write, live, copy)
    for decision, write in doubted.decided(source.log(namespace) for source in sources):
        tally.add(decision, write)
    tally.write()
    if tally.unlogged and sources:
        proven = acquit(draft, sources[0].log(namespace))
        tally.good += proven
        tally.unlogged -= proven
    for source in sources[1:]:
        _look_deeper(draft, namespace, source, evidence)
    _respect_deletions(draft, reader, namespace, {source.id: source for source in sources}, evidence.windows)
    tally.damaged -= _respect_isolation(draft, reader, namespace, evidence.held)
    counts = {"good_before": tally.good + plain.kept, "damaged": tally.damaged}
    facts = {"unlogged": tally.unlogged, "log_intact": evidence.log_intact, "newest": max(tally.newest, plain.newest)}
    return summary(draft.finish(target, counts=counts, **facts, gap=gap.facts()))


class _Tally:
    """Writes what is decided to the plan, and counts it."""

    def __init__(self, draft: PlanFile) -> None:
        self.good = self.damaged = self.unlogged = self.newest = 0
        self._draft = draft
        self._entries: list[Entry] = []
        self._writes: list[LastWrite] = []

    def add(
        self, decision: Decision, write: LastWrite | None, live: Row | None = None, copy: Row | None = None
    ) -> None:
        if decision is None:
            return
        kept, entry = decision
        self.good += kept
        if kept and live is not None:
            self.newest = max(self.newest, live[UPDATED])
        if entry is None:
            return
        if entry.action not in ("suspect", "absent"):
            self.damaged += 1
        elif entry.reason == UNLOGGED:
            self.unlogged += 1
        if copy is not None and entry.action == "repair":
            self.newest = max(self.newest, copy[UPDATED])
        self._entries.append(entry)
        if write is not None and entry.source is None and entry.action in ("lost", "suspect"):
            self._writes.append(write)
        if len(self._entries) >= 1000:
            self.write()

    def write(self) -> None:
        self._draft.add(self._entries)
        self._draft.note_writes(self._writes)
        self._entries, self._writes = [], []


class _Plain:
    """What _decide says of nearly every record, told at once: an undamaged memory that is the newest logged write, made
    under the lock, and the very row of the snapshot where that has the key; nothing doubts it."""

    def __init__(self, evidence: Evidence) -> None:
        self.kept = self.newest = 0
        self._may_doubt = evidence.acknowledged.doubts()
        self._windows = evidence.windows
        self._low = min((window.first_sequence for window in evidence.windows), default=1)
        self._high = max((window.last_sequence for window in evidence.windows), default=0)

    def keeps(self, live: Row, write: LastWrite, copy: Row | None) -> bool:
        if (
            write[4] == live[CHECKSUM]
            and write[2] == live[SEQUENCE]
            and write[1] == live[EPOCH]
            and write[5] is not None
            and live[DELETED] is None
            and live[EXPIRES] is None
            and (copy is None or copy[CHECKSUM] == live[CHECKSUM])
            and not (self._may_doubt and self._may_doubt(live[KEY]))
            and not (self._low <= live[SEQUENCE] <= self._high and inside(live[EPOCH], live[SEQUENCE], self._windows))
        ):
            self.kept += 1
            if live[UPDATED] > self.newest:
                self.newest = live[UPDATED]
            return True
        return False


def _without(
    key: str,
    live: Row | None,
    write: LastWrite | None,
    copy: Row,
    damage: str | None,
    source: str | None,
    evidence: Evidence,
) -> Decision:
    """What is done with the key where nothing proves its copy."""
    other = _decide(key, live, write, None, damage, source, evidence)
    memory = copy[DELETED] is None and not _expired(copy, evidence.now) and evidence.good(copy, write)
    if other is None and live is None and memory:
        return False, _entry(key, "absent", UNLOGGED, None, copy, source, None)
    return other


def _decide(
    key: str,
    live: Row | None,
    write: LastWrite | None,
    copy: Row | None,
    damage: str | None,
    source: str | None,
    evidence: Evidence,
) -> Decision:
    logged = _logged(write, evidence)
    copied = (copy[EPOCH], copy[SEQUENCE]) if copy else None
    if live is None or damage is not None:
        return _missing(key, live, write, copy, damage, source, evidence)
    version = (live[EPOCH], live[SEQUENCE])
    out = is_isolated(live)  # an operator took it out of service, and whatever it is lies aside
    distrust = None if out else evidence.distrusted(key, version, write)
    if distrust is None:
        newer_copy = copied is not None and copied > version and copy is not None and evidence.good(copy, write)
        if newer_copy or (logged is not None and logged > version):
            # intact, but a newer version is known to have been acknowledged
            return _missing(key, live, write, copy, "stale", source, evidence)
        if out:
            return None
        if evidence.rewritten(live, write):
            return _missing(key, live, write, copy, REWRITTEN, source, evidence)
        if not _proven(live, version, write, copy, evidence) and not evidence.gap.keeps(key, version):
            distrust = UNLOGGED
    if distrust is not None:
        if live[DELETED] is not None:  # a deletion that nobody vouches for: was there a memory before it?
            return _missing(key, None, write, copy, distrust, source, evidence, live)
        other = copy is not None and copy[CHECKSUM] != live[CHECKSUM] and not is_isolated(copy)
        usable = copy if copy is not None and other and evidence.good(copy, write) else None
        return False, _entry(key, "suspect", distrust, live, usable, source, version)
    if live[DELETED] is not None or _expired(live, evidence.now):
        return None
    return True, None


def _logged(write: LastWrite | None, evidence: Evidence) -> Version | None:
    """The version that the log says the key should have; None when a closed incident has dealt with it."""
    if write is None:
        return None
    version = (write.epoch, write.sequence)
    return None if evidence.settled is not None and version <= evidence.settled else version


def _missing(
    key: str,
    live: Row | None,
    write: LastWrite | None,
    copy: Row | None,
    damage: str | None,
    source: str | None,
    evidence: Evidence,
    doubtful: Row | None = None,
) -> Decision:
    """The key's live row is damaged, stale, absent (or a ``doubtful`` deletion): what should be there, who has it?"""
    logged = _logged(write, evidence)
    if damage == REWRITTEN and write is not None:  # whatever an incident settled, that came later
        logged = (write.epoch, write.sequence)
    copied = (copy[EPOCH], copy[SEQUENCE]) if copy else None
    good_copy = copy if copy is not None and evidence.good(copy, write) else None
    known = [v for v in (logged, copied if good_copy is not None else None) if v is not None]
    if good_copy is not None and is_isolated(good_copy):
        good_copy = None  # says which version there was; an older snapshot may have it
    there = live if doubtful is None else doubtful
    reason = damage or "absent"
    action = evidence.gap.action(key, good_copy, live, doubtful) if logged is None else None
    if action == "absent" and good_copy is not None and _expired(good_copy, evidence.now):
        return None
    if action is not None:
        reason = reason if action == "absent" else f"{reason}; {UNKNOWN}"
        spare = None if action == "expired" else good_copy
        return False, _entry(key, action, reason, there, spare, source, copied if spare is not None else None)
    if not known:
        if live is None:
            return None  # nobody acknowledged a write of this key: it is not missing
        return False, _entry(key, "expired", f"{reason}; no trusted write of it is known", live, None, None, None)
    wanted = max(known)
    if wanted == logged and write is not None and write.operation != "write" and copied != wanted:
        if live is None:
            return None  # deleted, and the log says so
        return False, _entry(key, "expired", f"{reason}; the log says it was deleted", live, None, source, wanted)
    if good_copy is not None and copied == wanted:
        if good_copy[DELETED] is not None:
            if live is None:
                return None
            return False, _entry(key, "expired", f"{reason}; it was deleted", live, good_copy, source, wanted)
        if _expired(good_copy, evidence.now):
            return None if live is None else (False, _entry(key, "expired", reason, live, None, source, wanted))
        return False, _entry(key, "repair", reason, there, good_copy, source, wanted)
    return False, _entry(key, "lost", reason, there, good_copy, source, wanted)


def _proven(live: Row, version: Version, write: LastWrite | None, copy: Row | None, evidence: Evidence) -> bool:
    """The log has the entry with the same digest and the lock, or a verified snapshot has the very same row."""
    if copy is not None and copy[CHECKSUM] == live[CHECKSUM]:
        return not evidence.unexplained(live, write)
    if copy is not None and is_isolated(copy) and copy[: UPDATED + 1] == live[: UPDATED + 1]:
        return evidence.good(copy, write)  # it was isolated when the snapshot was taken, and came back
    entry = evidence.acknowledged.entry(live[KEY], version, write)
    locked = entry is not None and entry.lock is not None
    if locked and entry is not None and entry.digest == live[CHECKSUM]:
        return True
    same_copy = copy is not None and (copy[EPOCH], copy[SEQUENCE]) == version
    return live[KEY_ID] in evidence.rotated_to and (locked or same_copy)


def _expired(row: Row, now: int) -> bool:
    return row[EXPIRES] is not None and row[EXPIRES] <= now


def _entry(
    key: str,
    action: str,
    reason: str | None,
    live: Row | None,
    copy: Row | None,
    source: str | None,
    version: Version | None,
) -> Entry:
    return Entry(
        key,
        action,
        reason or "unknown",
        live[CHECKSUM] if live is not None else None,
        source if copy is not None else None,
        copy[CHECKSUM] if copy is not None else None,
        version[0] if version else None,
        version[1] if version else None,
    )


def _look_deeper(draft: PlanFile, namespace: str, source: Source, evidence: Evidence) -> None:
    """Give keys without a good copy the one of an older snapshot; only the exact version makes it a repair."""
    for entries in draft.unsourced():
        found = source.get_many(namespace, [entry.key for entry in entries])
        writes = draft.writes(list(found))
        better = []
        for entry in entries:
            row, write = found.get(entry.key), writes.get(entry.key)
            if row is None or is_isolated(row) or not evidence.good(row, write) or evidence.unexplained(row, write):
                continue
            if entry.action == "suspect" and row[CHECKSUM] == entry.expected:
                continue  # the suspect record itself, in another backup
            exact = entry.action == "lost" and (row[EPOCH], row[SEQUENCE]) == (entry.epoch, entry.sequence)
            if exact and _expired(row, evidence.now):
                better.append(entry._replace(action="expired"))
                continue
            # a tombstone or an expired record is taken too: nothing older may come back
            action = "repair" if exact else entry.action
            better.append(entry._replace(action=action, source=source.id, digest=row[CHECKSUM]))
        draft.add(better)


def _respect_deletions(
    draft: PlanFile,
    reader: Reader,
    namespace: str,
    sources: t.Mapping[str, Source],
    windows: t.Sequence[Window],
) -> None:
    """An older copy does not come back when the log says that it was deleted before the key was written again."""
    if not draft.older_copies():
        return
    for batch in reader.log(namespace, operations=("delete",)):
        deleted: dict[str, t.Any] = {
            str(e[4]): (e[5], e[6]) for e in batch if e[3] == "delete" and believed(e, windows)
        }
        entries = draft.older_copies(list(deleted))
        for name in {entry.source for entry in entries if entry.source}:
            rows = sources[name].get_many(namespace, [entry.key for entry in entries if entry.source == name])
            draft.add(
                entry._replace(source=None, digest=None)
                for entry in entries
                if entry.key in rows and (rows[entry.key][EPOCH], rows[entry.key][SEQUENCE]) < deleted[entry.key]
            )


def _respect_isolation(draft: PlanFile, reader: Reader, namespace: str, groups: frozenset[str]) -> int:
    """A record that is isolated does not come back because its tombstone is damaged or gone; what is left of that is
    taken away. How many keys need nothing."""
    dropped = 0
    for rows in aside_of(reader, namespace, groups):
        versions = {row[KEY]: (row[EPOCH], row[SEQUENCE]) for row in rows}
        mine = [e for e in draft.get(list(versions)) if (e.epoch or 0, e.sequence or 0) <= versions[e.key]]
        draft.add(
            e._replace(action="expired", reason="the record is isolated; its tombstone is damaged", source=None)
            ._replace(digest=None)
            for e in mine
            if e.expected is not None
        )
        dropped += draft.drop([e.key for e in mine if e.expected is None])
    return dropped
