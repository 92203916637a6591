# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What SQLite itself can tell about the health of a store, and what it can rebuild alone.

PRIVATE to the collection.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .sqlite_connect import Connected, sqlite_errors
from .sqlite_schema import ASIDE_COLUMNS, RecordsSql

MOST_LINES = 100


def structure(con: sqlite3.Connection, sql: RecordsSql, path: str) -> list[str]:
    """Findings in words, at most MOST_LINES. Errors: MemoryOpsError when even the check cannot run."""
    with sqlite_errors(path):
        lines = [row[0] for row in con.execute(f"PRAGMA integrity_check({MOST_LINES})")]
        if lines == ["ok"]:
            lines = []
        lost = missing(con, sql)
        lines += [f"{kind} {name} is missing or changed" for kind, name, _text in lost]
        mode = con.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            lines.append(f"the journal mode is {mode}, not wal: readers and writers block each other")
        if not any(kind == "table" for kind, _name, _text in lost):
            lines += [
                f"generation {generation} holds {count} rows whose keys are no text"
                for generation, count in sorted(_unreadable(con, sql, count_only=True).items())
            ]
    return lines[:MOST_LINES]


def missing(con: sqlite3.Connection, sql: RecordsSql) -> list[tuple[str, str, str]]:
    """(kind, name, CREATE statement) of what should be in the schema and is not there as it should be."""
    there = dict(con.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    wanted = (("table", sql.tables()), ("index", sql.indexes()), ("trigger", sql.triggers()))
    return [
        (kind, name, text)
        for kind, texts in wanted
        for name, text in texts.items()
        if (there.get(name) != text if kind == "trigger" else name not in there)
    ]


def _unreadable(con: sqlite3.Connection, sql: RecordsSql, count_only: bool) -> dict[int, t.Any]:
    """Rows whose key is no text or no valid UTF-8, per generation: their number, or their raw keys."""
    found: dict[int, list[t.Any]] = {}
    former = con.text_factory
    try:
        con.text_factory = str
        try:
            for (key,) in con.execute(f"SELECT {sql.key} FROM {sql.table}"):
                if key.__class__ is not str:
                    raise sqlite3.OperationalError("Could not decode")
            return {}
        except sqlite3.OperationalError as exc:
            if "decode" not in str(exc):
                raise
        con.text_factory = bytes
        query = f"SELECT {sql.generation}, {sql.key}, typeof({sql.key}) FROM {sql.table}"
        for generation, key, kind in con.execute(query):
            if kind == b"text":
                try:
                    key.decode()
                    continue
                except UnicodeDecodeError:
                    pass
            found.setdefault(generation, []).append((key, kind.decode()))
    finally:
        con.text_factory = former
    return {generation: len(keys) for generation, keys in found.items()} if count_only else found


class Structure(Connected):
    """The structural part of ``Store``."""

    def repair_structure(self) -> list[str]:
        with sqlite_errors(self.path):
            before = structure(self._con, self.sql, self.path)
            if not before:
                return []
            done = []
            if self._con.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._con.execute("PRAGMA journal_mode = wal")
                done.append("set the journal mode to wal")
        with self._transaction() as con:
            for kind, name, text in missing(con, self.sql):
                if kind == "trigger":
                    con.execute(f"DROP TRIGGER IF EXISTS {name}")
                con.execute(text)
                done.append(f"made the {kind} {name} again")
            if any("index" in line or "tree" in line.lower() for line in before):
                for name in self.sql.indexes():
                    con.execute(f'REINDEX "{name}"')
                    if any(name in line for line in before):
                        done.append(f"rebuilt the index {name}")
            done += self._set_unreadable_aside(con)
            con.execute("UPDATE memops_store SET commits = commits + 1")
        return done

    def _set_unreadable_aside(self, con: sqlite3.Connection) -> list[str]:
        """Such rows cannot be reached by a key and would count for ever; their bytes are kept beside."""
        s = self.sql
        found = _unreadable(con, s, count_only=False)
        if not found:
            return []
        self._drop_fence(con)
        done = []
        for generation, keys in sorted(found.items()):
            for key, kind in keys:
                same = f"{s.generation} = ? AND {s.key} = CAST(? AS {'TEXT' if kind == 'text' else 'BLOB'})"
                con.execute(
                    f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) "
                    "SELECT coalesce((SELECT namespace FROM memops_generation WHERE id = ?), ''), 'structure', "
                    f"'the key is no text', ?, {s.columns} FROM {s.table} WHERE {same}",
                    (generation, self.clock(), generation, key),
                )
                con.execute(f"DELETE FROM {s.table} WHERE {same}", (generation, key))
            done.append(f"set {len(keys)} rows of generation {generation} aside whose keys were no text")
        self._raise_fence(con)
        return done
