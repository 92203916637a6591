# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading a SQLite store at one point in time.

PRIVATE to the collection.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._codec import encodable
from .._errors import CannotProceed, NamespaceUnknown, StoreDamaged
from .._model import NamespaceState, Row
from .sqlite_connect import (
    NAMESPACE_COLUMNS,
    decoding_leniently,
    lenient,
    read_identity,
    read_namespace,
    sqlite_errors,
    wall_clock,
)
from .sqlite_control import refuse_astray
from .sqlite_log_reader import LogQueries
from .sqlite_queries import BATCH_BYTES
from .sqlite_schema import ASIDE_COLUMNS, RecordsSql
from .sqlite_structure import structure

KEYS_PER_QUERY = 400
ENOUGH_SAMPLES = 32  # for each part; fewer, and counting is fast anyway


class SqliteReader(LogQueries):
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

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        """Errors: NamespaceDamaged: a list without such a namespace would be taken for all there are."""
        with sqlite_errors(self._path):
            refuse_astray(self._con, self._sql)
            rows = self._con.execute(f"SELECT {NAMESPACE_COLUMNS} FROM memops_namespace ORDER BY name").fetchall()
        return [NamespaceState(*row) for row in rows]

    def namespace(self, name: str) -> NamespaceState:
        with sqlite_errors(self._path):
            refuse_astray(self._con, self._sql, name)
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
    wanted = [key for key in keys if encodable(key)]
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
