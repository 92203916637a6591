# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which writes the access log acknowledges, where a key's newest entry alone does not tell.

PRIVATE to the collection. Only needed when some entries are damaged or were made without the write lock: for the keys
of these, and for the versions inside a distrusted window, the entries that can be believed are collected in a file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t

from .._codec import log_checksum
from .._model import LastWrite, LogEntry, Window
from .._store import Reader

Version = t.Tuple[int, int]

SCHEMA = """
PRAGMA synchronous=OFF;
PRAGMA journal_mode=MEMORY;
CREATE TABLE doubtful (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE believed (
  key TEXT, epoch INTEGER, sequence INTEGER, operation TEXT, digest BLOB, lock INTEGER, actor TEXT, at INTEGER,
  PRIMARY KEY (key, epoch, sequence)
) WITHOUT ROWID;
"""
FIELDS = "key, epoch, sequence, operation, digest, lock, actor, at"
SLOTS = 1 << 20  # one byte each: whether any key with that hash is in doubt, so that the others cost no query


class Acknowledged:
    """``path`` None: every entry of the log is intact and locked, so the newest one tells everything.

    Filled in two passes: ``doubt`` as the log is read for the first time, then ``fill``. ``existing``: filled already.
    """

    def __init__(self, path: str | None = None, *, existing: bool = False) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._slots = bytearray(SLOTS if path is not None else 0)
        if path is not None:
            if not existing:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None)
            if not existing:
                self._db.executescript(SCHEMA)
                self._db.execute("BEGIN")
            for (key,) in self._db.execute("SELECT key FROM doubtful"):
                self._slots[hash(key) % SLOTS] = 1

    def doubt(self, entries: t.Iterable[LogEntry]) -> None:
        """Note the keys of entries that cannot be believed."""
        keys = [(entry[4],) for entry in entries if entry[3] in ("write", "delete") and _is_text(entry[4])]
        if keys and self._db is not None:
            self._db.executemany("INSERT OR IGNORE INTO doubtful VALUES (?)", keys)
            for (key,) in keys:
                self._slots[hash(key) % SLOTS] = 1

    def fill(self, reader: Reader, namespace: str, windows: t.Sequence[Window], verify: bool = True) -> None:
        """Collect what can be believed about the doubtful keys and about the time of any window.

        ``verify`` False: the caller has seen that the checksums of all entries hold.
        """
        db = self._db
        if db is None:
            return
        slots = self._slots
        low = min((window.first_sequence for window in windows), default=1)
        high = max((window.last_sequence for window in windows), default=0)
        for batch in reader.log(namespace, operations=("write", "delete")):
            rows = [
                (e[4], e[5], e[6], e[3], e[7], e[8], e[9], e[1], inside(e[5], e[6], windows))
                for e in batch
                if (slots[hash(e[4]) % SLOTS] or (e[6].__class__ is int and low <= e[6] <= high))
                and believed(e, windows, verify)
            ]
            db.executemany(
                "INSERT OR IGNORE INTO believed SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 "
                "WHERE ?9 OR EXISTS (SELECT 1 FROM doubtful WHERE key = ?1)",
                rows,
            )
        db.execute("COMMIT")

    def newest(self, key: str, write: LastWrite | None) -> LastWrite | None:
        """The newest write or deletion of ``key`` that can be believed; ``write`` is the newest one logged."""
        if write is None or not self._slots or not self._slots[hash(key) % SLOTS] or not self._doubtful(key):
            return write
        row = (
            t.cast(sqlite3.Connection, self._db)
            .execute(f"SELECT {FIELDS} FROM believed WHERE key = ? ORDER BY epoch DESC, sequence DESC LIMIT 1", (key,))
            .fetchone()
        )
        return None if row is None else LastWrite._make(row)

    def entry(self, key: str, version: Version, write: LastWrite | None) -> LastWrite | None:
        """The entry of this very version, when the log has one that can be believed."""
        if write is not None and (write.epoch, write.sequence) == version:
            return write
        if self._db is None:
            return None
        row = self._db.execute(
            f"SELECT {FIELDS} FROM believed WHERE key = ? AND epoch = ? AND sequence = ?", (key, *version)
        ).fetchone()
        return None if row is None else LastWrite._make(row)

    def doubts(self) -> t.Callable[[str], int] | None:
        """0 for keys whose newest entry is the one to believe, no query being needed to know it; None: so are all."""
        slots = self._slots
        return (lambda key: slots[hash(key) % SLOTS]) if any(slots) else None

    def _doubtful(self, key: str) -> bool:
        db = t.cast(sqlite3.Connection, self._db)
        return db.execute("SELECT 1 FROM doubtful WHERE key = ?", (key,)).fetchone() is not None

    def close(self, *, keep: bool = False) -> None:
        if self._db is not None and self._path is not None:
            self._db.close()
            self._db = None
            if not keep:
                os.unlink(self._path)


def believed(entry: LogEntry, windows: t.Sequence[Window], verify: bool = True) -> bool:
    """Intact (not looked at again without ``verify``), made under the write lock, and in no window that distrusts
    locked writes too."""
    if entry[8] is None or not (isinstance(entry[5], int) and isinstance(entry[6], int) and _is_text(entry[4])):
        return False
    if verify and log_checksum(entry) != entry[11]:
        return False
    return not any(window.covers(entry[5], entry[6], entry[8], entry[9]) for window in windows)


def inside(epoch: t.Any, sequence: t.Any, windows: t.Sequence[Window]) -> bool:
    """Whether a version lies in the time of any window, whoever wrote it."""
    for window in windows:
        here = window.epoch == epoch and sequence.__class__ is int
        if here and window.first_sequence <= sequence <= window.last_sequence:
            return True
    return False


def _is_text(key: t.Any) -> bool:
    """Damage can leave a key that is no text, or text that cannot be bound."""
    try:
        return isinstance(key, str) and bool(key.encode())
    except UnicodeEncodeError:
        return False
