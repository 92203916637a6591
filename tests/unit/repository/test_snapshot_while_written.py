# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a Valkey store that is written at full speed: each is the state that the log gives at its point."""

from __future__ import annotations

import os
import random
import signal
import time
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._model import LogEntry
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot, snapshot_scan
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.processes import PROCESSES
from tests.support.stores import keyring_params, log_of
from tests.support.valkey_server import ValkeyServer
from tests.unit.engines.valkey_help import prefix

from .conftest import NAME, Place

NAMESPACES = ("n", "m")
RECORDS = 1500  # of each


def write_on(params: dict[str, t.Any], keyring: dict[str, t.Any], seed: int, began: t.Any, ended: t.Any) -> None:
    chance = random.Random(seed)
    store = open_store(params)
    with Memory(store=params, keyring=keyring, actor=f"writer {seed}", buffer_size=20) as memory:
        while not ended.is_set():
            namespace = chance.choice(NAMESPACES)
            keys = [f"{chance.randrange(RECORDS * 5 // 4):05}" for _number in range(chance.randint(1, 30))]
            what = chance.randrange(6)
            if what < 3:
                ttl = chance.choice([None, None, 0.001])
                memory.write_many(namespace, [(key, chance.random()) for key in keys], ttl=ttl)
            elif what == 3:
                memory.delete(namespace, keys[0], soft=chance.random() < 0.5)
            elif what == 4:
                store.sweep(namespace, time.time_ns() // 1000, limit=50)
            else:
                memory.read_many(namespace, keys)
            began.set()


def replayed(log: t.Sequence[LogEntry], sequence: int) -> dict[str, bytes]:
    """Key → checksum of the records that there were when this sequence had been given out."""
    there: dict[str, bytes] = {}
    for entry in log:
        if entry.operation not in ("write", "delete") or t.cast(int, entry.sequence) > sequence:
            continue
        if entry.reason == "expired":
            there.pop(t.cast(str, entry.key))
        else:
            there[t.cast(str, entry.key)] = t.cast(bytes, entry.digest)
    return there


def test_a_snapshot_is_what_the_log_says_of_its_point(
    tmp_path: t.Any, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "BIG", 0)
    monkeypatch.setattr(snapshot_scan, "BATCH", 40)
    name = prefix()
    place = Place(tmp_path)
    place.store = valkey_server.store(name)
    open_store(place.store, create=True).close()
    for namespace in NAMESPACES:
        place.fill(namespace, {f"{number:05}": number for number in range(RECORDS)})
    began, ended = [PROCESSES.Event() for _writer in range(3)], PROCESSES.Event()
    writers = [
        PROCESSES.Process(
            target=write_on, args=(valkey_server.application(name), keyring_params(tmp_path), seed, one, ended)
        )
        for seed, one in enumerate(began)
    ]
    killed: list[int] = []

    def progress(_said: dict[str, t.Any]) -> None:
        if not killed:  # in the middle of one snapshot: what it had not sent is gone, what it had is kept
            killed.append(t.cast(int, writers[0].pid))
            os.kill(killed[0], signal.SIGKILL)

    taken, later = [], 0
    try:
        for writer in writers:
            writer.start()
        for one in began:
            assert one.wait(300)
        store = open_store(place.store)
        for workers in (1, 2, 2):
            taken.append(place.snapshot("drill", workers=workers, base=None, progress=progress)["snapshot"])
            point = place.open().snapshot(NAME, taken[-1], place.keyring).manifest["point"]
            later += store.identity().sequence - point["sequence"]
        store.close()
    finally:
        ended.set()
        for writer in writers:
            writer.join(300)
    assert killed and later > 0 and [writer.exitcode for writer in writers] == [-signal.SIGKILL, 0, 0]
    for snapshot_id in taken:
        found = place.open().snapshot(NAME, snapshot_id, place.keyring)
        assert found.manifest["consistency"] == "point-in-time"
        sequence = found.manifest["point"]["sequence"]
        for namespace in NAMESPACES:
            log = [LogEntry(*entry) for entry in log_of(place.store, namespace)]
            rows = {row[0]: row[9] for rows in found.scan(namespace) for row in rows}
            assert rows == replayed(log, sequence)
            copied = [tuple(entry) for part in found.log(namespace) for entry in part]
            assert copied == [tuple(entry) for entry in log if entry.id <= found.manifest["log_last_id"]]
            given = {entry.sequence for entry in log if entry.sequence and entry.sequence <= sequence}
            assert {entry[6] for entry in copied if entry[6]} == given


def test_who_may_not_write_copies_what_is_there(tmp_path: t.Any, valkey_server: ValkeyServer) -> None:
    name = prefix()
    place = Place(tmp_path)
    place.store = valkey_server.store(name)
    open_store(place.store, create=True).close()
    place.fill("n", {"a": 1})
    with valkey_server.client() as client:
        client.execute_command("ACL", "SETUSER", "looker", "on", ">secret", f"~{name}:*", "+@read", "+@connection")
        try:
            looking = {**place.store, "user": "looker", "password": "secret"}
            taken = place.snapshot("forensic", incident="i", store_params=looking)
        finally:
            client.execute_command("ACL", "DELUSER", "looker")
    found = place.open().snapshot(NAME, taken["snapshot"], place.keyring)
    assert taken["namespaces"]["n"]["records"] == 1 and found.manifest["consistency"] == "point-in-time"
