# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object, as the layout ``python`` meets it: notes in a SQLite file that several processes
use. It knows nothing of the collection."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import typing as t


class Quarantined(Exception):
    """The namespace takes nothing now."""


class Notebook:
    """The methods of the runbook, nothing more."""

    def __init__(self, path: str, operator: bool = False) -> None:
        self._path, self._operator = path, operator
        with self._file() as con:
            con.execute("PRAGMA journal_mode = wal")
            con.execute("CREATE TABLE IF NOT EXISTS notes (space TEXT, key TEXT, data TEXT, written REAL, gone INTEGER "
                        "NOT NULL DEFAULT 0, PRIMARY KEY (space, key))")  # fmt: skip
            con.execute("CREATE TABLE IF NOT EXISTS spaces (name TEXT PRIMARY KEY, ttl REAL, closed INTEGER DEFAULT 0)")
            con.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, at REAL, space TEXT, operation TEXT, "
                        "key TEXT, reason TEXT)")  # fmt: skip
            con.execute("CREATE TABLE IF NOT EXISTS secrets (id INTEGER PRIMARY KEY, word TEXT)")

    @contextlib.contextmanager
    def _file(self) -> t.Iterator[sqlite3.Connection]:
        con = sqlite3.connect(self._path, timeout=20, isolation_level=None)
        con.execute("PRAGMA synchronous = OFF")
        try:
            yield con
        finally:
            con.close()

    def _refuse(self, con: sqlite3.Connection, namespace: str) -> None:
        """Where the class has no fence there is none."""

    def _log(self, con: sqlite3.Connection, namespace: str, operation: str, key: str, reason: str | None) -> None:
        if not self._operator:
            con.execute("INSERT INTO log (at, space, operation, key, reason) VALUES (?, ?, ?, ?, ?)",
                        (time.time(), namespace, operation, key, reason))  # fmt: skip

    def write(self, namespace: str, key: str, data: t.Any, reason: str | None = None) -> None:
        with self._file() as con:
            con.execute("BEGIN IMMEDIATE")
            self._refuse(con, namespace)
            con.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, 0)",
                        (namespace, key, json.dumps(data), time.time()))  # fmt: skip
            self._log(con, namespace, "write", key, reason)
            con.execute("COMMIT")

    def read(self, namespace: str, key: str) -> t.Any:
        with self._file() as con:
            self._refuse(con, namespace)
            row = con.execute(
                "SELECT data, written FROM notes WHERE space = ? AND key = ? AND NOT gone", (namespace, key)
            ).fetchone()
            over = row is not None and self._over(con, namespace, row[1])
            self._log(con, namespace, "miss" if row is None or over else "hit", key, None)
        return None if row is None or over else json.loads(row[0])

    def _over(self, con: sqlite3.Connection, namespace: str, written: float) -> bool:
        """The TTL is checked when an application reads; an operator sees what there is."""
        ttl = con.execute("SELECT ttl FROM spaces WHERE name = ?", (namespace,)).fetchone()
        return not self._operator and ttl is not None and ttl[0] is not None and written + ttl[0] < time.time()

    def delete(self, namespace: str, key: str, soft: bool = True) -> None:
        with self._file() as con:
            con.execute("BEGIN IMMEDIATE")
            self._refuse(con, namespace)
            con.execute(
                "UPDATE notes SET gone = 1 WHERE space = ? AND key = ?" if soft
                else "DELETE FROM notes WHERE space = ? AND key = ?", (namespace, key),
            )  # fmt: skip
            self._log(con, namespace, "delete", key, None)
            con.execute("COMMIT")

    def list_keys(self, namespace: str) -> t.Iterator[str]:
        with self._file() as con:
            self._refuse(con, namespace)
            for (key,) in con.execute("SELECT key FROM notes WHERE space = ? AND NOT gone", (namespace,)).fetchall():
                yield key

    def get_access_logs(self, namespace: str) -> list[dict[str, t.Any]]:
        with self._file() as con:
            rows = con.execute("SELECT at, operation, key, reason FROM log WHERE space = ? ORDER BY id", (namespace,))
            return [dict(zip(("at", "operation", "key", "reason"), row)) for row in rows]

    def rotate_keys(self) -> int:
        with self._file() as con:
            return int(con.execute("INSERT INTO secrets (word) VALUES ('new')").lastrowid or 0)

    def evaluate_benchmark(self, namespace: str) -> dict[str, t.Any]:
        keys = list(self.list_keys(namespace))
        found = sum(self.read(namespace, key) is not None for key in keys)
        return {"hit_rate": found / len(keys) if keys else None, "cases": len(keys)}

    def ttl(self, namespace: str) -> float | None:
        with self._file() as con:
            row = con.execute("SELECT ttl FROM spaces WHERE name = ?", (namespace,)).fetchone()
        return None if row is None else row[0]

    def set_ttl(self, namespace: str, seconds: float | None) -> None:
        with self._file() as con:
            con.execute("INSERT INTO spaces (name, ttl) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET ttl = "
                        "excluded.ttl", (namespace, seconds))  # fmt: skip


class FencedNotebook(Notebook):
    """With the two methods that make a fence of a quarantine."""

    def _refuse(self, con: sqlite3.Connection, namespace: str) -> None:
        closed = con.execute("SELECT closed FROM spaces WHERE name = ?", (namespace,)).fetchone()
        if not self._operator and closed is not None and closed[0]:
            raise Quarantined(namespace)

    def _close(self, namespace: str, closed: bool) -> None:
        with self._file() as con:
            con.execute("INSERT INTO spaces (name, closed) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET closed = "
                        "excluded.closed", (namespace, closed))  # fmt: skip

    def quarantine(self, namespace: str) -> None:
        self._close(namespace, True)

    def release(self, namespace: str) -> None:
        self._close(namespace, False)

    def list_namespaces(self) -> list[str]:
        with self._file() as con:
            return [name for (name,) in con.execute("SELECT DISTINCT space FROM notes WHERE NOT gone ORDER BY 1")]
