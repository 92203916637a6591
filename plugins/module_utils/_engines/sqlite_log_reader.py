# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading the access log of a SQLite store.

PRIVATE to the collection. ``sqlite_log.py`` writes it.
"""
from __future__ import annotations

import sqlite3
import typing as t
from functools import partial
from itertools import islice

from .._codec import log_checksum
from .._log_parts import LogPart
from .._model import LastWrite, LogEntry, Row, StoreIdentity
from .._store import Checked
from .sqlite_connect import sqlite_errors, translate
from .sqlite_log_parts import log_parts
from .sqlite_queries import Queries
from .sqlite_schema import LOG_COLUMNS, WRITES, RecordsSql

# what the NamedTuples' own _make does, without a Python call for each row
_log_entry: t.Callable[[Row], LogEntry] = partial(tuple.__new__, LogEntry)
_last_write: t.Callable[[Row], LastWrite] = partial(tuple.__new__, LastWrite)


class LogQueries(Queries):
    """The part of ``Reader`` that reads the log."""

    identity: StoreIdentity
    _sql: RecordsSql

    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        where = "id > ?" if namespace is None else "id > ? AND namespace = ?"
        values = [] if namespace is None else [namespace]
        if operations is not None:
            where += f" AND operation IN ({', '.join('?' * len(operations))})"
            values += operations
        while True:
            rows: list[Row] = []
            try:
                with self._query(
                    f"SELECT {LOG_COLUMNS} FROM {self._sql.log} WHERE {where} ORDER BY id",
                    (after_id, *values),
                ) as cursor:
                    while True:
                        rows = []
                        rows.extend(islice(cursor, batch))  # unlike fetchmany it keeps what came before an error
                        if not rows:
                            return
                        after_id = rows[-1][0]
                        yield list(map(_log_entry, rows))
            except sqlite3.Error as exc:
                if rows:
                    after_id = rows[-1][0]
                    yield list(map(_log_entry, rows))
                if not self._grow_lenient(exc):
                    raise translate(exc, self._path) from exc

    def log_rows(self, after_id: int, until_id: int, batch: int = 1000) -> t.Iterator[list[Row]]:
        """The entries with after_id < id <= until_id as plain tuples: to copy the log, not to look into it."""
        while True:
            rows: list[Row] = []
            try:
                with self._query(
                    f"SELECT {LOG_COLUMNS} FROM {self._sql.log} WHERE id > ? AND id <= ? ORDER BY id",
                    (after_id, until_id),
                ) as cursor:
                    while True:
                        rows = []
                        rows.extend(islice(cursor, batch))
                        if not rows:
                            return
                        after_id = rows[-1][0]
                        yield rows
            except sqlite3.Error as exc:
                if rows:
                    after_id = rows[-1][0]
                    yield rows
                if not self._grow_lenient(exc):
                    raise translate(exc, self._path) from exc

    def log_parts(self, after_id: int, until_id: int, *, compared: bool = False) -> t.Iterator[LogPart | list[Row]]:
        """What ``log_rows`` gives, put together by SQLite where it can be."""
        with sqlite_errors(self._path):
            yield from log_parts(self._con, self._sql.log, after_id, until_id, self.log_rows, compared=compared)

    def log_count(self, after_id: int, until_id: int) -> int:
        """How many entries ``log_rows`` would give."""
        sql = f"SELECT count(*) FROM {self._sql.log} WHERE id > ? AND id <= ?"
        with sqlite_errors(self._path):
            return int(self._con.execute(sql, (after_id, until_id)).fetchone()[0])

    def log_end(self) -> int:
        """The highest id; 0 when the log is empty."""
        with sqlite_errors(self._path):
            return int(self._con.execute(f"SELECT coalesce(max(id), 0) FROM {self._sql.log}").fetchone()[0])

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        fixed = (
            f"SELECT key, epoch, sequence, operation, digest, lock, actor, at FROM {self._sql.log} "
            f"WHERE namespace = ? AND {WRITES}"
        )
        newest: Row | None = None
        out: list[LastWrite] = []
        for rows in self._by_key(fixed, [namespace], "key", after, until, batch, order=", epoch, sequence"):
            if newest is not None:
                rows = [newest, *rows]
            out += [_last_write(row) for row, after_it in zip(rows, rows[1:]) if row[0] != after_it[0]]
            newest = rows[-1] if rows else None
            if len(out) >= batch:
                yield out
                out = []
        if newest is not None:
            out.append(_last_write(newest))
        if out:
            yield out

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        entries = corrupt = 0
        for rows in self.log():
            sound = [log_checksum(entry) == entry[11] for entry in rows]
            entries += len(rows)
            corrupt += sound.count(False)
            if each is not None:
                each(rows, sound)
        log = self._sql.log
        with sqlite_errors(self._path):
            con = self._con
            given = con.execute("SELECT coalesce(sum(last - first + 1), 0) FROM memops_given").fetchone()[0]
            present = con.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT l.epoch, l.sequence FROM {log} l WHERE l.{WRITES} "
                "AND l.sequence <= (SELECT g.last FROM memops_given g WHERE g.epoch = l.epoch "
                "AND g.first <= l.sequence ORDER BY g.first DESC LIMIT 1))"
            ).fetchone()[0]
            ends = [
                con.execute(
                    f"SELECT sequence FROM {log} WHERE {WRITES} ORDER BY epoch {way}, sequence {way} LIMIT 1"
                ).fetchone()
                for way in ("ASC", "DESC")
            ]
            first = con.execute("SELECT epoch, first - 1 FROM memops_given ORDER BY epoch, first LIMIT 1").fetchone()
        missing = given - present
        return {
            "entries": entries,
            "corrupt": corrupt,
            "missing": missing,
            "first_sequence": ends[0][0] if ends[0] else 0,
            "last_sequence": ends[1][0] if ends[1] else 0,
            "intact": not corrupt and not missing,
            "pruned": first or (self.identity.epoch, self.identity.sequence),
        }
