# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading another application's tables in a SQLite file at one point in time.

PRIVATE to the collection. With a write-ahead log a reader is one read transaction, which blocks nobody. Without one an
open read transaction keeps the application from writing. So there a reader looks at a copy: of one namespace's rows, in
temporary tables, or of the whole file where several namespaces or processes have to see the same point; the file is
locked for as long as that takes, and no longer.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t

from .._errors import CannotProceed, NamespaceUnknown, StoreDamaged
from .._layouts.tables import TablesLayout
from .._model import NamespaceState, Row
from .._store_optional import Gap, Links
from .._table_records import namespace_of
from . import checkpoint_parents
from .applications_own import ReaderWithoutLog
from .sqlite_connect import NAMESPACE_COLUMNS, read_identity, sqlite_errors, wall_clock
from .sqlite_schema import ASIDE_COLUMNS
from .tables_sqlite_connect import has_control, nobody, state_of
from .tables_sqlite_copies import copied, opened_copy
from .tables_sqlite_rows import BATCH_BYTES, Records
from .tables_sqlite_sql import HELD, prepared, read_schema
from .tables_sqlite_structure import structure


class TablesReader(ReaderWithoutLog):
    """See _store.Reader. ``copy``: the path of a copy of the file, which somebody else removes."""

    def __init__(self, con: sqlite3.Connection, path: str, layout: TablesLayout, copy: str | None) -> None:
        self._con, self._path, self._layout = con, path, layout
        self._brought: dict[str, int] = {}  # namespace → its generation in the temporary tables
        self._closed = False
        try:
            with sqlite_errors(path):
                prepared(con)
                self._still = copy is not None or con.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
                self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        con = self._con
        con.execute("BEGIN")
        self.identity = read_identity(con) if has_control(con) else nobody(self._layout)
        self._schema = read_schema(con, self._layout, self._path)
        self._records = Records(con, self._schema, self._path)
        self._spaces: dict[str, NamespaceState] = {}
        self.at = wall_clock()
        self._version = con.execute("PRAGMA data_version").fetchone()[0]
        if not self._still:
            con.execute("COMMIT")

    def __enter__(self) -> TablesReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(sqlite3.Error):
                if self._con.in_transaction:
                    self._con.execute("ROLLBACK")
            self._con.close()

    @contextlib.contextmanager
    def _at_once(self) -> t.Iterator[None]:
        """Several looks at one state of the file."""
        with sqlite_errors(self._path):
            if self._con.in_transaction:
                yield
                return
            self._con.execute("BEGIN")
            try:
                yield
            finally:
                with contextlib.suppress(sqlite3.Error):  # an error may have ended it
                    self._con.execute("COMMIT")

    def _stand_still(self) -> None:
        """From here on all is read from a copy of the file, made now."""
        if self._still:
            return
        with sqlite_errors(self._path):
            with copied(self._con, self._path) as copy:
                con = prepared(opened_copy(copy))
            self._con.close()
            self._con, self._still, self._brought = con, True, {}
            self._begin()

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        self._stand_still()
        found: dict[str, NamespaceState] = {}
        with self._at_once():
            rule = self._schema.rule
            for root in self._schema.roots:
                columns = ", ".join(f'CAST("{column}" AS TEXT)' for column in rule.columns) or "1"
                for row in self._con.execute(f"SELECT DISTINCT {columns} FROM {root.plain}"):
                    if None not in row and "" not in row:
                        name = namespace_of(rule, dict(zip(rule.columns, row)))
                        with contextlib.suppress(UnicodeEncodeError):
                            name.encode()
                            found[name] = NamespaceState(name, "serving", 0, None, None, None)
            if has_control(self._con):
                for row in self._con.execute(f"SELECT {NAMESPACE_COLUMNS} FROM memops_namespace"):
                    found[row[0]] = NamespaceState(*row)
        self._spaces.update(found)
        return [found[name] for name in sorted(found)]

    def namespace(self, name: str) -> NamespaceState:
        if name not in self._spaces:
            with sqlite_errors(self._path):
                self._spaces[name] = state_of(self._con, self._schema, name, self._path)
        return self._spaces[name]

    def _where(self, namespace: str, generation: int | None, whole: bool = True) -> tuple[str, int] | None:
        """In which tables a generation lies, and its number there; None for the application's own, unless ``whole``:
        then they are copied first."""
        space = self.namespace(namespace)
        if generation is not None and generation != space.generation:
            with sqlite_errors(self._path):
                known = has_control(self._con) and self._con.execute(
                    "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, namespace)
                ).fetchone()
            if not known:
                raise NamespaceUnknown(
                    f"Namespace {namespace!r:.80} has no generation {generation}.",
                    "name one that the info module lists",
                )
            return "main", generation
        if space.state == "quarantined":
            return "main", space.generation
        if namespace in self._brought:
            return "temp", self._brought[namespace]
        if not whole:
            return None
        if self._brought:  # what else is read has to be of the same point
            self._stand_still()
        with self._at_once():
            again = state_of(self._con, self._schema, namespace, self._path)
            if (again.state, again.generation) != (space.state, space.generation):
                raise CannotProceed(
                    f"Namespace {namespace!r:.80} was made {again.state} while it was read.", "run the command again"
                )
            number = len(self._brought) + 1
            self._records.bring(namespace, number)
        self._brought[namespace] = number
        return "temp", number

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        place = self._where(namespace, generation, whole=False)
        total = 0
        with self._at_once():
            for root in self._schema.roots:
                if place is None:
                    inside, values = root.inside(namespace)
                    key, named = root.key(namespace)
                    query, bound = f"SELECT count({key}) FROM {root.plain} WHERE {inside}", (*named, *values)
                elif place[0] == "main" and not self._has(HELD + root.name):
                    continue
                else:
                    query = f"SELECT count(memops_key) FROM {root.held(place[0])} WHERE memops_generation = ?"
                    bound = (place[1],)
                total += int(self._con.execute(query, bound).fetchone()[0])
        return total

    def _has(self, table: str) -> bool:
        found = self._con.execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", (table,)).fetchone()
        return found is not None

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
        place = self._where(namespace, generation)
        if place is None:
            raise AssertionError(namespace)
        with sqlite_errors(self._path):
            yield from self._records.scan(*place, namespace, after, until, batch, descending)

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        place = self._where(namespace, generation, whole=False)
        fit = [key for key in keys if self._records.place(namespace, key) is not None]
        with self._at_once():
            if place is None:
                return self._records.live(namespace, fit)
            found: dict[str, Row] = {}
            for start in range(0, len(fit), 400):
                part = fit[start : start + 400]
                for rows in self._records.scan(*place, namespace, keys=part):
                    found.update((row[0], row) for row in rows)
            return found

    def gaps(self, namespace: str) -> list[Gap]:
        if "checkpoint-without-parent" not in self._layout.findings:
            return []
        place = self._where(namespace, None)
        root = next(one for one in self._schema.roots if one.root.label == checkpoint_parents.LABEL)
        if place is None or (place[0] == "main" and not self._has(HELD + root.name)):
            return []
        query = checkpoint_parents.parents(root.held(place[0]), f"memops_generation = {place[1]}")
        with self._at_once():
            rows = [row for row in self._con.execute(query) if all(isinstance(one, str) for one in row)]
        return checkpoint_parents.gaps(rows)

    def links(self, row: Row) -> Links | None:
        return checkpoint_parents.links(row) if "checkpoint-without-parent" in self._layout.findings else None

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        place = self._where(namespace, None)
        if place is None:
            raise AssertionError(namespace)
        roots = [root for root in self._schema.roots if place[0] != "main" or self._has(HELD + root.name)]
        if not roots:
            return []
        keys = " UNION ALL ".join(
            f"SELECT memops_key FROM {root.held(place[0])} WHERE memops_generation = {place[1]} AND memops_key > ''"
            for root in roots
        )
        rows = self.count(namespace)
        found: list[str] = []
        with self._at_once():
            for part in range(1, parts):
                row = self._con.execute(
                    f"SELECT memops_key FROM ({keys}) ORDER BY memops_key LIMIT 1 OFFSET ?", (rows * part // parts,)
                ).fetchone()
                if row is not None and row[0] not in found:
                    found.append(row[0])
        return found

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        last = 0
        while has_control(self._con):
            with sqlite_errors(self._path):
                rows: list[t.Any] = []
                size = 0
                cursor = self._con.cursor()
                try:
                    for row in cursor.execute(
                        f"SELECT id, incident, reason, {ASIDE_COLUMNS} FROM memops_aside "
                        "WHERE id > ? AND namespace = ? AND (? IS NULL OR incident = ?) ORDER BY id",
                        (last, namespace, incident, incident),
                    ):
                        rows.append(row)
                        size += len(row[11]) if row[11].__class__ is bytes else 0
                        if len(rows) >= 2000 or size > BATCH_BYTES:
                            break
                finally:
                    cursor.close()
            if not rows:
                return
            last = rows[-1][0]
            yield [(row[1], row[2], row[3:]) for row in rows]

    def moved(self, namespace: str) -> bool:
        """Only single records that were looked up without a copy may have been of several points."""
        if self._still or namespace in self._brought or self.namespace(namespace).state == "quarantined":
            return False
        with sqlite_errors(self._path):
            return bool(self._con.execute("PRAGMA data_version").fetchone()[0] != self._version)

    # --- structure ----------------------------------------------------------------------------------------------
    def structure(self) -> list[str]:
        self._stand_still()
        try:
            with sqlite_errors(self._path):
                return structure(self._con, self._schema)
        except StoreDamaged as exc:  # all else says nothing about the store
            return [exc.message]


def open_reader(path: str, layout: TablesLayout, con: sqlite3.Connection, point: str | None) -> TablesReader:
    """``point``: what ``point()`` gave, the path of a copy or nothing but a word."""
    if point is not None and os.path.isabs(point):
        con.close()
        with sqlite_errors(path):
            return TablesReader(opened_copy(point), path, layout, point)
    return TablesReader(con, path, layout, None)
