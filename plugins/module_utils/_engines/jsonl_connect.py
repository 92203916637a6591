# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The control file beside another application's JSON Lines files, and how lines go from the one to the other.

PRIVATE to the collection. It is a SQLite file (``….memops.db``, this user's alone), made with the first thing that an
operator changes: incidents, what lies aside, and the lines of every generation that is not in the application's hands.

A file and a transaction cannot change together. What is taken: the fence takes the file's place first, then the lines
go into the transaction; until that is committed they still lie beside (``MemoryFile.taken``). What is put back: the new
file lies beside, durable (``MemoryFile.draft``), then the transaction says that it is to be placed, then it is; whoever
finds that word places it.
"""
from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import typing as t
import uuid
from dataclasses import replace

from .._errors import NamespaceUnknown, StoreDamaged
from .._layouts.lines import LinesLayout
from .._model import NamespaceState, StoreIdentity
from .jsonl_file import MemoryFile, file_errors
from .jsonl_files import Files
from .jsonl_rows import TABLES, LineRows
from .sqlite_connect import RESTORE, Opened, connect, read_identity, read_namespace, wall_clock
from .sqlite_schema import CONTROL_TABLES, FORMAT
from .store_kind import check_kind

OWN_TABLES: t.Final = ("memops_store", "memops_namespace", "memops_generation", "memops_incident", "memops_aside")
NEW_MODE: t.Final = 0o600
CONTROL: t.Final = {
    **{one: CONTROL_TABLES[one] for one in OWN_TABLES},
    **TABLES,
    "memops_aside_incident": "CREATE INDEX memops_aside_incident ON memops_aside (incident, namespace)",
    # placing: a draft lies beside the file and has to take its place
    "memops_file": """CREATE TABLE memops_file (
  namespace TEXT NOT NULL PRIMARY KEY,
  mode INTEGER NOT NULL,
  owner INTEGER,
  grp INTEGER,
  placing INTEGER NOT NULL DEFAULT 0
)""",
}


def nobody(layout: LinesLayout) -> StoreIdentity:
    """Of a file in which no operator ever changed anything."""
    return StoreIdentity("", "", "jsonl", layout.name, 0, 0)


def identity_of(con: sqlite3.Connection | None, layout: LinesLayout) -> StoreIdentity:
    return nobody(layout) if con is None else replace(read_identity(con), engine="jsonl")


def is_placing(con: sqlite3.Connection | None, namespace: str) -> bool:
    if con is None:
        return False
    found = con.execute("SELECT placing FROM memops_file WHERE namespace = ?", (namespace,)).fetchone()
    return bool(found and found[0])


def state_of(con: sqlite3.Connection | None, files: Files, namespace: str) -> NamespaceState:
    """What the control file says; a namespace without a row there serves, if it has a file.

    Errors: NamespaceUnknown.
    """
    file = files.of(namespace)
    if con is not None:
        with contextlib.suppress(NamespaceUnknown):
            return read_namespace(con, namespace, files.path)
    if file.there() or file.fenced():
        return NamespaceState(namespace, "serving", 0, None, None, None)
    raise NamespaceUnknown(
        f"The store {files.path} has no namespace {namespace!r:.80}.",
        "name one of those that the playbook memops.agent_memory.info lists",
    )


def shown(state: NamespaceState, file: MemoryFile) -> NamespaceState:
    """What is so: the fence of a step that was cut short stands although the control file does not say it."""
    if state.state == "serving" and file.fenced():
        return replace(state, state="quarantined", serving_ttl=1.0, prior_state="serving")
    return state


class LinesOpened(Opened):
    """The connection to the control file of one open store; to an empty one in memory as long as there is none."""

    def __init__(self, files: Files, layout: LinesLayout, busy_timeout: float) -> None:
        self.files, self.layout = files, layout
        self._after: list[t.Callable[[], None]] = []
        self._otherwise: list[t.Callable[[], None]] = []
        self._known = os.path.exists(files.control)
        if self._known:
            super().__init__(files.control, busy_timeout)
            self._recognise()
        else:
            self.path, self.busy_timeout, self.clock = files.control, busy_timeout, wall_clock
            self._con = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)

    def control(self) -> sqlite3.Connection | None:
        return self._con if self._known else None

    def rows(self, con: sqlite3.Connection) -> LineRows:
        return LineRows(con, self.layout)

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[sqlite3.Connection]:
        """What has to be done to files when it is committed stands in ``_after``, what when not in ``_otherwise``."""
        self._make()
        self._after.clear()
        self._otherwise.clear()
        try:
            with super()._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
                yield con
        except BaseException:
            self._do(self._otherwise)
            raise
        self._do(self._after)

    def _do(self, steps: t.Sequence[t.Callable[[], None]]) -> None:
        with file_errors(self.files.path):
            for step in steps:
                step()

    def _make(self) -> None:
        """The control file, whole under its name or not there."""
        if self._known:
            return
        if not os.path.exists(self.path):
            draft = f"{self.path}.new-{secrets.token_hex(4)}"
            with file_errors(self.path):
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            try:
                with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as con:
                    con.execute("PRAGMA synchronous = FULL")
                    con.execute("BEGIN IMMEDIATE")
                    for text in CONTROL.values():
                        con.execute(text)
                    store_id = str(uuid.uuid4())
                    con.execute(
                        "INSERT INTO memops_store VALUES (1, ?, ?, ?, ?, 1, 0, 0, 0, 0, 0)",
                        (FORMAT, store_id, store_id, self.layout.name),
                    )
                    con.execute("COMMIT")
                    con.execute("PRAGMA journal_mode = wal")
                with file_errors(self.path), contextlib.suppress(FileExistsError):  # another process was faster
                    os.link(draft, self.path)
            finally:
                os.unlink(draft)
        self._con.close()
        self._con = connect(self.path, self.busy_timeout)
        self._inode = self._file()
        self._known = True
        self._recognise()

    def _recognise(self) -> None:
        """Errors: InvalidInput for the control file of another layout or format; StoreDamaged."""
        try:
            row = self._con.execute("SELECT format, layout FROM memops_store").fetchone()
        except sqlite3.OperationalError as exc:
            if "no such table" not in str(exc):
                raise
            row = None
        if row is None:
            raise StoreDamaged(f"The control file {self.path} has lost its identity.", RESTORE)
        check_kind(self.files.path, row[0], row[1], FORMAT, self.layout.name)

    # --- namespaces ---------------------------------------------------------------------------------------------
    def _namespace(self, con: sqlite3.Connection, name: str) -> NamespaceState:
        """In an operator's transaction: finishes what a killed one left to do to the file."""
        state = state_of(con, self.files, name)
        if not state.generation:
            self._make_namespace(con, name, "serving")
            state = read_namespace(con, name, self.path)
        if is_placing(con, name):
            with file_errors(self.files.path):
                self.files.of(name).place()
            con.execute("UPDATE memops_file SET placing = 0 WHERE namespace = ?", (name,))
        return state

    def _make_namespace(self, con: sqlite3.Connection, name: str, state: str) -> None:
        number = con.execute(
            "INSERT INTO memops_generation (namespace, created) VALUES (?, ?)", (name, self.clock())
        ).lastrowid
        con.execute("INSERT INTO memops_namespace (name, state, generation) VALUES (?, ?, ?)", (name, state, number))

    # --- lines from the file and to it --------------------------------------------------------------------------
    def _take_in(self, con: sqlite3.Connection, space: NamespaceState) -> None:
        """Raise the fence; the lines of the file become those of the active generation."""
        file = self.files.of(space.name)
        with file_errors(file.path):
            status = file.take()
            rows = self.rows(con)
            rows.clear(space.generation)
            if status is not None:
                with open(file.taken, "rb") as stream:
                    rows.load(space.generation, stream)
        if status is not None:
            con.execute(
                "INSERT OR REPLACE INTO memops_file VALUES (?, ?, ?, ?, 0)",
                (space.name, status.st_mode & 0o7777, status.st_uid, status.st_gid),
            )

    def _put_back(self, con: sqlite3.Connection, space: NamespaceState, generation: int | None = None) -> None:
        """The lines of a generation become the application's file when this transaction is committed."""
        number = space.generation if generation is None else generation
        file, rows = self.files.of(space.name), self.rows(con)
        found = con.execute("SELECT mode, owner, grp FROM memops_file WHERE namespace = ?", (space.name,)).fetchone()
        with file_errors(file.path):
            file.write(rows.written(number), *(found or (NEW_MODE, None, None)))
            file.let_calls_end()
        rows.clear(number)
        con.execute(
            "INSERT OR REPLACE INTO memops_file VALUES (?, ?, ?, ?, 1)",
            (space.name, *(found or (NEW_MODE, None, None))),
        )
        self._after.append(file.place)

    def held(self, space: NamespaceState) -> bool:
        """Whether the lines of the active generation lie here and not in the application's file."""
        return space.state != "serving"
