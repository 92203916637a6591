# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan as a table on disk: one row per key that is not simply kept.

PRIVATE to the collection. `--check --diff`, the damage map, the data-loss statement, the escalation, apply and the
failback merge all read this file. It holds keys and checksums, no payload.
"""

from __future__ import annotations

import json
import os
import sqlite3
import typing as t

from .._errors import CannotProceed
from .._model import LastWrite
from .commands import run

#: what will be done with a key
ACTIONS = ("repair", "suspect", "conflict", "lost", "expired", "absent")
#: why a key is put back of which nobody knows whether it was lost in the damage
UNSURE = "absent: lost in the damage, or deleted before it"

SCHEMA = """
CREATE TABLE plan (
  key TEXT PRIMARY KEY,
  action TEXT NOT NULL,      -- repair | suspect | conflict | lost | expired | absent
  reason TEXT NOT NULL,
  expected BLOB,             -- checksum of the live row, NULL: no live row
  source TEXT,               -- snapshot that the row to put there comes from; NULL: none has one
  digest BLOB,               -- checksum of that row
  epoch INTEGER,             -- version that the key should have
  sequence INTEGER
) WITHOUT ROWID;
CREATE INDEX plan_by_action ON plan (action, key);
CREATE TABLE writes (        -- the newest logged write of keys that no copy was found for at first
  key TEXT PRIMARY KEY, epoch INTEGER, sequence INTEGER, operation TEXT, digest BLOB, lock INTEGER, actor TEXT,
  at INTEGER
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Entry(t.NamedTuple):
    """One row of the plan."""

    key: str
    action: str
    reason: str
    expected: bytes | None
    source: str | None
    digest: bytes | None
    epoch: int | None
    sequence: int | None

    @property
    def buried(self) -> bool:
        """Whether it becomes a tombstone, where the store has them: nobody has a good copy of it."""
        return self.source is None and self.action != "expired"


class PlanFile:
    """Written once, under a temporary name until it is complete; read by everything after it."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

    @classmethod
    def create(cls, path: str) -> PlanFile:
        """A new, empty plan at ``path`` (a former unfinished one is replaced)."""
        for leftover in (path, path + "-journal"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")  # finish() syncs the file before it gets its name
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        return cls(path, connection)

    @classmethod
    def open(cls, path: str, namespace: str = "<namespace>") -> PlanFile:
        """``namespace``: for the command in an error. Errors: CannotProceed when there is no plan or it is damaged."""
        anew = run("diagnose", memory_namespace=namespace, memory_again="true")  # which drafts the plan
        if not os.path.exists(path):
            raise CannotProceed(f"There is no plan at {path}.", anew)
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        try:
            (state,) = connection.execute("SELECT value FROM meta WHERE name='complete'").fetchone() or ("",)
        except sqlite3.DatabaseError as exc:
            connection.close()
            raise CannotProceed(f"The plan at {path} is damaged: {exc}.", anew) from None
        if state != "true":
            connection.close()
            raise CannotProceed(f"The plan at {path} is not complete.", anew)
        return cls(path, connection)

    def add(self, entries: t.Iterable[Entry]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO plan VALUES (?,?,?,?,?,?,?,?)", entries)

    def note_writes(self, writes: t.Iterable[LastWrite]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO writes VALUES (?,?,?,?,?,?,?,?)", writes)

    def writes(self, keys: t.Sequence[str]) -> dict[str, LastWrite]:
        """The newest logged write of these keys, as far as it was noted."""
        found: dict[str, LastWrite] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            rows = self._db.execute(f"SELECT * FROM writes WHERE key IN ({','.join('?' * len(part))})", part)
            found.update((row[0], LastWrite._make(row)) for row in rows)
        return found

    def get(self, keys: t.Sequence[str]) -> list[Entry]:
        """What is planned for these keys so far."""
        found: list[Entry] = []
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            rows = self._db.execute(f"SELECT * FROM plan WHERE key IN ({','.join('?' * len(part))})", part)
            found += [Entry._make(row) for row in rows]
        return found

    def drop(self, keys: t.Sequence[str]) -> int:
        """Nothing is to be done about these keys after all; how many had an entry."""
        return max(0, self._db.executemany("DELETE FROM plan WHERE key = ?", [(key,) for key in keys]).rowcount)

    def finish(self, path: str, **meta: t.Any) -> PlanFile:
        """Complete the plan and move it to ``path``, durable."""
        rows = [(name, json.dumps(value)) for name, value in {**meta, "complete": True}.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", rows)
        self._db.execute("COMMIT")
        self._db.close()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(self.path, path)
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return PlanFile.open(path)

    def meta(self) -> dict[str, t.Any]:
        return {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM meta")}

    def counts(self) -> dict[str, int]:
        found = dict(self._db.execute("SELECT action, count(*) FROM plan GROUP BY action"))
        return {action: found.get(action, 0) for action in ACTIONS}

    def absent(self) -> int:
        """How many repairs put something where nothing is."""
        query = "SELECT count(*) FROM plan WHERE action='repair' AND expected IS NULL"
        return int(self._db.execute(query).fetchone()[0])

    def gone(self, limit: int) -> list[tuple[str, bool, str | None]]:
        """Keys of which nothing is there: (key, whether it is to come back, snapshot that has it)."""
        query = (
            "SELECT key, action = 'repair', source FROM plan "
            "WHERE action = 'absent' OR (action = 'repair' AND expected IS NULL) ORDER BY key LIMIT ?"
        )
        return [(key, bool(back), source) for key, back, source in self._db.execute(query, (limit,))]

    def gone_until(self, last: str, limit: int) -> list[Entry]:
        """The last entries up to this key of which nothing is there."""
        query = "SELECT * FROM plan WHERE key <= ? AND expected IS NULL ORDER BY key DESC LIMIT ?"
        return [Entry._make(row) for row in self._db.execute(query, (last, limit))]

    def gone_between(self, first: str, end: str) -> list[Entry]:
        """Entries from ``first`` up to before ``end`` of which nothing is there."""
        query = "SELECT * FROM plan WHERE key >= ? AND key < ? AND expected IS NULL"
        return [Entry._make(row) for row in self._db.execute(query, (first, end))]

    def listed(self, limit: int) -> dict[str, dict[str, str]]:
        """Action → the first ``limit`` keys, each with its reason."""
        query = "SELECT key, reason FROM plan WHERE action = ? ORDER BY key LIMIT ?"
        found = {action: dict(self._db.execute(query, (action, limit)).fetchall()) for action in ACTIONS}
        return {action: keys for action, keys in found.items() if keys}

    def repairs_from(self) -> list[str]:
        """The snapshots that repairs come from."""
        query = "SELECT DISTINCT source FROM plan WHERE action = 'repair' AND source IS NOT NULL"
        return [source for (source,) in self._db.execute(query)]

    def because(self, reason: str, limit: int) -> tuple[int, list[str]]:
        """How many entries have this reason, and the first of their keys."""
        query = "SELECT key FROM plan WHERE reason = ? ORDER BY key LIMIT ?"
        keys = [key for (key,) in self._db.execute(query, (reason, limit))]
        return self.reasons().get(reason, 0), keys

    def reasons(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT reason, count(*) FROM plan GROUP BY reason"))

    def sources(self) -> dict[str, int]:
        """Snapshot → number of rows that will come from it, newest first."""
        query = "SELECT source, count(*) FROM plan WHERE source IS NOT NULL GROUP BY source ORDER BY source DESC"
        return dict(self._db.execute(query))

    def entries(self, action: str | None = None, batch: int = 1000) -> t.Iterator[list[Entry]]:
        """Entries (of one action) in key order, ``batch`` at a time."""
        return self._batches("action = ?" if action else "true", [action] if action else [], batch)

    def unsourced(self) -> t.Iterator[list[Entry]]:
        """Entries for which no good copy was found yet."""
        return self._batches("source IS NULL AND action IN ('lost','suspect')", [], 1000)

    def _batches(self, where: str, bound: list[str], batch: int) -> t.Iterator[list[Entry]]:
        query, after = f"SELECT * FROM plan WHERE {where} AND key > ? ORDER BY key LIMIT ?", ""
        while True:
            rows = self._db.execute(query, (*bound, after, batch)).fetchall()
            if not rows:
                return
            yield [Entry._make(row) for row in rows]
            after = rows[-1][0]

    def older_copies(self, keys: t.Sequence[str] | None = None) -> list[Entry]:
        """Those of ``keys`` (None: the first of all) that get a copy though it is not the version they should have."""
        query = "SELECT * FROM plan WHERE source IS NOT NULL AND action IN ('lost','suspect')"
        if keys is None:
            return [Entry._make(row) for row in self._db.execute(query + " LIMIT 1")]
        found: list[Entry] = []
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            found += [Entry._make(row) for row in self._db.execute(f"{query} AND key IN ({marks})", part)]
        return found

    def lost_older(self) -> int:
        """How many lost keys get an older version than the one that they should have."""
        query = "SELECT count(*) FROM plan WHERE action = 'lost' AND source IS NOT NULL"
        return int(self._db.execute(query).fetchone()[0])

    def keys(self, action: str, limit: int) -> list[str]:
        return [
            k for (k,) in self._db.execute("SELECT key FROM plan WHERE action=? ORDER BY key LIMIT ?", (action, limit))
        ]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> PlanFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
