# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The access log of a SQLite store: appending, importing, pruning.

PRIVATE to the collection.

The store notes which sequences it gave out (``memops_given``), so that a log entry that vanished is noticed.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._codec import log_checksum
from .._model import Claim, LogEntry
from .sqlite_connect import Connected
from .sqlite_schema import WRITES, RecordsSql

PRUNE_IDS = 20_000  # ids that one pruning transaction looks at
READS = "operation IN ('hit', 'miss', 'corrupt', 'expired', 'refused')"


def is_write(entry: t.Sequence[t.Any]) -> bool:
    return entry[3] in ("write", "delete")


def _next_id(con: sqlite3.Connection, sql: RecordsSql) -> int:
    row = con.execute(f"SELECT max(log_id, coalesce((SELECT max(id) FROM {sql.log}), 0)) FROM memops_store").fetchone()
    return int(row[0]) + 1


def append(con: sqlite3.Connection, sql: RecordsSql, entries: t.Iterable[t.Sequence[t.Any]]) -> None:
    """Append entries in LogEntry order; their id and checksum are filled in here."""
    first = _next_id(con, sql)
    con.executemany(
        sql.insert_log, [(first + n, *entry[1:11], log_checksum(entry)) for n, entry in enumerate(entries)]
    )


def note_given(con: sqlite3.Connection, epoch: int, sequences: t.Iterable[int]) -> None:
    """These sequences have log entries now; neighbours join into one range."""
    run: list[int] = []
    for sequence in sorted(sequences):
        if run and sequence == run[1] + 1:
            run[1] = sequence
            continue
        if run and sequence == run[1]:
            continue
        if run:
            _note_run(con, epoch, run[0], run[1])
        run = [sequence, sequence]
    if run:
        _note_run(con, epoch, run[0], run[1])


def _note_run(con: sqlite3.Connection, epoch: int, first: int, last: int) -> None:
    joined = con.execute(
        "UPDATE memops_given SET last = ? WHERE epoch = ? AND first = "
        "(SELECT max(first) FROM memops_given WHERE epoch = ? AND first < ?) AND last = ?",
        (last, epoch, epoch, first, first - 1),
    ).rowcount
    if not joined:
        con.execute("INSERT OR REPLACE INTO memops_given VALUES (?, ?, ?)", (epoch, first, last))


def append_operator(con: sqlite3.Connection, sql: RecordsSql, entries: t.Sequence[t.Sequence[t.Any]]) -> None:
    """Append an operator's entries. A write or delete that is logged already is left out, so that a step that is
    resumed may log again; one that carries a reserved sequence counts as given out from now on."""
    fresh = []
    for entry in entries:
        if is_write(entry) and entry[6] is not None:
            known = con.execute(
                f"SELECT 1 FROM {sql.log} WHERE namespace = ? AND key = ? AND epoch = ? AND sequence = ? AND {WRITES}",
                (entry[2], entry[4], entry[5], entry[6]),
            ).fetchone()
            if known:
                continue
            if reserved(con, entry[5], entry[6]):
                note_given(con, entry[5], [entry[6]])
        fresh.append(entry)
    append(con, sql, fresh)


def reserved(con: sqlite3.Connection, epoch: int, sequence: int) -> bool:
    row = con.execute(
        "SELECT last FROM memops_reserved WHERE epoch = ? AND first <= ? ORDER BY first DESC LIMIT 1", (epoch, sequence)
    ).fetchone()
    return row is not None and sequence <= row[0]


def _unknown(con: sqlite3.Connection, sql: RecordsSql, entries: list[LogEntry]) -> list[LogEntry]:
    """Without those that stand in this log under their own id, as this store's own do: one look at a run of ids costs
    a fraction of looking each entry up by its key. What is left may be known all the same."""
    ids = [entry[0] for entry in entries if entry[0].__class__ is int]
    if not ids or max(ids) - min(ids) > 4 * len(entries):
        return entries
    known = {
        row[0]: row[1:]
        for row in con.execute(
            f"SELECT id, namespace, key, epoch, sequence, operation FROM {sql.log} WHERE id BETWEEN ? AND ?",
            (min(ids), max(ids)),
        )
    }
    return [e for e in entries if known.get(e[0]) != (e[2], e[4], e[5], e[6], e[3])]


class LogKeeping(Connected):
    """The log's part of ``Store``."""

    def append_log(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        if entries:
            with self._transaction() as con:
                append(con, self.sql, entries)

    def log_operation(self, claim: Claim, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        with self._operating(claim) as con:
            append_operator(con, self.sql, entries)

    def import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        log = self.sql.log
        wanted = [e for e in entries if is_write(e) and e[6] is not None and e[2] == claim.namespace]
        with self._operating(claim) as con:
            wanted = _unknown(con, self.sql, wanted)
            first = _next_id(con, self.sql)
            before = con.total_changes
            con.executemany(
                f"INSERT INTO {log} SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 WHERE NOT EXISTS ("
                f"SELECT 1 FROM {log} WHERE namespace = ?3 AND key = ?5 AND epoch = ?6 AND sequence = ?7 AND {WRITES})",
                [(first + n, *entry[1:12]) for n, entry in enumerate(wanted)],
            )
            return con.total_changes - before

    def prune_log(self, before_id: int, writes_through: tuple[int, int]) -> int:
        epoch, sequence = writes_through
        log = self.sql.log
        dropped = 0
        with self._transaction() as con:
            last = _next_id(con, self.sql) - 1
            row = con.execute(f"SELECT min(id) FROM {log}").fetchone()
            low = row[0] if row[0] is not None else last + 1
            con.execute("UPDATE memops_store SET log_id = ? WHERE log_id < ?", (last, last))  # ids are never used twice
            # The floor moves first: an entry under it that a killed run left behind is not missed by anybody.
            con.execute("DELETE FROM memops_given WHERE (epoch, last) <= (?, ?)", (epoch, sequence))
            con.execute(
                "UPDATE memops_given SET first = ? WHERE epoch = ? AND first <= ?", (sequence + 1, epoch, sequence)
            )
            # What applications soft-deleted is kept as long as the log entry of its writing.
            con.execute(
                "DELETE FROM memops_aside WHERE incident = '' AND (epoch, sequence) <= (?, ?)", (epoch, sequence)
            )
        if (epoch, sequence) == (0, 0):  # reads alone: none of them is further on
            last = min(last, before_id - 1)
        while low <= last:
            high = min(low + PRUNE_IDS - 1, last)
            with self._transaction() as con:
                dropped += con.execute(
                    f"DELETE FROM {log} WHERE id BETWEEN ? AND ? AND "
                    f"((id < ? AND {READS}) OR ({WRITES} AND (epoch, sequence) <= (?, ?)))",
                    (low, high, before_id, epoch, sequence),
                ).rowcount
            low = high + 1
        return dropped
