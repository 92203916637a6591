# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's keys in Valkey, beside the plain commands: SCAN with DUMP and RESTORE, both in pipelines."""

from __future__ import annotations

import os
import random
import secrets
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, restore, snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_server import ValkeyServer

from .data import NAMESPACE, Place
from .measure import Side, Table, ratio, said, turns

MOST = 100_000  # keys
BYTES = 400  # of one value
PAGE = 1000


def measure(table: Table, place: Place, rounds: int) -> None:
    with ValkeyServer() as server:
        _Keys(server, place, min(MOST, place.records)).compare(table, rounds)


class _Keys:
    def __init__(self, server: ValkeyServer, place: Place, count: int) -> None:
        self._server, self._place, self._count = server, place, count
        master = place.path("keyspace.key")
        with open(os.open(master, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        self._keyring = {"source": "file", "master_key_file": master}
        self._params = server.store(layout="keyspace", pattern="mem:{namespace}:*", name="memory")
        self._file = place.path("keyspace.dumps")
        with server.client() as client, client.pipeline(transaction=False) as pipe:
            for number in range(count):
                pipe.set(f"mem:{NAMESPACE}:memory {number:08}", random.randbytes(BYTES * 3 // 4).hex()[:BYTES])
                if number % PAGE == PAGE - 1:
                    pipe.execute()
            pipe.execute()

    def compare(self, table: Table, rounds: int) -> None:
        what = f"keyspace, {self._count:,} keys"
        pid = self._server.pid
        found = turns(
            rounds,
            {
                "snapshot": Side(lambda: None, self._snapshot),
                "scan": Side(lambda: None, self._scan),
                "dump": Side(lambda: None, self._dump),
            },
            pid,
        )
        table.add(f"{what}: snapshot : SCAN and DUMP, piped", ratio(found["snapshot"], found["dump"]), None,
                  detail=said(found))  # fmt: skip
        table.add(f"{what}: integrity scan : SCAN and DUMP, piped", ratio(found["scan"], found["dump"]), None)
        table.memory(f"{what}: snapshot", *found["snapshot"])
        found = turns(
            rounds, {"restore": Side(self._fenced, self._restore), "piped": Side(self._empty, self._pipe)}, pid
        )
        table.add(f"{what}: restore with check : RESTORE, piped", ratio(found["restore"], found["piped"]), None,
                  detail=said(found))  # fmt: skip
        table.memory(f"{what}: restore", *found["restore"])

    def _repository(self) -> dict[str, t.Any]:
        return {"url": "file://" + self._place.path("keyspace-repository")}

    def _snapshot(self, _none: None) -> None:
        snapshot.create(
            store_params=self._params, repository=self._repository(), keyring=Keyring.open(self._keyring),
            name="memory", purpose="scheduled", base=None,
        )  # fmt: skip

    def _scan(self, _none: None) -> None:
        found = integrity.scan(store_params=self._params, namespace=NAMESPACE)
        if found["verdict"] != "pass" or found["rows"] != self._count:
            raise RuntimeError(str(found))

    def _dump(self, _none: None) -> None:
        """As `valkey-cli --scan` and DUMP would, a thousand at a time, into a file."""
        with self._server.client() as client, open(self._file, "wb") as out:
            cursor = None
            while cursor != 0:
                cursor, keys = client.scan(cursor or 0, match=f"mem:{NAMESPACE}:*", count=PAGE)
                with client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.dump(key)
                        pipe.pttl(key)
                    said = pipe.execute()
                for key, value in zip(keys, said[::2]):
                    out.write(b"%d %d\n%b%b" % (len(key), len(value), key, value))

    def _fenced(self) -> t.Any:
        """A claim on the namespace, which is quarantined and has lost half of its keys."""
        store = open_store(self._params)
        token = secrets.token_hex(4)
        claim = store.claim(NAMESPACE, token, "bench", new_incident=token, takeover=self._before(store), lease=600.0)
        store.fence(claim)
        with self._server.client() as client:
            client.delete(*(f"mem:{NAMESPACE}:memory {number:08}" for number in range(0, self._count, 2)))
        store.close()
        return claim

    def _before(self, store: t.Any) -> str | None:
        return next((one.attempt for one in store.incidents(NAMESPACE) if one.state == "open"), None)

    def _restore(self, claim: t.Any) -> None:
        done = restore.restore(
            store_params=self._params, repository=self._repository(), keyring=Keyring.open(self._keyring),
            name="memory", namespace=NAMESPACE, claim=claim,
        )  # fmt: skip
        if done["restored"] != self._count:
            raise RuntimeError(str(done))

    def _empty(self) -> None:
        with self._server.client() as client:
            client.delete(*(f"mem:{NAMESPACE}:memory {number:08}" for number in range(self._count)))

    def _pipe(self, _none: None) -> None:
        with self._server.client() as client, open(self._file, "rb") as file:
            pipe = client.pipeline(transaction=False)
            while line := file.readline():
                key, value = map(int, line.split())
                pipe.restore(file.read(key), 0, file.read(value), replace=True)
                if len(pipe) >= PAGE:
                    pipe.execute()
            pipe.execute()
