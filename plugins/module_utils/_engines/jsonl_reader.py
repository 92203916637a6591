# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading another application's JSON Lines files at one point in time.

PRIVATE to the collection. A file is copied into a temporary table while nobody has it open for writing, which takes as
long as reading it, and keeps nobody from writing. What is quarantined or staged is read in one read transaction.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t

from .._errors import NamespaceUnknown, StoreDamaged
from .._layouts.lines import LinesLayout
from .._model import LastWrite, LogEntry, NamespaceState, Row
from .._store import Checked
from .jsonl_connect import identity_of, is_placing, shown, state_of
from .jsonl_file import file_errors, still_copy
from .jsonl_files import Files
from .jsonl_remarks import remarks, structure
from .jsonl_rows import BATCH_BYTES, TABLES, LineRows
from .sqlite_connect import READ_CACHE_KIB, connect, read_namespace, sqlite_errors, wall_clock
from .sqlite_schema import ASIDE_COLUMNS
from .tables_sqlite_copies import opened_copy

COPIED: t.Final = "CREATE TABLE memops_copied (name TEXT PRIMARY KEY, number INTEGER NOT NULL)"


def prepare_copy(con: sqlite3.Connection) -> None:
    con.execute("PRAGMA temp_store = FILE")
    con.execute("PRAGMA synchronous = OFF")  # nobody needs it after a crash
    con.execute("PRAGMA journal_mode = OFF")
    con.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB}")
    for text in (COPIED, *TABLES.values()):
        con.execute(text)


def copy_file(con: sqlite3.Connection, layout: LinesLayout, path: str, name: str, wait: float) -> None:
    """Bring the lines of a file into a copy. Errors: StoreUnavailable."""
    number = con.execute("SELECT count(*) + 1 FROM memops_copied").fetchone()[0]
    rows = LineRows(con, layout)
    with file_errors(path), still_copy(path, wait) as stream:
        rows.load(number, stream)
    con.execute("INSERT INTO memops_copied VALUES (?, ?)", (name, number))


class LinesReader:
    """See _store.Reader. ``copy``: the path of a copy, which somebody else removes."""

    def __init__(self, files: Files, layout: LinesLayout, busy_timeout: float, copy: str | None) -> None:
        self._files, self._layout, self._wait = files, layout, busy_timeout
        self._control: sqlite3.Connection | None = None
        self._copy: sqlite3.Connection | None = None
        self._point = copy is not None
        self._spaces: dict[str, NamespaceState] = {}
        try:
            with sqlite_errors(files.control):
                if os.path.exists(files.control):
                    self._control = connect(files.control, busy_timeout, read_only=True)
                    self._control.execute("BEGIN")
                self.identity = identity_of(self._control, layout)
                if copy is not None:
                    self._copy = opened_copy(copy)
            self.at = wall_clock()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LinesReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for con in (self._control, self._copy):
            if con is not None:
                con.close()
        self._control = self._copy = None

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        with sqlite_errors(self._files.control):
            names = set(self._files.names())
            if self._control is not None:
                names.update(row[0] for row in self._control.execute("SELECT name FROM memops_namespace"))
        return [self.namespace(name) for name in sorted(names)]

    def namespace(self, name: str) -> NamespaceState:
        if name not in self._spaces:
            with sqlite_errors(self._files.control):
                found = state_of(self._control, self._files, name)
                self._spaces[name] = shown(found, self._files.of(name))
        return self._spaces[name]

    def _where(self, namespace: str, generation: int | None) -> tuple[LineRows, int] | None:
        """In which table a generation lies, and its number there; None: it has no lines."""
        space = self.namespace(namespace)
        with sqlite_errors(self._files.control):
            if generation is not None and generation != space.generation:
                known = self._control is not None and self._control.execute(
                    "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, namespace)
                ).fetchone()
                if not known:
                    raise NamespaceUnknown(
                        f"Namespace {namespace!r:.80} has no generation {generation}.",
                        "name one that the info module lists",
                    )
                return self._held(), generation
            if self._control is not None:
                with contextlib.suppress(NamespaceUnknown):
                    if read_namespace(self._control, namespace, self._files.path).state != "serving":
                        return self._held(), space.generation
            return self._copied(namespace)

    def _held(self) -> LineRows:
        if self._control is None:
            raise AssertionError("control")
        return LineRows(self._control, self._layout)

    def _copied(self, namespace: str) -> tuple[LineRows, int] | None:
        if self._copy is None:
            self._copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file
            prepare_copy(self._copy)
        query = "SELECT number FROM memops_copied WHERE name = ?"
        found = self._copy.execute(query, (namespace,)).fetchone()
        if found is None and not self._point:
            path = self._files.of(namespace).source(is_placing(self._control, namespace))
            if path is None:
                return None
            copy_file(self._copy, self._layout, path, namespace, self._wait)
            self.at = wall_clock()
            found = self._copy.execute(query, (namespace,)).fetchone()
        return None if found is None else (LineRows(self._copy, self._layout), found[0])

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        place = self._where(namespace, generation)
        with sqlite_errors(self._files.path):
            return 0 if place is None else place[0].count(place[1])

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
        if place is not None:
            with sqlite_errors(self._files.path):
                yield from place[0].scan(place[1], namespace, after, until, batch, descending)

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        place = self._where(namespace, generation)
        with sqlite_errors(self._files.path):
            return {} if place is None else place[0].get_many(place[1], namespace, keys)

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        place = self._where(namespace, None)
        if place is None:
            return []
        with sqlite_errors(self._files.path):
            return place[0].boundaries(place[1], parts)

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        if self._control is None:
            return
        found: list[tuple[str, str, Row]] = []
        size = 0
        with sqlite_errors(self._files.control):
            for row in self._control.execute(
                f"SELECT incident, reason, {ASIDE_COLUMNS} FROM memops_aside WHERE namespace = ? "
                "AND (? IS NULL OR incident = ?) ORDER BY id",
                (namespace, incident, incident),
            ):
                found.append((row[0], row[1], row[2:]))
                size += len(row[10]) if row[10].__class__ is bytes else 0
                if len(found) >= 2000 or size > BATCH_BYTES:
                    yield found
                    found, size = [], 0
        if found:
            yield found

    def moved(self, namespace: str) -> bool:
        return False

    # --- log: there is none -------------------------------------------------------------------------------------
    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        return iter(())

    def log_rows(self, after_id: int, until_id: int, batch: int = 1000) -> t.Iterator[list[Row]]:
        return iter(())

    def log_count(self, after_id: int, until_id: int) -> int:
        return 0

    def log_end(self) -> int:
        return 0

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        return iter(())

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        return {"entries": 0, "corrupt": 0, "missing": 0, "first_sequence": 0, "last_sequence": 0, "intact": True}

    def remarks(self, namespace: str) -> list[str]:
        """What should be known about the lines of a namespace."""
        place = self._where(namespace, None)
        with sqlite_errors(self._files.path):
            return [] if place is None else remarks(*place)

    def structure(self) -> list[str]:
        try:
            with sqlite_errors(self._files.control):
                return structure(self._control, self._files)
        except StoreDamaged as exc:  # all else says nothing about the store
            return [exc.message]
