# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with another application's tables in a SQLite file, and what can be rebuilt without it.

PRIVATE to the collection. Everything here reads; only ``repair_structure`` changes something: indexes and the fence.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import MemoryOpsError
from .._layouts.tables import TablesLayout
from .sqlite_connect import connect, sqlite_errors
from .sqlite_structure import MOST_LINES, _integrity
from .tables_sqlite_connect import TablesOpened, any_row, has_control
from .tables_sqlite_sql import Schema, Table, name


def structure(con: sqlite3.Connection, layout: TablesLayout, schema: Schema) -> list[str]:
    """Findings in words, at most MOST_LINES."""
    lines = _integrity(con)
    try:
        lines += _fence(con, schema)
        for table in schema.tables:
            lines += _no_text(con, table)
            if not table.is_root:
                lines += _orphans(con, table, schema)
            for column in table.vectors:
                lines += _dimensions(con, table, column)
        if "half-migrated" in layout.findings:
            lines += _half_migrated(con)
    except sqlite3.DatabaseError as exc:
        lines += [] if lines else [str(exc)]
    return lines[:MOST_LINES]


def _fence(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """Triggers that are missing while something is fenced."""
    if not has_control(con) or not con.execute("SELECT 1 FROM memops_fence").fetchone():
        return []
    there = dict(con.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'"))
    return [
        f"the trigger {trigger} of the fence is missing or changed"
        for trigger, text in schema.triggers().items()
        if there.get(trigger) != text
    ]


def _no_text(con: sqlite3.Connection, table: Table) -> list[str]:
    """Rows whose key no record can have."""
    if not table.is_root:
        return []
    odd = " OR ".join(f"typeof({name(column)}) NOT IN ('text', 'integer')" for column in table.identity)
    found = con.execute(f"SELECT count(*) FROM {table.plain} WHERE {odd}").fetchone()[0]
    lines = [f"{found} rows of {table.name} belong to nobody: their key is no text"] if found else []
    bad = 0
    for row in con.execute(
        f"SELECT {', '.join(f'CAST({name(column)} AS BLOB)' for column in table.identity)} FROM {table.plain}"
    ):
        try:
            for value in row:
                if value is not None:
                    value.decode()
        except UnicodeDecodeError:
            bad += 1
    return [*lines, f"{bad} rows of {table.name} have a key that is no valid text"] if bad else lines


def _orphans(con: sqlite3.Connection, table: Table, schema: Schema) -> list[str]:
    root = schema.named(table.root.name)
    if root is None:
        return []
    same = " AND ".join(f"r.{name(column)} = c.{name(table.of[column])}" for column in table.identity)
    found = con.execute(
        f"SELECT count(*) FROM {table.plain} c WHERE NOT EXISTS (SELECT 1 FROM {root.plain} r WHERE {same})"
    ).fetchone()[0]
    return [f"{found} rows of {table.name} belong to no row of {root.name}"] if found else []


def _dimensions(con: sqlite3.Connection, table: Table, column: str) -> list[str]:
    sizes = con.execute(
        f"SELECT length({name(column)}) / 4, count(*) FROM {table.plain} WHERE typeof({name(column)}) = 'blob' "
        "GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    most = sizes[0][0] if sizes else 0
    return [
        f"{count} vectors of {table.name} have {size} dimensions, the others {most}" for size, count in sizes[1:]
    ]


def _half_migrated(con: sqlite3.Connection) -> list[str]:
    """LangGraph notes its migrations; one that notes more than there is was cut off."""
    there = {row[0] for row in con.execute("SELECT name FROM main.sqlite_master WHERE type IN ('table', 'index')")}
    lines = []
    for noted, needs in (
        ("store_migrations", (("store", 0), ("store_prefix_idx", 1), ("idx_store_expires_at", 4))),
        ("vector_migrations", (("store_vectors", 0),)),
    ):
        if noted not in there:
            continue
        newest = con.execute(f"SELECT max(v) FROM {noted}").fetchone()[0]
        lines += [
            f"half-migrated: {noted} says that {what} was made, and it is not there"
            for what, version in needs
            if newest is not None and newest >= version and what not in there
        ]
        if newest is None and noted == "vector_migrations":
            lines.append(f"half-migrated: {noted} was made, and no migration ran")
    return lines


class TablesStructure(TablesOpened):
    """The structural part of ``Store``."""

    def warnings(self) -> list[str]:
        lines = []
        with sqlite_errors(self.path):
            mode = self._con.execute("PRAGMA journal_mode").fetchone()[0]
        if mode in ("memory", "off"):
            lines.append(f"the journal mode is {mode}: a crash may damage the file")
        return lines

    def _lines(self) -> list[str]:
        # A connection that met a damaged page refuses much else afterwards: a new one for each look.
        with sqlite_errors(self.path), contextlib.closing(connect(self.path, self.busy_timeout)) as con:
            return structure(con, self.layout, self.schema(con))

    def repair_structure(self) -> list[str]:
        """Indexes from their tables, and triggers that are missing; what it did."""
        before = self._lines()
        if not before:
            return []
        done = []
        with self._transaction() as con:
            if con.execute("SELECT 1 FROM memops_fence").fetchone():
                done += [f"made the trigger {trigger} again" for trigger in self._raise_triggers(con)]
        indexes = self._indexes()
        damaged = [index for index in indexes if any(index in line for line in before)]
        if not damaged and any("index" in line for line in before):
            damaged = indexes
        for index in damaged:
            with contextlib.suppress(MemoryOpsError):
                with self._transaction() as con:
                    con.execute(f"REINDEX main.{name(index)}")
                done.append(f"rebuilt the index {index}")
        if done:
            done += self._take_out_what_appeared()
        return done if self._lines() != before else []

    def _take_out_what_appeared(self) -> list[str]:
        """Rows that a damaged index hid when their namespace was quarantined."""
        done = []
        with self._transaction() as con:
            spaces = con.execute("SELECT name, generation FROM memops_namespace WHERE state = 'quarantined'").fetchall()
            for namespace, generation in spaces:
                if any_row(con, self.schema(con), namespace):
                    self._unfence_writes(con, namespace)
                    self._take_out(con, namespace, generation)
                    self._fence_writes(con, namespace)
                    done.append(f"took the rows of {namespace!r:.80} out of sight that an index had hidden")
        return done

    def _indexes(self) -> list[str]:
        with sqlite_errors(self.path):
            return [
                row[0]
                for table in self.schema(self._con).tables
                for row in self._con.execute(
                    "SELECT name FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ?", (table.name,)
                )
            ]


__all__: t.Final = ["TablesStructure", "structure"]
