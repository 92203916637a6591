# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The SQLite engine: open or make a store, and hand out readers.

PRIVATE to the collection. The parts of ``SqliteStore`` stand in the files sqlite_*.py beside this one.
"""
from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import typing as t
import uuid

from .._errors import InvalidInput, StoreDamaged, StoreMissing, StoreUnavailable
from .._layouts import Layout
from .._model import StoreIdentity
from .leases import busy_timeout
from .sqlite_applications import Applications
from .sqlite_connect import RESTORE, connect, read_identity, sqlite_errors
from .sqlite_generations import Generations
from .sqlite_incidents import Incidents
from .sqlite_log import LogKeeping
from .sqlite_operators import Operators
from .sqlite_reader import SqliteReader, read_point
from .sqlite_reseal import Resealing
from .sqlite_schema import APPLICATION_ID, FORMAT, PAGE_SIZE, RecordsSql
from .sqlite_structure import Structure
from .store_kind import check_kind

IDLE_CONNECTIONS = 2
CAPABILITIES = frozenset(
    (
        "checksum", "encryption", "expiry", "fence-reads", "fence-writes",
        "generations", "log", "search", "sequence", "tombstones", "write-lock",
    )
)


class SqliteStore(Applications, Incidents, Operators, Resealing, Generations, LogKeeping, Structure):
    """See _store.Store. One connection writes; every reader has a connection of its own."""

    def __init__(self, path: str, layout: Layout, busy_timeout: float) -> None:
        with sqlite_errors(path):
            super().__init__(path, RecordsSql(layout), busy_timeout)
        self._capabilities = CAPABILITIES & layout.capabilities
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> SqliteStore:
        path, seconds = _path(params), busy_timeout(params)
        if create and not os.path.exists(path):
            _refuse_remains(path)
            with sqlite_errors(path):
                _make(path, RecordsSql(layout))
        _look(path)
        store = cls(path, layout, seconds)
        try:
            store._recognise()
        except BaseException:
            store.close()
            raise
        return store

    def _recognise(self) -> None:
        """Errors: InvalidInput for a SQLite file that is not such a store; StoreDamaged."""
        with sqlite_errors(self.path):
            tables = {row[0] for row in self._con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "memops_store" not in tables:
                ours = self._con.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
                if ours:
                    raise StoreDamaged(f"The store {self.path} has lost its control tables.", RESTORE)
                raise InvalidInput(
                    f"{self.path} is a SQLite database, but not a memory store.", "correct memory_store.path"
                )
            row = self._con.execute("SELECT format, layout FROM memops_store").fetchone()
        if row is None:
            raise StoreDamaged(f"The store {self.path} has lost its identity.", RESTORE)
        check_kind(self.path, row[0], row[1], FORMAT, self.sql.layout)

    def capabilities(self) -> frozenset[str]:
        return self._capabilities

    def identity(self) -> StoreIdentity:
        with sqlite_errors(self.path):
            return read_identity(self._con)

    def reader(self, point: str | None = None) -> SqliteReader:
        with sqlite_errors(self.path):
            if self._file() != self._inode:
                raise StoreUnavailable(
                    f"The store {self.path} was replaced while it was open.", "open it again (restart the program)"
                )
            if self._pid == os.getpid() and self._idle:
                con = self._idle.pop()
            else:
                con = connect(self.path, self.busy_timeout, read_only=True)
        return SqliteReader(con, self.path, self.sql, point, self._take_back)

    def _take_back(self, con: sqlite3.Connection) -> None:
        try:
            if con.in_transaction:
                con.execute("ROLLBACK")
        except sqlite3.Error:
            con.close()
            return
        if len(self._idle) < IDLE_CONNECTIONS and self._pid == os.getpid():
            self._idle.append(con)
        else:
            con.close()

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        with self._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
            yield read_point(con)

    def close(self) -> None:
        for con in self._idle:
            con.close()
        self._idle = []
        self._con.close()


def _path(params: t.Mapping[str, t.Any]) -> str:
    path = params.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput(f"memory_store.path is {path!r:.80}, not the path of a file.", "set memory_store.path")
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        raise InvalidInput(f"memory_store.path {path} is a directory.", "set memory_store.path to the store's file")
    return path


def _look(path: str, then: str = "restore a snapshot there (-e memory_create=true)") -> None:
    """Tell what SQLite cannot: that a file is missing, or has nothing in it. ``then``: how such a file is made.

    The file is never opened here: to close it would drop the locks that this process' other connections hold on it
    (POSIX), and the next process that closes the store would then delete the write-ahead log under their feet.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise StoreMissing(
            f"There is no memory store at {path}.", f"correct memory_store.path, or {then}"
        ) from None
    except OSError as exc:
        raise StoreUnavailable(
            f"The memory store {path} cannot be read: {exc.strerror}.", "check the permissions of file and directory"
        ) from None
    if not size:
        raise StoreDamaged(f"The memory store {path} is empty.", f"correct memory_store.path, or {RESTORE}")


def _refuse_remains(path: str) -> None:
    """Errors: StoreUnavailable. SQLite would play the log of a file that is lost into the new one of its name."""
    wal = path + "-wal"
    if os.path.exists(wal) and os.path.getsize(wal) and not os.path.exists(path):
        raise StoreUnavailable(
            f"The memory store {path} is lost: its file is not there, and its write-ahead log {wal} is.",
            f"bring the file back; to begin a new store there, move {wal} and {path}-shm away",
        )


def _make(path: str, sql: RecordsSql) -> None:
    """Make a store in a temporary file and link it to its name: nobody ever sees a half-made one."""
    folder = os.path.dirname(path)
    draft = f"{path}.new-{secrets.token_hex(4)}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as exc:
        raise StoreUnavailable(
            f"No memory store can be made at {path}: {exc.strerror}.", "choose a directory that this user may write"
        ) from None
    try:
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as con:
            con.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            con.execute("PRAGMA synchronous = FULL")
            con.execute("BEGIN IMMEDIATE")
            for texts in (sql.tables(), sql.indexes(), sql.triggers()):
                for text in texts.values():
                    con.execute(text)
            store_id = str(uuid.uuid4())
            con.execute(
                "INSERT INTO memops_store VALUES (1, ?, ?, ?, ?, 1, 0, 0, 0, 0, 0)",
                (FORMAT, store_id, store_id, sql.layout),
            )
            con.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            con.execute(f"PRAGMA user_version = {FORMAT}")
            con.execute("COMMIT")
            con.execute("PRAGMA journal_mode = wal")
        with contextlib.suppress(FileExistsError):  # another process was faster; its store is as good
            os.link(draft, path)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        raise StoreUnavailable(
            f"No memory store can be made at {path}: {exc.strerror}.", "choose a directory on a local disk"
        ) from None
    finally:
        for name in (draft, draft + "-wal", draft + "-shm", draft + "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
