# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A SQLite file whose tables are another application's own: the layouts of tables.

PRIVATE to the collection. Incidents, leases and claims are those of the native layout, by the same code.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import CannotProceed
from .._layouts.tables import TablesLayout
from .._model import IncidentState, Row, StoreIdentity
from .._table_moved import Wide, widened
from .._table_records import Cell
from .._table_values import sqlite_cell
from .applications_own import WithoutLog
from .leases import busy_timeout
from .sqlite import _look, _path
from .sqlite_connect import connect, sqlite_errors
from .sqlite_incidents import Incidents
from .tables_sqlite_connect import has_control
from .tables_sqlite_copies import copied
from .tables_sqlite_fence import TablesFence
from .tables_sqlite_generations import TablesGenerations
from .tables_sqlite_reader import TablesReader, open_reader
from .tables_sqlite_search import TablesSearch
from .tables_sqlite_sql import name as identifier
from .tables_sqlite_structure import TablesStructure

CAPABILITIES = frozenset(("expiry", "fence-reads", "fence-raw-reads", "fence-writes", "generations", "search"))


class TablesSqliteStore(WithoutLog, TablesSearch, TablesFence, TablesGenerations, TablesStructure, Incidents):
    """See _store.Store. One connection writes; every reader has a connection of its own."""

    @classmethod
    def open(
        cls, params: t.Mapping[str, t.Any], layout: TablesLayout, *, create: bool = False
    ) -> TablesSqliteStore:
        """The application makes its tables itself, whatever ``create``."""
        path, seconds = _path(params), busy_timeout(params)
        _look(path, "let the application make its tables there first")
        with sqlite_errors(path):
            store = cls(path, layout, seconds)
            store.application = params
            try:
                store.schema(store._con)
                if has_control(store._con):
                    store._recognise(store._con)
            except BaseException:
                store.close()
                raise
        return store

    def layout_name(self) -> str:
        return self.layout.name

    def capabilities(self) -> frozenset[str]:
        return CAPABILITIES & self.layout.capabilities

    def identity(self) -> StoreIdentity:
        with sqlite_errors(self.path):
            return self.identity_of(self._con)

    def reader(self, point: str | None = None) -> TablesReader:
        with sqlite_errors(self.path):
            con = connect(self.path, self.busy_timeout)
        return open_reader(self.path, self.layout, con, point)

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        with sqlite_errors(self.path):
            if self._con.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                with copied(self._con, self.path) as copy:  # pylint: disable=contextmanager-generator-missing-cleanup
                    yield copy
                return
            self._con.execute("BEGIN IMMEDIATE")  # nobody writes while the readers begin
            try:
                yield "now"
            finally:
                self._con.execute("ROLLBACK")

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        with sqlite_errors(self.path):
            if not has_control(self._con):
                return []
        return super().incidents(namespace)

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        with sqlite_errors(self.path):
            if has_control(self._con) and self._con.execute(
                "SELECT 1 FROM memops_namespace WHERE name = ?", (name,)
            ).fetchone():
                return False
        with self._transaction() as con:
            if con.execute("SELECT 1 FROM memops_namespace WHERE name = ?", (name,)).fetchone():
                return False
            self._make_namespace(con, name, state)
        return True

    def with_todays_columns(self, namespace: str, rows: t.Sequence[Row]) -> list[Row]:
        """The rows with the defaults of columns that came since they were saved. Errors: CannotProceed."""
        with sqlite_errors(self.path):
            tables = self.schema(self._con).tables
        today = {
            table.name: Wide(
                tuple((column.name, column.kind) for column in table.columns), self._default_of(table.name)
            )
            for table in tables
        }
        return [widened(row, "sqlite", namespace, today) for row in rows]

    def _default_of(self, table: str) -> t.Callable[[str], Cell]:
        def default(column: str) -> Cell:
            with sqlite_errors(self.path):
                listed = self._con.execute(f"PRAGMA main.table_info({identifier(table)})").fetchall()
            kind, needed, text = next((row[2], row[3], row[4]) for row in listed if row[1] == column)
            if text is None and needed:
                raise CannotProceed(
                    f"The table {table} in {self.path} has a column {column} since, which is never empty and has no "
                    "default.",
                    "use the version of the application that the snapshot is from, restore, then let it migrate",
                )
            if text is None:
                return None
            with contextlib.closing(sqlite3.connect(":memory:")) as scratch:  # with the column's own affinity
                scratch.execute(f"CREATE TABLE one ({identifier(column)} {kind} DEFAULT ({text}))")
                scratch.execute("INSERT INTO one DEFAULT VALUES")
                return sqlite_cell(scratch.execute("SELECT * FROM one").fetchone()[0])

        return default

    def settle(self) -> None:
        """Every commit is on the disk already."""

    def close(self) -> None:
        self._con.close()
