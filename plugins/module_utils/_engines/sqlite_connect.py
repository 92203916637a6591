# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Connections and transactions of a SQLite store, and SQLite's errors in words.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import typing as t
import urllib.parse
from operator import itemgetter

from .._errors import (
    InvalidInput,
    MemoryOpsError,
    NamespaceQuarantined,
    NamespaceUnknown,
    StoreDamaged,
    StoreUnavailable,
)
from .._model import Claim, NamespaceState, Row, StoreIdentity
from .leases import check_claim
from .sqlite_control import refuse_astray
from .sqlite_schema import ASIDE_COLUMNS, FENCE_MESSAGE, SAMPLE_MASK, RecordsSql

CACHE_KIB: t.Final = 16 << 10
READ_CACHE_KIB: t.Final = 4 << 10  # a scan passes each page once
CHECKPOINT_PAGES: t.Final = 4000  # SQLite's 1,000 make bulk loading a quarter slower
OWNER_SECONDS: t.Final = 2.0
MOMENT_SECONDS: t.Final = 0.1  # in which what was just looked at may have been given away
WAL_BYTES: t.Final = 64 << 20  # the write-ahead log shrinks to this after a checkpoint
NAMESPACE_COLUMNS: t.Final = (
    "name, state, generation, ttl, serving_ttl, incident, prior_ttl, prior_state, "
    "restored_snapshot, restored_epoch, restored_sequence, restored_at, restored_digest"
)
#: A restore works in a store that opens, so a file that does not makes room; what is left of it may be evidence.
RESTORE = (
    "stop the application, move that file (and those with -wal and -shm behind its name) away, let an application that "
    "has tables of its own make them anew, then restore: "
    "ansible-playbook memops.agent_memory.restore -e memory_create=true"
)


def wall_clock() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def lenient(raw: bytes) -> str:
    """Text that another program damaged: what is no UTF-8 becomes surrogates, which no checksum takes."""
    return raw.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def decoding_leniently(con: sqlite3.Connection) -> t.Iterator[None]:
    """A row that holds text which is no UTF-8 is delivered, as damaged as it is, instead of ending the query."""
    former = con.text_factory
    con.text_factory = lenient
    try:
        yield
    finally:
        con.text_factory = former


def translate(exc: sqlite3.Error, path: str) -> MemoryOpsError:
    """What a SQLite error means to the person who runs the store."""
    text = str(exc)
    if "decode" in text:
        text = text.partition(" with text")[0]  # the driver quotes what it cannot decode: stored bytes
    low = text.lower()
    if FENCE_MESSAGE in text:
        return NamespaceQuarantined(
            f"The store {path} refused a write: the namespace is quarantined or this generation is not the active one.",
            "wait for the release, or run the release playbook",
        )
    short = getattr(exc, "sqlite_errorname", "") == "SQLITE_IOERR_SHORT_READ"  # Python < 3.11 does not tell
    if "not a database" in low:
        return StoreDamaged(
            f"The memory store {path} is not a SQLite database.", f"correct memory_store.path, or {RESTORE}"
        )
    if short or "malformed" in low:
        return StoreDamaged(f"The store {path} is damaged: {text}.", RESTORE)
    if "locked" in low or "locking protocol" in low or "busy" in low:
        return StoreUnavailable(
            f"The store {path} is busy: another process held it longer than the busy timeout.",
            "try again, or find the process that holds it: fuser -v " + path,
        )
    if "is full" in low:
        return StoreUnavailable(f"The store {path} cannot grow: {text}.", "free space on its disk, then try again")
    if "readonly" in low or "read-only" in low:
        return StoreUnavailable(
            f"The store {path} cannot be written: {text}.", "make the file and its directory writable for this user"
        )
    if "unable to open" in low:
        return StoreUnavailable(
            f"The store {path} cannot be opened: {text}.", "check the path and the permissions of file and directory"
        )
    if "i/o error" in low:
        return StoreUnavailable(f"The disk under the store {path} fails: {text}.", "check the disk: dmesg, smartctl")
    if "too big" in low or isinstance(exc, (sqlite3.DataError, sqlite3.IntegrityError)):
        return InvalidInput(f"The store {path} does not take this record: {text}.", "correct or split the record")
    if "no such table" in low or "no such column" in low:
        return StoreDamaged(f"The store {path} has lost a part of its structure: {text}.", RESTORE)
    return StoreUnavailable(f"The store {path} does not work: {text}.", f"look at it with: sqlite3 {path} .dbinfo")


@contextlib.contextmanager
def sqlite_errors(path: str) -> t.Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise translate(exc, path) from exc


def _wait_for_owner(con: sqlite3.Connection, path: str) -> None:
    """Where root makes -wal and -shm, SQLite gives them to the owner of the database a moment later, and nobody else
    opens it until then. Every other error comes again with the caller's first statement, and soon: on media that became
    read-only an application opens its store again and again.
    """
    begun = time.monotonic()
    while True:
        try:
            con.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError as exc:
            seconds = OWNER_SECONDS if _somebody_elses(f"{path}-wal", f"{path}-shm") else MOMENT_SECONDS
            if "unable to open" in str(exc) and time.monotonic() - begun < seconds:
                time.sleep(0.01)
                continue
        except sqlite3.Error:
            pass
        return


def _somebody_elses(*files: str) -> bool:
    return any(os.path.lexists(one) and not os.access(one, os.R_OK | os.W_OK) for one in files)


def connect(path: str, busy_timeout: float, *, read_only: bool = False) -> sqlite3.Connection:
    """An open connection in autocommit mode; never makes a file. Errors: sqlite3.Error."""
    uri = "file:" + urllib.parse.quote(os.path.abspath(path)) + "?mode=rw"
    con = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        _wait_for_owner(con, path)
        con.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        con.execute("PRAGMA synchronous = FULL")
        con.execute("PRAGMA temp_store = FILE")
        con.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB if read_only else CACHE_KIB}")
        con.execute("PRAGMA cell_size_check = ON")
        con.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        con.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if read_only:
            con.execute("PRAGMA query_only = ON")
    except BaseException:
        con.close()
        raise
    return con


def read_identity(con: sqlite3.Connection) -> StoreIdentity:
    row = con.execute("SELECT store_id, lineage, layout, epoch, sequence FROM memops_store").fetchone()
    return StoreIdentity(row[0], row[1], "sqlite", row[2], row[3], row[4])


def read_namespace(con: sqlite3.Connection, name: str, path: str) -> NamespaceState:
    """Errors: NamespaceUnknown."""
    row = con.execute(f"SELECT {NAMESPACE_COLUMNS} FROM memops_namespace WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NamespaceUnknown(
            f"The store {path} has no namespace {name!r:.80}.",
            "name one of those that the playbook memops.agent_memory.info lists",
        )
    return NamespaceState(*row)


class Opened:
    """The connection of one open store, whatever its records lie in, and the transactions of its control tables."""

    def __init__(self, path: str, busy_timeout: float) -> None:
        self.path = path
        self.busy_timeout = busy_timeout
        self.clock: t.Callable[[], int] = wall_clock
        self._con = connect(path, busy_timeout)
        self._inode = self._file()

    def _file(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError as exc:
            raise StoreUnavailable(
                f"The store {self.path} is gone: {exc.strerror}.", "bring the file back, then start again"
            ) from None
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT; rolled back when the body raises."""
        con = self._con
        with sqlite_errors(self.path):
            if self._file() != self._inode:  # a write would go to the deleted file and be lost
                raise StoreUnavailable(
                    f"The store {self.path} was replaced while it was open.", "open it again (restart the program)"
                )
            con.execute("BEGIN IMMEDIATE")
            before = con.total_changes
            try:
                yield con
                if con.total_changes != before:
                    con.execute("UPDATE memops_store SET commits = commits + 1")
                con.execute("COMMIT")
            except BaseException:
                if con.in_transaction:  # SQLite itself has rolled back after some errors
                    con.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _operating(self, claim: Claim) -> t.Iterator[sqlite3.Connection]:
        """A transaction of an operator: checks the token."""
        with self._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
            self._check(con, claim)
            yield con

    def _check(self, con: sqlite3.Connection, claim: Claim) -> None:
        row = con.execute(
            "SELECT attempt, token, state, owner FROM memops_incident WHERE namespace = ? AND incident = ?",
            (claim.namespace, claim.incident),
        ).fetchone()
        check_claim(claim, None if row is None else tuple(row[:3]))

    def _namespace(self, con: sqlite3.Connection, name: str) -> NamespaceState:
        return read_namespace(con, name, self.path)

    def _lead_back(self, con: sqlite3.Connection) -> list[str]:
        """What was done about control rows that do not lead to a namespace's records."""
        return []


class Connected(Opened):
    """A store whose records are the collection's own: what all parts do with them."""

    def __init__(self, path: str, sql: RecordsSql, busy_timeout: float) -> None:
        super().__init__(path, busy_timeout)
        self.sql = sql
        self._held: dict[str, int] = {}  # namespace → number of the write lock that this object holds

    def _namespace(self, con: sqlite3.Connection, name: str) -> NamespaceState:
        """Errors: NamespaceUnknown, NamespaceDamaged."""
        refuse_astray(con, self.sql, name)
        return super()._namespace(con, name)

    @contextlib.contextmanager
    def _operating(self, claim: Claim, *, unfenced: bool = False) -> t.Iterator[sqlite3.Connection]:
        """A transaction of an operator: checks the token; ``unfenced`` lifts the triggers for its duration."""
        with self._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
            self._check(con, claim)
            if not unfenced:
                yield con
                return
            self._drop_fence(con)
            yield con
            self._raise_fence(con)

    @contextlib.contextmanager
    def _relaxed(self) -> t.Iterator[None]:
        """Commits neither wait for the disk nor move the write-ahead log into the file: ``settle`` does both, in
        another process, while this one goes on. Any other commit makes them durable, too."""
        with sqlite_errors(self.path):
            self._con.execute("PRAGMA synchronous = NORMAL")
            self._con.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            yield
        finally:
            with sqlite_errors(self.path):
                self._con.execute("PRAGMA synchronous = FULL")
                self._con.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    @contextlib.contextmanager
    def _undo_in_memory(self) -> t.Iterator[None]:
        """SQLite keeps the former pages of a statement that changes many rows, to take it back alone: in a temporary
        file they cost as much as the write-ahead log. Some hundred rows have few enough of them for memory."""
        self._con.execute("PRAGMA temp_store = MEMORY")
        try:
            yield
        finally:
            self._con.execute("PRAGMA temp_store = FILE")

    def _drop_fence(self, con: sqlite3.Connection) -> None:
        for name in self.sql.triggers():
            con.execute(f"DROP TRIGGER IF EXISTS {name}")

    def _raise_fence(self, con: sqlite3.Connection) -> None:
        for text in self.sql.triggers().values():
            con.execute(text)

    def _make_namespace(self, con: sqlite3.Connection, name: str, state: str, ttl: float | None) -> None:
        """Errors: NamespaceDamaged where it was made before."""
        refuse_astray(con, self.sql, name)
        generation = con.execute(
            "INSERT INTO memops_generation (namespace, created) VALUES (?, ?)", (name, self.clock())
        ).lastrowid
        con.execute(
            "INSERT INTO memops_namespace (name, state, generation, ttl) VALUES (?, ?, ?, ?)",
            (name, state, generation, ttl),
        )

    def _put_rows(self, con: sqlite3.Connection, generation: int, rows: t.Sequence[Row]) -> None:
        """Insert or replace, and sample the keys."""
        con.executemany(self.sql.insert(generation), rows)
        self._sample(con, generation, rows)

    def _sample(self, con: sqlite3.Connection, generation: int, rows: t.Sequence[Row]) -> None:
        sampled = [(generation, row[0]) for row in rows if not row[2] & SAMPLE_MASK]
        if sampled:
            con.executemany("INSERT OR IGNORE INTO memops_sample VALUES (?, ?)", sampled)

    def _set_aside(
        self,
        con: sqlite3.Connection,
        namespace: str,
        incident: str,
        generation: int,
        keys: t.Iterable[tuple[str, str]],
    ) -> None:
        """Keep the present rows of these (key, reason) pairs beside."""
        s = self.sql
        con.executemany(
            f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) "
            f"SELECT ?, ?, ?, ?, {s.columns} FROM {s.table} WHERE {s.generation} = ? AND {s.key} = ?",
            [(namespace, incident, reason, self.clock(), generation, key) for key, reason in keys],
        )

    def _keep_up(self, con: sqlite3.Connection, epoch: int, sequence: int, at: int) -> None:
        """The store's counters never fall behind what it holds, so that its next write is the newest."""
        con.execute(
            "UPDATE memops_store SET newest = max(newest, ?), "
            "epoch = CASE WHEN (epoch, sequence) < (?, ?) THEN ? ELSE epoch END, "
            "sequence = CASE WHEN (epoch, sequence) < (?, ?) THEN max(sequence, ?) ELSE sequence END "
            "WHERE newest < ? OR (epoch, sequence) < (?, ?)",
            (at, epoch, sequence, epoch, epoch, sequence, sequence, at, epoch, sequence),
        )

    def _keep_up_with(self, con: sqlite3.Connection, rows: t.Sequence[Row]) -> None:
        if rows:
            epoch, sequence = max(map(itemgetter(1, 2), rows))
            self._keep_up(con, epoch, sequence, max(map(itemgetter(4), rows)))
