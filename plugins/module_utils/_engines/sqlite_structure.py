# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What SQLite itself can tell about the health of a store, and what it can rebuild alone.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import StoreDamaged
from .._words import counted
from .sqlite_connect import Connected, connect, sqlite_errors
from .sqlite_control import astray_rows, close_unread, lead_back, told
from .sqlite_log import newest_given
from .sqlite_schema import ASIDE_COLUMNS, RecordsSql

MOST_LINES = 100
BEHIND = "the store's counters stand at {}.{}, behind {}.{}, which was given out"


def structure(con: sqlite3.Connection, sql: RecordsSql, path: str) -> list[str]:
    """Findings in words, at most MOST_LINES. Errors: MemoryOpsError when even the check cannot run."""
    with sqlite_errors(path):
        lines = _integrity(con)
        lost = missing(con, sql)
        lines += [f"{kind} {name} is missing or changed" for kind, name, _text in lost]
        mode = con.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            lines.append(f"the journal mode is {mode}, not wal: readers and writers block each other")
        if not any(kind == "table" for kind, _name, _text in lost):
            lines += behind(con) + told(con, sql)
            try:
                found = _unreadable(con, sql, count_only=True)
            except sqlite3.DatabaseError as exc:
                found = {}
                lines += [] if lines else [str(exc)]
            lines += [
                f"generation {generation} holds {counted(count, 'row whose key is', 'rows whose keys are')} no text"
                for generation, count in sorted(found.items())
            ]
    return lines[:MOST_LINES]


def _integrity(con: sqlite3.Connection) -> list[str]:
    lines: list[str] = []
    try:
        for (text,) in con.execute(f"PRAGMA integrity_check({MOST_LINES})"):
            lines += [line for line in text.splitlines() if line != "ok" and not line.startswith("***")]
    except sqlite3.DatabaseError as exc:  # the check itself stops at some kinds of damage
        if "malformed" not in str(exc):
            raise
        lines.append(str(exc))
    return lines


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


def behind(con: sqlite3.Connection) -> list[str]:
    """A line when the store's counters are behind what was given out, as after a lost write of their page."""
    stands, given = con.execute("SELECT epoch, sequence FROM memops_store").fetchone(), newest_given(con)
    if stands is None or stands >= given:
        return []
    return [BEHIND.format(*stands, *given)]


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

    def _structure(self) -> list[str]:
        # A connection that met a damaged page refuses much else afterwards: a new one for each step here.
        with sqlite_errors(self.path), contextlib.closing(connect(self.path, self.busy_timeout)) as con:
            return structure(con, self.sql, self.path)

    def warnings(self) -> list[str]:
        return []  # every commit is on the disk before it is acknowledged

    def repair_structure(self) -> list[str]:
        before = self._structure()
        if not before:
            return []
        done = []
        with sqlite_errors(self.path):
            if self._con.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._con.execute("PRAGMA journal_mode = wal")
                done.append("set the journal mode to wal")
        with self._transaction() as con:
            led = False  # an index that is lost cannot be made while two rows lead to one generation
            for kind, name, text in missing(con, self.sql):  # tables come first
                if kind != "table" and not led:
                    led, done = True, done + self._lead_back(con)
                if kind == "trigger":
                    con.execute(f"DROP TRIGGER IF EXISTS {name}")
                con.execute(text)
                done.append(f"made the {kind} {name} again")
            if behind(con):
                epoch, sequence = newest_given(con)
                self._keep_up(con, epoch, sequence, 0)
                done.append(f"set the store's counters to {epoch}.{sequence}")
            done += close_unread(con, self.clock()) + ([] if led else self._lead_back(con))
            if done:
                con.execute("UPDATE memops_store SET commits = commits + 1")
        with contextlib.suppress(StoreDamaged), self._transaction() as con:
            done += self._set_unreadable_aside(con)
        return done + self._rebuild_indexes()

    def _lead_back(self, con: sqlite3.Connection) -> list[str]:
        if not astray_rows(con, self.sql):
            return []
        self._drop_fence(con)
        done = lead_back(con, self.sql, self.clock())
        self._raise_fence(con)
        return done

    def _rebuild_indexes(self) -> list[str]:
        """The indexes that the check names; all of them when it names none. Nothing when that did not help."""
        before = self._structure()
        named = [name for name in self.sql.indexes() if any(name in line for line in before)]
        wanted = named or (list(self.sql.indexes()) if before else [])
        done, forgotten = [], False
        for name in wanted:
            for forget in (False, True):
                try:
                    self._rebuild_index(name, forget)
                except StoreDamaged:  # its own pages are broken, or those of its table
                    continue
                done.append(f"rebuilt the index {name}")
                forgotten |= forget
                break
        if forgotten:  # the pages of what was forgotten belong to nothing now
            with contextlib.suppress(StoreDamaged), sqlite_errors(self.path):
                with contextlib.closing(connect(self.path, self.busy_timeout)) as con:
                    con.execute("VACUUM")
        return done if self._structure() != before else []

    def _rebuild_index(self, name: str, forget: bool) -> None:
        """REINDEX walks the old pages; with ``forget`` the index is struck from the schema without looking at them."""
        with sqlite_errors(self.path), contextlib.closing(connect(self.path, self.busy_timeout)) as con:
            con.execute("BEGIN IMMEDIATE")
            if forget:
                con.execute("PRAGMA writable_schema = ON")
                con.execute("DELETE FROM sqlite_master WHERE type = 'index' AND name = ?", (name,))
                con.execute("PRAGMA writable_schema = RESET")
                con.execute(self.sql.indexes()[name])
            else:
                con.execute(f'REINDEX "{name}"')
            con.execute("UPDATE memops_store SET commits = commits + 1")
            con.execute("COMMIT")

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
            were = "key was" if len(keys) == 1 else "keys were"
            done.append(f"set {counted(len(keys), 'row')} of generation {generation} aside whose {were} no text")
        self._raise_fence(con)
        return done
