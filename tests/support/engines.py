# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every engine at hand for tests: stores of it, and the hands of somebody who changes them past Memory and the fence.

Whoever adds an engine adds it to ``ENGINES`` and a class of ``Raw``.
"""
from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row
from ansible_collections.memops.agent_memory.plugins.module_utils._store import Store, open_store

ENGINES = ("sqlite", "postgresql", "valkey")
COLUMNS = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"


class Bench:
    """Stores of one engine for one test, each under a name. Leaves nothing on the server."""

    def __init__(self, engine: str, folder: t.Any, server: t.Any = None) -> None:
        self.engine, self.folder, self.server = engine, str(folder), server
        self._token = secrets.token_hex(4)
        self._names: set[str] = set()

    def _part(self, name: str) -> str:
        self._names.add(name)
        return f"t{self._token}_{name}"

    def params(self, name: str = "m", /, **more: t.Any) -> dict[str, t.Any]:
        """As an operator opens it."""
        if self.server is None:
            return {"engine": self.engine, "path": os.path.join(self.folder, f"{name}.db"), **more}
        return self.server.store(self._part(name), **more)

    def application(self, name: str = "m", /, **more: t.Any) -> dict[str, t.Any]:
        """As an application opens it."""
        return self.params(name, **more) if self.server is None else self.server.application(self._part(name), **more)

    def open(self, name: str = "m", *, create: bool = True, **more: t.Any) -> Store:
        return open_store(self.params(name, **more), create=create)

    def raw(self, name: str = "m") -> Raw:
        return RAW[self.engine](self, name)

    def close(self) -> None:
        for name in self._names:
            self.raw(name).wipe()


class Raw:
    """What damage is made with. Nothing here asks the engine; what it touches lies as the engine's own files say."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name

    # --- by every engine ----------------------------------------------------------------------------------------
    def put(self, namespace: str, rows: t.Sequence[Row]) -> None:
        """Let these rows be the live ones of their keys, unlogged."""
        raise NotImplementedError

    def remove(self, namespace: str, keys: t.Sequence[str]) -> None:
        raise NotImplementedError

    def forget(self, namespace: str, sequence: int) -> None:
        """The log entry of this write is gone."""
        raise NotImplementedError

    def forge(self, namespace: str, sequence: int) -> None:
        """The log entry of this write names another actor."""
        raise NotImplementedError

    def take_sequences(self, count: int) -> None:
        """So many sequences are given out, and nobody logs them."""
        raise NotImplementedError

    def policy(self, namespace: str, state: str, serving_ttl: float | None) -> None:
        raise NotImplementedError

    def break_fence(self, namespace: str) -> None:
        """Some raw writes are not refused any more."""
        raise NotImplementedError

    def lose_index(self, namespace: str) -> None:
        """What finds the newest logged writes has lost something."""
        raise NotImplementedError

    def client(self) -> Client:
        """A program that is connected with the application's rights and does not use Memory."""
        raise NotImplementedError

    def wipe(self) -> None:
        """Nothing of the store is left."""

    # --- by these -----------------------------------------------------------------------------------------------
    def live(self, namespace: str, keys: t.Sequence[str]) -> list[Row]:
        store = open_store(self.bench.params(self.name))
        try:
            with store.reader() as reader:
                found = reader.get_many(namespace, keys)
                return [found[key] for key in keys]
        finally:
            store.close()

    def set(self, namespace: str, key: str, **fields: t.Any) -> Row:
        """Change fields of the live row as it lies; the row."""
        names = COLUMNS.split(", ")
        row = tuple(fields.get(n, old) for n, old in zip(names, self.live(namespace, [key])[0]))
        self.put(namespace, [row])
        return row

    def flip(self, namespace: str, key: str) -> None:
        """One bit of the payload."""
        payload = self.live(namespace, [key])[0][8]
        self.set(namespace, key, payload=payload[:-1] + bytes([payload[-1] ^ 1]))

    def swap(self, namespace: str, one: str, other: str) -> None:
        """Two records have each other's contents."""
        a, b = self.live(namespace, [one, other])
        self.put(namespace, [(one, *b[1:]), (other, *a[1:])])


class Client:
    """``writes`` and ``read``: what it does on its open connection."""

    errors: type[Exception]

    def refusal(self, exc: Exception) -> bool:
        """Whether this error is the fence."""
        raise NotImplementedError

    def writes(self, key: str) -> dict[str, t.Callable[[], t.Any]]:
        """Of a key that is there."""
        raise NotImplementedError

    def read(self) -> int:
        """How many records it sees."""
        raise NotImplementedError

    def sees(self) -> bool:
        """Whether it gets to see any record."""
        try:
            return self.read() > 0
        except self.errors as exc:
            if self.refusal(exc):
                return False
            raise

    def close(self) -> None:
        raise NotImplementedError


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


class ValkeyRaw(Raw):
    def __init__(self, bench: Bench, name: str) -> None:
        from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import (
            Envelopes,
            Names,
        )

        super().__init__(bench, name)
        self.names, self.envelopes = Names(bench.params(name)["prefix"]), Envelopes()

    def _space(self, con: t.Any, namespace: str) -> dict[str, t.Any]:
        return dict(json.loads(con.hget(self.names.namespaces, namespace)))

    def records(self, con: t.Any, namespace: str) -> str:
        return self.names.records(namespace, self._space(con, namespace)["generation"])

    def put(self, namespace: str, rows: t.Sequence[Row]) -> None:
        self.remove(namespace, [row[0] for row in rows])
        with self.bench.server.client() as con:
            con.zadd(self.records(con, namespace), {self.envelopes.member(row): 0 for row in rows})

    def remove(self, namespace: str, keys: t.Sequence[str]) -> None:
        from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import one_key

        with self.bench.server.client() as con:
            name = self.records(con, namespace)
            for key in keys:
                con.zremrangebylex(name, *one_key(key))

    def _log(self, namespace: str, sequence: int, *, actor: str | None) -> None:
        """Write the stream anew, with the entry left out or changed."""
        name = self.names.log(namespace)
        with self.bench.server.client() as con:
            entries = con.xrange(name)
            con.delete(name)
            for number, fields in entries:
                raw = next(iter(fields.values()))
                value = list(self.envelopes.any(raw))
                if value[4] == sequence:
                    if actor is None:
                        continue
                    value[7] = actor
                con.xadd(name, {next(iter(fields)): self.envelopes.other(tuple(value))}, id=number)

    def forget(self, namespace: str, sequence: int) -> None:
        self._log(namespace, sequence, actor=None)

    def forge(self, namespace: str, sequence: int) -> None:
        self._log(namespace, sequence, actor="someone else")

    def take_sequences(self, count: int) -> None:
        with self.bench.server.client() as con:
            con.hincrby(self.names.store, "sequence", count)

    def policy(self, namespace: str, state: str, serving_ttl: float | None) -> None:
        with self.bench.server.client() as con:
            space = {**self._space(con, namespace), "state": state, "serving_ttl": serving_ttl}
            con.hset(self.names.namespaces, namespace, json.dumps(space))

    def break_fence(self, namespace: str) -> None:
        with self.bench.server.client() as con:
            con.execute_command("ACL", "SETUSER", "agent", "resetkeys", "~*")

    def lose_index(self, namespace: str) -> None:
        with self.bench.server.client() as con:
            con.zpopmax(self.names.writes(namespace))

    def client(self) -> Client:
        with self.bench.server.client() as con:
            space = next(iter(con.hgetall(self.names.namespaces)))
            return ValkeyClient(self.bench.server.client("agent"), self.records(con, space.decode()))

    def wipe(self) -> None:
        with self.bench.server.client() as con:
            for key in con.scan_iter(f"{self.names.prefix}:*", count=1000):
                con.unlink(key)
        self.bench.server.reset_users()


class ValkeyClient(Client):
    def __init__(self, con: t.Any, records: str) -> None:
        from redis.exceptions import RedisError

        self.errors = RedisError
        self._con, self._records = con, records
        con.ping()

    def refusal(self, exc: Exception) -> bool:
        from redis.exceptions import NoPermissionError

        return isinstance(exc, NoPermissionError)

    def writes(self, key: str) -> dict[str, t.Callable[[], t.Any]]:
        con, name = self._con, self._records
        return {
            "ZADD": lambda: con.zadd(name, {key.encode() + b"\0\0": 0}),
            "ZREM": lambda: con.zremrangebylex(name, "-", "+"),
            "DEL": lambda: con.delete(name),
            "UNLINK": lambda: con.unlink(name),
            "RENAME": lambda: con.rename(name, "elsewhere"),
            "EXPIRE": lambda: con.expire(name, 1000),
        }

    def read(self) -> int:
        return int(self._con.zcard(self._records))

    def close(self) -> None:
        self._con.close()


RAW: dict[str, type[Raw]] = {"sqlite": SqliteRaw, "postgresql": PostgresqlRaw, "valkey": ValkeyRaw}
