# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Hands on a Valkey store, past Memory and the fence."""
from __future__ import annotations

import json
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row

from .raw import Client, Raw

if t.TYPE_CHECKING:
    from .engines import Bench


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
