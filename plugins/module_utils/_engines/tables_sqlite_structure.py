# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Damage of a SQLite file with another application's tables, and what can be rebuilt without that application.

PRIVATE to the collection. What the application itself left in its tables is told by tables_sqlite_remarks.py.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import MemoryOpsError
from .sqlite_connect import connect, sqlite_errors
from .sqlite_structure import MOST_LINES, _integrity
from .tables_sqlite_connect import TablesOpened, any_row, has_control
from .tables_sqlite_remarks import remarks, without_key
from .tables_sqlite_sql import Schema, name


def structure(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """Findings in words, at most MOST_LINES."""
    lines = _integrity(con)
    try:
        lines += fence_findings(con, schema)
    except sqlite3.DatabaseError as exc:
        lines += [] if lines else [str(exc)]
    return lines[:MOST_LINES]


def fence_findings(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """Triggers that are missing while something is fenced."""
    if not has_control(con) or not con.execute("SELECT 1 FROM memops_fence").fetchone():
        return []
    there = dict(con.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'"))
    return [
        f"the trigger {trigger} of the fence is missing or changed"
        for trigger, text in schema.triggers().items()
        if there.get(trigger) != text
    ]


class TablesStructure(TablesOpened):
    """The structural part of ``Store``."""

    application: t.Mapping[str, t.Any] = {}  # memory_store, with the keys of the application's own encryption

    def warnings(self) -> list[str]:
        lines = []
        with sqlite_errors(self.path):
            mode = self._con.execute("PRAGMA journal_mode").fetchone()[0]
            if mode in ("memory", "off"):
                lines.append(f"the journal mode is {mode}: a crash may damage the file")
            with contextlib.suppress(sqlite3.DatabaseError):  # damage is told by ``structure``
                lines += remarks(self._con, self.layout, self.schema(self._con), self.application)
        return lines

    def unsaved(self) -> list[str]:
        """See _store_own.HasUnsavedRows."""
        with sqlite_errors(self.path), contextlib.suppress(sqlite3.DatabaseError):
            return without_key(self._con, self.schema(self._con))
        return []

    def _lines(self) -> list[str]:
        # A connection that met a damaged page refuses much else afterwards: a new one for each look.
        with sqlite_errors(self.path), contextlib.closing(connect(self.path, self.busy_timeout)) as con:
            return structure(con, self.schema(con))

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
