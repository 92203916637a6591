# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Hands on a SQLite store, past Memory and the fence."""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row

from .raw import COLUMNS, Client, Raw


class SqliteRaw(Raw):
    @contextlib.contextmanager
    def sql(self) -> t.Iterator[sqlite3.Connection]:
        """A transaction without the fence's triggers."""
        with contextlib.closing(self._connect()) as con:
            con.execute("BEGIN IMMEDIATE")
            fences = con.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _text in fences:
                con.execute(f'DROP TRIGGER "{name}"')
            yield con
            for _name, text in fences:
                con.execute(text)
            con.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.bench.params(self.name)["path"], timeout=20, isolation_level=None)

    def put(self, namespace: str, rows: t.Sequence[Row]) -> None:
        with self.sql() as con:
            con.executemany(
                f"INSERT OR REPLACE INTO memory_records (generation, {COLUMNS}) VALUES "
                "((SELECT generation FROM memops_namespace WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(namespace, *row) for row in rows],
            )

    def remove(self, namespace: str, keys: t.Sequence[str]) -> None:
        with self.sql() as con:
            con.executemany(
                "DELETE FROM memory_records WHERE generation = (SELECT generation FROM memops_namespace "
                "WHERE name = ?) AND key = ?", [(namespace, key) for key in keys],
            )  # fmt: skip

    def forget(self, namespace: str, sequence: int) -> None:
        with self.sql() as con:
            con.execute("DELETE FROM memory_access_log WHERE namespace = ? AND sequence = ?", (namespace, sequence))

    def forge(self, namespace: str, sequence: int) -> None:
        with self.sql() as con:
            con.execute(
                "UPDATE memory_access_log SET actor = 'someone else' WHERE namespace = ? AND sequence = ?",
                (namespace, sequence),
            )

    def take_sequences(self, count: int) -> None:
        with self.sql() as con:
            con.execute("UPDATE memops_store SET sequence = sequence + ?", (count,))

    def policy(self, namespace: str, state: str, serving_ttl: float | None) -> None:
        with self.sql() as con:
            con.execute(
                "UPDATE memops_namespace SET state = ?, serving_ttl = ? WHERE name = ?", (state, serving_ttl, namespace)
            )

    def break_fence(self, namespace: str) -> None:
        with contextlib.closing(self._connect()) as con:
            con.execute("DROP TRIGGER memops_fence_update")

    def lose_index(self, namespace: str) -> None:
        with contextlib.closing(self._connect()) as con:
            con.execute("DROP INDEX memory_access_log_writes")

    def client(self) -> Client:
        return SqliteClient(self._connect())

    def wipe(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.bench.params(self.name)["path"])


class SqliteClient(Client):
    errors = sqlite3.Error

    def __init__(self, con: sqlite3.Connection) -> None:
        self._con = con
        con.execute("SELECT count(*) FROM memory_records").fetchone()

    def refusal(self, exc: Exception) -> bool:
        return "memops fence" in str(exc)

    def writes(self, key: str) -> dict[str, t.Callable[[], t.Any]]:
        columns = "generation, key, epoch, sequence, created, updated, key_id, payload, checksum"
        values = "(1, ?, 1, 1, 1, 1, '', x'', x'')"
        texts = {
            "INSERT": (f"INSERT INTO memory_records ({columns}) VALUES {values}", (key + "+",)),
            "REPLACE": (f"REPLACE INTO memory_records ({columns}) VALUES {values}", (key,)),
            "UPDATE": ("UPDATE memory_records SET payload = x'00' WHERE key = ?", (key,)),
            "UPDATE OR REPLACE": ("UPDATE OR REPLACE memory_records SET generation = 2", ()),
            "DELETE": ("DELETE FROM memory_records WHERE key = ?", (key,)),
            "DELETE all": ("DELETE FROM memory_records", ()),
        }
        return {name: lambda one=one: self._con.execute(*one) for name, one in texts.items()}

    def read(self) -> int:
        return int(self._con.execute("SELECT count(*) FROM memory_records").fetchone()[0])

    def close(self) -> None:
        self._con.close()
