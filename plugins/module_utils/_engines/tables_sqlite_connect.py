# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A SQLite file with another application's tables: its control tables, and what all parts do with it.

PRIVATE to the collection. The control tables lie in the same file, since only there a namespace's rows and the note
that they were taken away change in one transaction whatever the journal mode, and since triggers see no other file.
They are made with the first thing that an operator changes; all names begin with ``memops_``.
"""
from __future__ import annotations

import contextlib
import shlex
import sqlite3
import typing as t
import uuid

from .._errors import CannotProceed, NamespaceUnknown, StoreDamaged
from .._extra_vars import run
from .._layouts.tables import TablesLayout
from .._model import NamespaceState, StoreIdentity
from .._table_records import overlap
from .sqlite_connect import RESTORE, Opened, read_identity, read_namespace
from .sqlite_schema import CONTROL_TABLES, FORMAT
from .store_kind import check_kind
from .tables_sqlite_rows import Records
from .tables_sqlite_sql import HELD, PARTS, Schema, Table, holds, name, parts_of, prepared, read_schema
from .tables_sqlite_triggers import suspended

OWN_TABLES: t.Final = ("memops_store", "memops_namespace", "memops_generation", "memops_incident", "memops_aside")
FENCE_TABLE: t.Final = (
    "CREATE TABLE memops_fence (name TEXT NOT NULL PRIMARY KEY, "
    + ", ".join(f"part{place} TEXT" for place in range(PARTS))
    + ")"
)


def control_tables() -> dict[str, str]:
    return {**{one: CONTROL_TABLES[one] for one in OWN_TABLES}, "memops_fence": FENCE_TABLE}


def has_control(con: sqlite3.Connection) -> bool:
    return con.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'memops_store'").fetchone() is not None


def nobody(layout: TablesLayout) -> StoreIdentity:
    """Of a file in which no operator ever changed anything."""
    return StoreIdentity("", "", "sqlite", layout.name, 0, 0)


def any_row(con: sqlite3.Connection, schema: Schema, namespace: str) -> bool:
    for root in schema.roots:
        inside, values = root.inside(namespace)
        if con.execute(f"SELECT 1 FROM {root.plain} WHERE {inside} LIMIT 1", values).fetchone():
            return True
    return False


def state_of(con: sqlite3.Connection, schema: Schema, namespace: str, path: str) -> NamespaceState:
    """A namespace without a control row serves, if it has rows. Errors: NamespaceUnknown, InvalidInput."""
    parts_of(schema.rule, namespace)
    if has_control(con):
        with contextlib.suppress(NamespaceUnknown):
            return read_namespace(con, namespace, path)
    if any_row(con, schema, namespace):
        return NamespaceState(namespace, "serving", 0, None, None, None)
    raise NamespaceUnknown(
        f"The store {path} has no namespace {namespace!r:.80}.",
        "name one of those that the playbook memops.agent_memory.info lists",
    )


class TablesOpened(Opened):
    """The connection of one open store of this kind."""

    def __init__(self, path: str, layout: TablesLayout, busy_timeout: float) -> None:
        super().__init__(path, busy_timeout)
        self.layout = layout
        self._con.execute("PRAGMA foreign_keys = OFF")  # rows leave and come back with all that refers to them
        prepared(self._con)
        self._known: tuple[int, Schema] | None = None

    def schema(self, con: sqlite3.Connection) -> Schema:
        """As it is now: the application may migrate."""
        version = con.execute("PRAGMA main.schema_version").fetchone()[0]
        if self._known is None or self._known[0] != version:
            self._known = version, read_schema(con, self.layout, self.path)
        return self._known[1]

    def records(self, con: sqlite3.Connection) -> Records:
        return Records(con, self.schema(con), self.path)

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[sqlite3.Connection]:
        with super()._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
            self._ready(con)
            yield con

    def _ready(self, con: sqlite3.Connection) -> None:
        """Make the control tables when they are not there."""
        if has_control(con):
            self._recognise(con)
            return
        for text in control_tables().values():
            con.execute(text)
        con.execute("CREATE INDEX memops_aside_incident ON memops_aside (incident, namespace)")
        store_id = str(uuid.uuid4())
        con.execute(
            "INSERT INTO memops_store VALUES (1, ?, ?, ?, ?, 1, 0, 0, 0, 0, 0)",
            (FORMAT, store_id, store_id, self.layout.name),
        )

    def _recognise(self, con: sqlite3.Connection) -> None:
        """Errors: InvalidInput for the control tables of another layout or format; StoreDamaged."""
        row = con.execute("SELECT format, layout FROM memops_store").fetchone()
        if row is None:
            raise StoreDamaged(f"The store {self.path} has lost its identity.", RESTORE)
        check_kind(self.path, row[0], row[1], FORMAT, self.layout.name)

    def identity_of(self, con: sqlite3.Connection) -> StoreIdentity:
        return read_identity(con) if has_control(con) else nobody(self.layout)

    def _namespace(self, con: sqlite3.Connection, name: str) -> NamespaceState:
        """In an operator's transaction: one that has rows gets its control row with the first thing that is changed."""
        state = state_of(con, self.schema(con), name, self.path)
        if not state.generation:
            self._make_namespace(con, name, "serving")
            state = super()._namespace(con, name)
        return state

    def _make_namespace(self, con: sqlite3.Connection, name: str, state: str) -> None:
        number = con.execute(
            "INSERT INTO memops_generation (namespace, created) VALUES (?, ?)", (name, self.clock())
        ).lastrowid
        con.execute(
            "INSERT INTO memops_namespace (name, state, generation) VALUES (?, ?, ?)", (name, state, number)
        )
        if state != "serving":
            self._fence_writes(con, name)

    # --- the fence's rows and triggers --------------------------------------------------------------------------
    def _fence_writes(self, con: sqlite3.Connection, namespace: str) -> None:
        """Errors: CannotProceed when a namespace that shares rows with it is fenced."""
        schema = self.schema(con)
        for (other,) in con.execute("SELECT name FROM memops_fence").fetchall():
            if other != namespace and overlap(schema.rule, namespace, other):
                raise CannotProceed(
                    f"Namespace {namespace!r:.80} shares records with {other!r:.80}, which is fenced already.",
                    f"release that one first: {run('release', memory_namespace=other)}",
                )
        marks = ", ".join("?" * PARTS)
        con.execute(
            f"INSERT OR IGNORE INTO memops_fence VALUES (?, {marks})", (namespace, *parts_of(schema.rule, namespace))
        )
        self._raise_triggers(con)

    def _raise_triggers(self, con: sqlite3.Connection) -> list[str]:
        """Those that are missing or changed; their names."""
        there = dict(con.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'"))
        made = []
        for trigger, text in self.schema(con).triggers().items():
            if there.get(trigger) != text:
                con.execute(f"DROP TRIGGER IF EXISTS main.{name(trigger)}")
                con.execute(text)
                made.append(trigger)
        return made

    def _unfence_writes(self, con: sqlite3.Connection, namespace: str) -> None:
        """The application's tables have triggers only as long as something is fenced."""
        con.execute("DELETE FROM memops_fence WHERE name = ?", (namespace,))
        if not con.execute("SELECT 1 FROM memops_fence").fetchone():
            for trigger in self.schema(con).triggers():
                con.execute(f"DROP TRIGGER IF EXISTS main.{name(trigger)}")

    # --- moving a namespace's rows ------------------------------------------------------------------------------
    def _holding(self, con: sqlite3.Connection) -> Schema:
        """The schema, with a table for each of its tables that holds rows."""
        schema = self.schema(con)
        for table in schema.tables:
            if not holds(con, table, self.path):
                con.execute(f"DROP TABLE IF EXISTS {table.held()}")
            for text in table.make_held():
                con.execute(text)
        return schema

    def _take_out(self, con: sqlite3.Connection, namespace: str, number: int) -> None:
        """Move the rows of a namespace out of the application's tables, into a generation."""
        for table in self._holding(con).tables:
            con.execute(*table.copy_out("main", number, namespace))
        with suspended(con, self.schema(con)):
            for table in reversed(self.schema(con).tables):
                con.execute(*table.remove(namespace))

    def _put_in(self, con: sqlite3.Connection, namespace: str, number: int) -> None:
        """Move the rows of a generation into the application's tables. Errors: CannotProceed."""
        schema = self.schema(con)
        for root in self.layout.tables("sqlite"):
            for table_name in (root.name, *(one.name for one in root.companions)):
                if schema.named(table_name) is None:
                    self._nothing_lies_aside(con, table_name, namespace, number)
        with suspended(con, schema):
            for table in schema.tables:
                held = {row[1] for row in con.execute(f"PRAGMA main.table_info({name(HELD + table.name)})")}
                if held:
                    self._put_table(con, namespace, number, table, held)

    def _nothing_lies_aside(self, con: sqlite3.Connection, table: str, namespace: str, number: int) -> None:
        """Of a table that the application does not have any more."""
        held = f"main.{name(HELD + table)}"
        known = con.execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", (HELD + table,)).fetchone()
        if known and con.execute(f"SELECT 1 FROM {held} WHERE memops_generation = ? LIMIT 1", (number,)).fetchone():
            raise CannotProceed(
                f"The table {table} in {self.path} is gone, and rows of {namespace!r:.80} for it lie aside.",
                "let the application make the table again, then run the same command again",
            )

    def _put_table(
        self, con: sqlite3.Connection, namespace: str, number: int, table: Table, held: t.Collection[str]
    ) -> None:
        today = [column.name for column in table.columns]
        gone = [one for one in held if one not in today and not one.startswith("memops_")]
        if gone:
            raise CannotProceed(
                f"The table {table.name} in {self.path} has lost the column {gone[0]} while records of "
                f"{namespace!r:.80} lay aside.",
                "bring the column back (use the application's former version), then run the same command again",
            )
        # a column that came meanwhile has its default
        listed = ", ".join(name(one) for one in today if one in held)
        try:
            self._insert(con, number, table, listed)
        except sqlite3.IntegrityError as exc:
            raise CannotProceed(
                f"The records of {namespace!r:.80} cannot come back into the table {table.name}: {exc}; another row "
                "took the place of one of them.",
                self._way_back(con, number, table, str(exc)),
            ) from None
        con.execute(f"DELETE FROM {table.held()} WHERE memops_generation = ?", (number,))

    def _way_back(self, con: sqlite3.Connection, number: int, table: Table, why: str) -> str:
        """What to do about rows that came while others were away, and were given numbers of those."""
        column = name(why.rpartition(f"failed: {table.name}.")[2])
        held = f"SELECT {column} FROM {name(HELD + table.name)} WHERE memops_generation = {int(number)}"
        try:
            count, whole, top = con.execute(
                f"SELECT count(*), min(typeof({column}) = 'integer'), (SELECT max({column}) FROM {table.plain}) "
                f"FROM {table.plain} WHERE {column} IN ({held})"
            ).fetchone()
            top = max(top, con.execute(f"SELECT max({column}) FROM ({held})").fetchone()[0])
        except (sqlite3.Error, TypeError):  # of several columns, or of an expression
            count, whole, top = 0, False, 0
        if not count or not whole:
            return "remove or rename that row in the application, then run the same command again"
        move = f"UPDATE {name(table.name)} SET {column} = {column} + {top} WHERE {column} IN ({held})"
        return (
            f"give {count} new rows of the application other numbers, and what refers to them in its other tables: "
            f"sqlite3 {shlex.quote(self.path)} {shlex.quote(move)}; then run the same command again"
        )

    def _insert(self, con: sqlite3.Connection, number: int, table: Table, listed: str) -> None:
        order = "memops_rowid IS NULL, memops_rowid, memops_key" + "".join(f", {name(one)}" for one in table.order)
        rows = f"FROM {table.held()} WHERE memops_generation = {int(number)}"
        if table.rowid is None:
            con.execute(f"INSERT INTO {table.plain} ({listed}) SELECT {listed} {rows} ORDER BY {order}")
            return
        # Rows that came meanwhile may have taken rowids: from the first of those on new ones are given, in order.
        taken = con.execute(
            f"SELECT min(h.memops_rowid) FROM {table.held()} h JOIN {table.plain} p "
            f"ON p.{table.rowid} = h.memops_rowid WHERE h.memops_generation = {int(number)}"
        ).fetchone()[0]
        own = "memops_rowid" if taken is None else f"CASE WHEN memops_rowid < {int(taken)} THEN memops_rowid END"
        con.execute(
            f"INSERT INTO {table.plain} ({table.rowid}, {listed}) SELECT {own}, {listed} {rows} ORDER BY {order}"
        )

    def held(self, state: NamespaceState) -> bool:
        """Whether the active generation lies outside of the application's tables."""
        return state.state == "quarantined"
