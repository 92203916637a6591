# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Hands on a PostgreSQL store, past Memory and the fence."""
from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row

from .raw import COLUMNS, Client, Raw


class PostgresqlRaw(Raw):
    @property
    def schema(self) -> str:
        return str(self.bench.params(self.name)["schema"])

    @contextlib.contextmanager
    def sql(self) -> t.Iterator[t.Any]:
        """A superuser's connection that the fence's triggers let through, in the store's schema."""
        with self.bench.server.connect() as con:
            con.execute("SET lock_timeout = '10s'")
            con.execute("SET memops.operating = 'on'")
            con.execute(f'SET search_path = "{self.schema}"')
            yield con

    def _generation(self, con: t.Any, namespace: str) -> int:
        found = con.execute("SELECT generation FROM memops_namespace WHERE name = %s", (namespace.encode(),)).fetchone()
        return int(found[0])

    def put(self, namespace: str, rows: t.Sequence[Row]) -> None:
        from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_rows import split

        self.remove(namespace, [row[0] for row in rows])
        with self.sql() as con, con.cursor() as cursor:
            number = self._generation(con, namespace)
            cursor.executemany(
                f"INSERT INTO memory_records (generation, key, key_rest, key_mark, {COLUMNS[5:]}) "
                f"VALUES ({', '.join(['%s'] * 13)})",
                [(number, *split(row[0]), *row[1:7], row[7].encode("utf-8", "surrogateescape"), *row[8:])
                 for row in rows],
            )  # fmt: skip

    def remove(self, namespace: str, keys: t.Sequence[str]) -> None:
        from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_rows import split

        with self.sql() as con, con.cursor() as cursor:
            number = self._generation(con, namespace)
            cursor.executemany(
                "DELETE FROM memory_records WHERE generation = %s AND key = %s AND key_mark = %s",
                [(number, *split(key)[::2]) for key in keys],
            )

    def forget(self, namespace: str, sequence: int) -> None:
        with self.sql() as con:
            con.execute(
                "DELETE FROM memory_access_log WHERE namespace = %s AND sequence = %s", (namespace.encode(), sequence)
            )

    def forge(self, namespace: str, sequence: int) -> None:
        with self.sql() as con:
            con.execute(
                "UPDATE memory_access_log SET actor = 'someone else' WHERE namespace = %s AND sequence = %s",
                (namespace.encode(), sequence),
            )

    def take_sequences(self, count: int) -> None:
        with self.sql() as con:
            con.execute("UPDATE memops_store SET sequence = sequence + %s", (count,))

    def policy(self, namespace: str, state: str, serving_ttl: float | None) -> None:
        with self.sql() as con:
            con.execute(
                "UPDATE memops_namespace SET state = %s, serving_ttl = %s WHERE name = %s",
                (state, serving_ttl, namespace.encode()),
            )

    def break_fence(self, namespace: str) -> None:
        with self.sql() as con:
            con.execute("DROP TRIGGER memops_fence_insert ON memory_records")

    def lose_index(self, namespace: str) -> None:
        with self.sql() as con:
            con.execute("DROP INDEX memory_access_log_writes")

    def client(self) -> Client:
        return PostgresqlClient(self.bench.server.connect("agent"), self.schema)

    def wipe(self) -> None:
        with self.sql() as con:
            con.execute(f'DROP SCHEMA IF EXISTS "{self.schema}" CASCADE')


class PostgresqlClient(Client):
    def __init__(self, con: t.Any, schema: str) -> None:
        from psycopg import Error

        self.errors = Error
        self._con = con
        con.execute(f'SET search_path = "{schema}"')

    def refusal(self, exc: Exception) -> bool:
        return "memops fence" in str(exc) or "permission denied" in str(exc)

    def writes(self, key: str) -> dict[str, t.Callable[[], t.Any]]:
        columns = "generation, key, epoch, sequence, created, updated, key_id, payload, checksum"
        values = "SELECT min(generation), %s::bytea, 1, 1, 1, 1, ''::bytea, ''::bytea, ''::bytea FROM memops_namespace"
        raw = key.encode()
        texts = {
            "INSERT": (f"INSERT INTO memory_records ({columns}) {values}", (raw + b"+",)),
            "UPDATE": ("UPDATE memory_records SET payload = '' WHERE key = %s", (raw,)),
            "UPDATE all": ("UPDATE memory_records SET payload = ''", ()),
            "DELETE": ("DELETE FROM memory_records WHERE key = %s", (raw,)),
            "DELETE all": ("DELETE FROM memory_records", ()),
            "TRUNCATE": ("TRUNCATE memory_records", ()),
        }
        return {name: lambda one=one: self._con.execute(*one) for name, one in texts.items()}

    def read(self) -> int:
        return int(self._con.execute("SELECT count(*) FROM memory_records").fetchone()[0])

    def close(self) -> None:
        self._con.close()
