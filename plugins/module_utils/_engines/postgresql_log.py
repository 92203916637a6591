# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The access log of a PostgreSQL store: appending, importing, pruning.

PRIVATE to the collection.

The store notes which sequences it gave out (``memops_given``), so that a log entry that vanished is noticed.
"""
from __future__ import annotations

import operator
import typing as t

from .._codec import log_checksum
from .._model import Claim, LogEntry
from .postgresql_arrays import Blobs, Ints, Texts
from .postgresql_connect import Connected
from .postgresql_copying import ENTRY_COLUMNS, entries_under, entry_bodies
from .postgresql_rows import escaped, split_all
from .postgresql_schema import WRITES, RecordsSql
from .postgresql_session import BAD_VALUE, Session, bad_record

PRUNE_IDS = 20_000  # ids that one pruning transaction looks at
READS = "operation IN ('hit', 'miss', 'corrupt', 'expired', 'refused')"
Entry = t.Sequence[t.Any]


def is_write(entry: Entry) -> bool:
    return entry[3] in ("write", "delete")


def next_ids(session: Session, s: RecordsSql, count: int) -> int:
    """The first of ``count`` log ids. They are given out in the order of commits: the store's row is held."""
    row = session.row(f"UPDATE {s.store} SET log_id = log_id + %s RETURNING log_id", count)
    return int(row[0]) - count + 1


def insert_entries(session: Session, s: RecordsSql, first: int, entries: t.Sequence[Entry], where: str) -> None:
    """Insert entries in LogEntry order under ids from ``first``; an empty checksum is computed here."""
    if not entries:
        return
    try:
        at, namespace, operation, key, epoch, sequence, digest, lock, actor, reason, checksum = list(zip(*entries))[1:]
        keys = [escaped(k) for k in key]
        heads, rests = split_all([k or b"" for k in keys])[:2]
        columns = (
            Ints(range(first, first + len(entries))), Ints(at), Ints(epoch), Ints(sequence), Ints(lock),
            Blobs([escaped(n) for n in namespace]), Texts(operation),
            Blobs([head if k is not None else None for head, k in zip(heads, keys)]), Blobs([r or None for r in rests]),
            Blobs(digest), Blobs([escaped(a) for a in actor]), Blobs([escaped(r) for r in reason]),
            Blobs([c or log_checksum(e) for c, e in zip(checksum, entries)]),
        )  # fmt: skip
    except BAD_VALUE as exc:
        raise bad_record(where, exc) from None
    session.run(
        f"INSERT INTO {s.log} (id, at, epoch, sequence, lock, namespace, operation, key, key_rest, digest, actor, "
        f"reason, checksum) SELECT * FROM unnest({', '.join(['%s'] * 13)})",
        *columns,
    )


def append(session: Session, s: RecordsSql, entries: t.Sequence[Entry], where: str) -> None:
    """Append entries; their id and checksum are filled in here."""
    if entries:
        bare = [(*entry[:11], b"") for entry in entries]
        insert_entries(session, s, next_ids(session, s, len(bare)), bare, where)


def note_given(session: Session, s: RecordsSql, epoch: int, sequences: t.Iterable[int]) -> None:
    """These sequences have log entries now; neighbours join into one range. The store's row is held."""
    runs: list[list[int]] = []
    for sequence in sorted(set(sequences)):
        if runs and sequence == runs[-1][1] + 1:
            runs[-1][1] = sequence
        else:
            runs.append([sequence, sequence])
    for first, last in runs:
        joined = session.run(
            f"UPDATE {s.given} SET last = %s WHERE epoch = %s AND first = "
            f"(SELECT max(first) FROM {s.given} WHERE epoch = %s AND first < %s) AND last = %s",
            last, epoch, epoch, first, first - 1,
        )  # fmt: skip
        if not joined:
            session.run(
                f"INSERT INTO {s.given} VALUES (%s, %s, %s) "
                "ON CONFLICT (epoch, first) DO UPDATE SET last = excluded.last",
                epoch, first, last,
            )  # fmt: skip


def logged(session: Session, s: RecordsSql, entries: t.Sequence[Entry]) -> set[tuple[t.Any, ...]]:
    """(namespace, key, epoch, sequence) of those writes and deletes among these that the log has already."""
    if not entries:
        return set()
    heads, rests = split_all([escaped(e[4]) or b"" for e in entries])[:2]
    found = session.rows(
        "SELECT w.number FROM unnest(%s, %s, %s, %s, %s) WITH ORDINALITY "
        f"AS w(namespace, key, rest, epoch, sequence, number) CROSS JOIN LATERAL (SELECT 1 FROM {s.log} l "
        f"WHERE l.namespace = w.namespace AND l.key = w.key AND l.epoch = w.epoch AND l.sequence = w.sequence "
        f"AND coalesce(l.key_rest, '') = w.rest AND l.{WRITES} LIMIT 1) AS found",
        Blobs([escaped(e[2]) for e in entries]), Blobs(heads), Blobs(rests), Ints([e[5] for e in entries]),
        Ints([e[6] for e in entries]),
    )  # fmt: skip
    return {(e[2], e[4], e[5], e[6]) for e in (entries[int(number) - 1] for (number,) in found)}


def _fresh(
    session: Session, s: RecordsSql, entries: t.Sequence[Entry], known: set[tuple[t.Any, ...]] | None = None
) -> list[Entry]:
    """Without the writes and deletes that the log has (``known``, if the caller can tell), or that come twice."""
    if known is None:
        known = logged(session, s, [e for e in entries if is_write(e) and e[6] is not None])
    fresh = []
    for entry in entries:
        if is_write(entry) and entry[6] is not None:
            name = (entry[2], entry[4], entry[5], entry[6])
            if name in known:
                continue
            known.add(name)
        fresh.append(entry)
    return fresh


def append_operator(session: Session, s: RecordsSql, entries: t.Sequence[Entry], where: str) -> None:
    """Append an operator's entries. A write or delete that is logged already is left out, so that a step that is
    resumed may log again; one that carries a reserved sequence counts as given out from now on."""
    fresh = _fresh(session, s, entries)
    append(session, s, fresh, where)  # holds the store's row
    pairs = [(e[5], e[6]) for e in fresh if is_write(e) and e[6] is not None]
    by_epoch: dict[int, list[int]] = {}
    for epoch, sequence in reserved(session, s, pairs):
        by_epoch.setdefault(epoch, []).append(sequence)
    for epoch, sequences in by_epoch.items():
        note_given(session, s, epoch, sequences)


def reserved(session: Session, s: RecordsSql, pairs: t.Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those (epoch, sequence) pairs that an operator took."""
    if not pairs:
        return set()
    rows = session.rows(
        f"SELECT w.epoch, w.sequence FROM unnest(%s, %s) AS w(epoch, sequence) WHERE EXISTS "
        f"(SELECT 1 FROM {s.reserved} r WHERE r.epoch = w.epoch AND w.sequence BETWEEN r.first AND r.last)",
        Ints([epoch for epoch, dummy in pairs]), Ints([sequence for dummy, sequence in pairs]),
    )  # fmt: skip
    return {(row[0], row[1]) for row in rows}


class LogKeeping(Connected):
    """The log's part of ``Store``."""

    def append_log(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        if entries:
            with self._transaction() as session:
                append(session, self.sql, entries, self.path)

    def log_operation(self, claim: Claim, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        with self._operating(claim) as session:
            append_operator(session, self.sql, entries, self.path)

    def import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        wanted = [e for e in entries if e[3] in ("write", "delete") and e[6] is not None and e[2] == claim.namespace]
        try:
            bodies = entry_bodies(wanted)  # before the store's row is held
        except BAD_VALUE as exc:
            raise bad_record(self.path, exc) from None
        places = [(e[5] or 0, e[6] or 0) for e in wanted]
        ascending = all(map(operator.lt, places, places[1:]))
        with self._operating(claim) as session:
            newest = self._newest_logged(session, claim.namespace)
            later = newest is not None and (not places or min(places) > newest)
            fresh: t.Sequence[Entry] = wanted
            if not (later and ascending):
                fresh = _fresh(session, self.sql, wanted, set() if later else None)
                there = {id(entry) for entry in fresh}
                bodies = [body for entry, body in zip(wanted, bodies) if id(entry) in there]
            first = next_ids(session, self.sql, len(bodies))
            if bodies:
                session.copy(
                    f"COPY {self.sql.log} ({ENTRY_COLUMNS}) FROM STDIN (FORMAT binary)", entries_under(first, bodies)
                )
        last = first + len(bodies) - 1
        self._imported = None if newest is None else (claim.namespace, last, max([newest, *places]))
        return len(bodies)

    def _newest_logged(self, session: Session, namespace: str) -> tuple[int, int] | None:
        """Where all logged writes of the namespace end, if that is known at once: there are none, or this object
        imported them and nothing was logged since. It saves a look for each entry that fills an empty store."""
        s = self.sql
        last = next_ids(session, s, 0) - 1  # holds the store's row: nobody logs anything until this ends
        if self._imported is not None and self._imported[:2] == (namespace, last):
            return self._imported[2]
        there = session.row(
            f"SELECT 1 FROM {s.log} WHERE namespace = %s AND {WRITES} ORDER BY key LIMIT 1", escaped(namespace)
        )
        return None if there else (-1, -1)

    def prune_log(self, before_id: int, writes_through: tuple[int, int]) -> int:
        epoch, sequence = writes_through
        s = self.sql
        dropped = 0
        with self._transaction() as session:
            last = next_ids(session, s, 0) - 1
            low = session.row(f"SELECT coalesce(min(id), %s) FROM {s.log}", last + 1)[0]
            # The floor moves first: an entry under it that a killed run left behind is not missed by anybody.
            session.run(f"DELETE FROM {s.given} WHERE (epoch, last) <= (%s::bigint, %s::bigint)", epoch, sequence)
            session.run(
                f"UPDATE {s.given} SET first = %s WHERE epoch = %s AND first <= %s", sequence + 1, epoch, sequence
            )
            # What applications soft-deleted is kept as long as the log entry of its writing.
            session.run(
                f"DELETE FROM {s.aside} WHERE incident = '' AND (epoch, sequence) <= (%s::bigint, %s::bigint)",
                epoch, sequence,
            )  # fmt: skip
        if (epoch, sequence) == (0, 0):  # reads alone: none of them is further on
            last = min(last, before_id - 1)
        while low <= last:
            high = min(low + PRUNE_IDS - 1, last)
            with self._transaction() as session:
                dropped += session.run(
                    f"DELETE FROM {s.log} WHERE id BETWEEN %s AND %s AND "
                    f"((id < %s AND {READS}) OR ({WRITES} AND (epoch, sequence) <= (%s::bigint, %s::bigint)))",
                    low, high, before_id, epoch, sequence,
                )  # fmt: skip
            low = high + 1
        return dropped
