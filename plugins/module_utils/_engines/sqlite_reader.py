# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading a SQLite store at one point in time.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from functools import partial
from itertools import islice
from operator import itemgetter

from .._codec import log_checksum
from .._errors import CannotProceed, NamespaceUnknown, StoreDamaged
from .._log_parts import LogPart
from .._model import LastWrite, LogEntry, NamespaceState, Row
from .._store import Checked
from .sqlite_connect import (
    NAMESPACE_COLUMNS,
    decoding_leniently,
    lenient,
    read_identity,
    read_namespace,
    sqlite_errors,
    translate,
    wall_clock,
)
from .sqlite_log_parts import log_parts
from .sqlite_schema import ASIDE_COLUMNS, LOG_COLUMNS, WRITES, RecordsSql
from .sqlite_structure import structure

BATCH_BYTES = 8 << 20
KEYS_PER_QUERY = 400
STEP = 100  # rows that are fetched before their bytes are counted
SMALL_ROW = 64 << 10  # bytes; with rows above this on average they are counted one by one
ENOUGH_SAMPLES = 32  # for each part; fewer, and counting is fast anyway
# what the NamedTuples' own _make does, without a Python call for each row
_log_entry: t.Callable[[Row], LogEntry] = partial(tuple.__new__, LogEntry)
_last_write: t.Callable[[Row], LastWrite] = partial(tuple.__new__, LastWrite)


def _encodable(text: t.Any) -> bool:
    if text.__class__ is not str:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes_in(rows: t.Sequence[Row], start: int, column: int) -> int:
    try:
        return sum(map(len, map(itemgetter(column), islice(rows, start, None))))
    except TypeError:  # damaged
        return sum([len(row[column]) for row in islice(rows, start, None) if hasattr(row[column], "__len__")])


class SqliteReader:
    """A read transaction on a connection of its own. ``release`` gets the connection back when it is closed."""

    def __init__(
        self,
        con: sqlite3.Connection,
        path: str,
        sql: RecordsSql,
        point: str | None,
        release: t.Callable[[sqlite3.Connection], None],
    ) -> None:
        self._con, self._path, self._sql, self._release = con, path, sql, release
        self._closed = False
        self._cursors: set[sqlite3.Cursor] = set()
        try:
            with sqlite_errors(path):
                con.execute("BEGIN")
                self.identity = read_identity(con)  # BEGIN alone does not start reading
                if point is not None and point != read_point(con):
                    raise CannotProceed(
                        f"The point {point} of the store {path} has passed.", "start the snapshot again"
                    )
        except BaseException:
            self.close()
            raise
        self.at = wall_clock()

    def __enter__(self) -> SqliteReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for cursor in list(self._cursors):
                cursor.close()
            self._con.text_factory = str
            self._release(self._con)

    @contextlib.contextmanager
    def _query(self, sql: str, values: t.Sequence[t.Any]) -> t.Iterator[sqlite3.Cursor]:
        """A cursor that is closed in any case: one that is left half read keeps the read transaction open."""
        cursor = self._con.cursor()
        self._cursors.add(cursor)
        try:
            yield cursor.execute(sql, values)
        finally:
            self._cursors.discard(cursor)
            cursor.close()

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        with sqlite_errors(self._path):
            rows = self._con.execute(f"SELECT {NAMESPACE_COLUMNS} FROM memops_namespace ORDER BY name").fetchall()
        return [NamespaceState(*row) for row in rows]

    def namespace(self, name: str) -> NamespaceState:
        with sqlite_errors(self._path):
            return read_namespace(self._con, name, self._path)

    def _generation(self, namespace: str, generation: int | None) -> int:
        active = self.namespace(namespace).generation
        if generation is None or generation == active:
            return active
        with sqlite_errors(self._path):
            row = self._con.execute(
                "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, namespace)
            ).fetchone()
        if row is None:
            raise NamespaceUnknown(
                f"Namespace {namespace!r:.80} has no generation {generation}.", "name one that the info module lists"
            )
        return generation

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        number = self._generation(namespace, generation)
        with sqlite_errors(self._path):
            sql = f"SELECT count(*) FROM {self._sql.table} WHERE {self._sql.generation} = ?"
            return int(self._con.execute(sql, (number,)).fetchone()[0])

    def scan(
        self,
        namespace: str,
        *,
        after: str | None = None,
        until: str | None = None,
        generation: int | None = None,
        batch: int = 2000,
        descending: bool = False,
    ) -> t.Iterator[list[Row]]:
        s = self._sql
        number = self._generation(namespace, generation)
        # Keys that are no text any more (damage) lie outside the order of keys; ``structure`` reports them. The sign
        # keeps SQLite from taking this, and not ``until``, for the end of the range: it would read on to the end.
        fixed = f"SELECT {s.columns} FROM {s.table} WHERE {s.generation} = ? AND +{s.key} < x''"
        return self._by_key(fixed, [number], s.key, after, until, batch, descending, payload=8)

    def _by_key(
        self,
        fixed: str,
        fixed_values: list[t.Any],
        key: str,
        after: str | None,
        until: str | None,
        batch: int,
        descending: bool = False,
        order: str = "",
        payload: int | None = None,
    ) -> t.Iterator[list[Row]]:
        """Stream rows whose first column is a key. A key that is no valid UTF-8 makes the driver fail in the middle:
        the query starts again behind the last good row, decoding leniently, and leaves such rows out."""
        bounds = [(f"{key} > ?", after)] if after is not None else []
        bounds += [(f"{key} <= ?", until)] if until is not None else []
        while True:
            sql = " AND ".join([fixed, *(text for text, dummy in bounds)])
            sql += f" ORDER BY {key}{' DESC' if descending else ''}{order}"
            rows: list[Row] = []
            size = 0
            last: Row | None = None
            try:
                with self._query(sql, [*fixed_values, *(value for dummy, value in bounds)]) as cursor:
                    step = 1  # rows that are read before their size is looked at; grows while they are small
                    while True:
                        seen = len(rows)
                        rows.extend(islice(cursor, min(step, batch - seen)))  # keeps what came before an error
                        if len(rows) == seen:
                            break
                        if payload is not None:
                            came = _bytes_in(rows, seen, payload)
                            size += came
                            small = came < SMALL_ROW * (len(rows) - seen)
                            step = min(2 * step, STEP) if small else 1
                        else:
                            step = STEP
                        if len(rows) >= batch or size > BATCH_BYTES:
                            last = rows[-1]
                            yield self._readable(rows)
                            rows, size = [], 0
                if rows:
                    yield self._readable(rows)
                return
            except sqlite3.Error as exc:
                if rows:  # what was read before the damaged place is good
                    last = rows[-1]
                    yield self._readable(rows)
                if not self._grow_lenient(exc):
                    raise translate(exc, self._path) from exc
            if last is not None:
                # In an order finer than the key, rows of the last key may be half delivered: deliver that key again.
                side = "<" if descending else ">"
                bounds.append((f"{key} {side}{'=' if order else ''} ?", last[0]))

    def _grow_lenient(self, exc: sqlite3.Error) -> bool:
        """Whether the driver gave up on a text that is no UTF-8; from now on this reader decodes leniently."""
        if self._con.text_factory is not str or "decode" not in str(exc):
            return False
        self._con.text_factory = lenient
        return True

    def _readable(self, rows: list[Row]) -> list[Row]:
        if self._con.text_factory is str:
            return rows
        return [row for row in rows if _encodable(row[0])]

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        number = self._generation(namespace, generation)
        with sqlite_errors(self._path):
            return rows_of(self._con, self._sql, number, keys)

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        number = self._generation(namespace, None)
        s = self._sql
        with sqlite_errors(self._path):
            sampled = self._con.execute(
                "SELECT count(*) FROM memops_sample WHERE generation = ?", (number,)
            ).fetchone()[0]
            if sampled >= ENOUGH_SAMPLES * parts:
                rows, table, generation, key = sampled, "memops_sample", "generation", "key"
            else:
                rows, table, generation, key = self.count(namespace), s.table, s.generation, s.key
            found: list[str] = []
            passed = 0
            for part in range(1, parts):
                skip = rows * part // parts - passed  # on from the cut before: all of them cost one pass
                if skip > 0:
                    after = found[-1] if found else ""
                    row = self._con.execute(
                        f"SELECT {key} FROM {table} WHERE {generation} = ? AND {key} > ? ORDER BY {key} "
                        "LIMIT 1 OFFSET ?",
                        (number, after, skip - 1),
                    ).fetchone()
                    if row is None:
                        break
                    found.append(row[0])
                    passed += skip
        return found

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        last = 0
        while True:
            with sqlite_errors(self._path):
                self._con.text_factory = lenient
                rows: list[t.Any] = []
                size = 0
                with self._query(
                    f"SELECT id, incident, reason, {ASIDE_COLUMNS} FROM memops_aside "
                    "WHERE id > ? AND namespace = ? AND (? IS NULL OR incident = ?) ORDER BY id",
                    (last, namespace, incident, incident),
                ) as cursor:
                    for row in cursor:
                        rows.append(row)
                        size += len(row[11]) if row[11].__class__ is bytes else 0
                        if len(rows) >= 2000 or size > BATCH_BYTES:
                            break
            if not rows:
                return
            last = rows[-1][0]
            yield [(row[1], row[2], row[3:]) for row in rows]

    # --- log ----------------------------------------------------------------------------------------------------
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

    def log_parts(self, after_id: int, until_id: int) -> t.Iterator[LogPart | list[Row]]:
        """What ``log_rows`` gives, put together by SQLite where it can be."""
        with sqlite_errors(self._path):
            yield from log_parts(self._con, self._sql.log, after_id, until_id, self.log_rows)

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

    # --- structure ----------------------------------------------------------------------------------------------
    def structure(self) -> list[str]:
        try:
            return structure(self._con, self._sql, self._path)
        except StoreDamaged as exc:  # all else says nothing about the store
            return [exc.message]

    def moved(self, namespace: str) -> bool:
        return False


def read_point(con: sqlite3.Connection) -> str:
    """A word for the state of the store; every transaction that changes something changes it."""
    row = con.execute("SELECT store_id, commits FROM memops_store").fetchone()
    return f"{row[0]}:{row[1]}"


def rows_of(con: sqlite3.Connection, sql: RecordsSql, generation: int, keys: t.Sequence[str]) -> dict[str, Row]:
    """The rows of these keys. Text that no key can be (surrogates from a damaged log) has no row."""
    found: dict[str, Row] = {}
    wanted = [key for key in keys if _encodable(key)]
    with decoding_leniently(con):
        for start in range(0, len(wanted), KEYS_PER_QUERY):
            part = wanted[start : start + KEYS_PER_QUERY]
            for row in con.execute(
                f"SELECT {sql.columns} FROM {sql.table} WHERE {sql.generation} = ? "
                f"AND {sql.key} IN ({', '.join('?' * len(part))})",
                (generation, *part),
            ):
                found[row[0]] = row
    return found
