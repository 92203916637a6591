# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own triggers on its tables in a SQLite file, which do not run when its rows leave and come back.

PRIVATE to the collection. To the application nothing was deleted and nothing is new: a trigger would remove the rows of
other tables that go with a memory, note a deletion, or give a row that comes back another time. So triggers are dropped
and made again within the transaction, which nobody else ever sees. Those that do nothing but keep a virtual table in
step, a full-text index, run: what is quarantined must not be found there, and what was repaired must be.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .tables_sqlite_sql import Schema, Table, name

FENCE: t.Final = "memops_fence_"
_WRITES: t.Final = (sqlite3.SQLITE_DELETE, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE)


@contextlib.contextmanager
def suspended(con: sqlite3.Connection, schema: Schema) -> t.Iterator[None]:
    """Inside a transaction, which is to be rolled back when the block fails."""
    quiet: list[tuple[str, str]] = []
    for table in schema.tables:
        found = con.execute(
            "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE "
            "AND name NOT LIKE ? || '%' ORDER BY rowid",
            (table.name, FENCE),
        ).fetchall()
        if found:
            indexing = _indexing(con, table)
            quiet += [one for one in found if one[0].lower() not in indexing]
    for trigger, _text in quiet:
        con.execute(f"DROP TRIGGER main.{name(trigger)}")
    yield
    for _trigger, text in quiet:
        con.execute(text)


def _indexing(con: sqlite3.Connection, table: Table) -> set[str]:
    """Triggers of this table that write into virtual tables alone, by SQLite's own word; names in small letters."""
    written: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}

    def note(action: int, target: str | None, _column: str | None, _schema: str | None, trigger: str | None) -> int:
        if trigger is not None and target is not None and action in _WRITES:
            written.setdefault(trigger.lower(), set()).add(target.lower())
        return sqlite3.SQLITE_OK

    same = ", ".join(f"{name(column.name)} = {name(column.name)}" for column in table.columns)
    con.set_authorizer(note)
    try:
        for text in (
            f"DELETE FROM {table.plain}",
            f"INSERT INTO {table.plain} ({table.listed}) SELECT {table.listed} FROM {table.plain}",
            f"UPDATE {table.plain} SET {same}",
        ):
            written.clear()
            with contextlib.suppress(sqlite3.Error):  # such as a module that is not here: none of these can run
                con.execute(f"EXPLAIN {text}").close()
                known.update(written)  # each runs for one of the three
    finally:
        con.set_authorizer(_allow)
    virtual = {
        row[0].lower()
        for row in con.execute(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
        )
    }
    return {trigger for trigger, targets in known.items() if targets <= virtual}


def _allow(*_what: t.Any) -> int:
    """None takes an authorizer away only from Python 3.11 on."""
    return sqlite3.SQLITE_OK
