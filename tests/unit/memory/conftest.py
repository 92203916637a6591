# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real store, a real keyring and a clock that tests can turn."""
from __future__ import annotations

import contextlib
import os
import sqlite3
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory


class Clock:
    def __init__(self):
        self.now = time.time_ns() // 1000

    def __call__(self):
        self.now += 1
        return self.now

    def turn(self, seconds):
        self.now += int(seconds * 1e6)


class Place:
    """The parameters of a store and a keyring in one folder, and what an operator would do there."""

    def __init__(self, folder, name="store"):
        self.folder = folder
        self.store = {"engine": "sqlite", "path": str(folder / f"{name}.db"), "busy_timeout": 10}
        self.keyring = {"path": str(folder / "keyring.json"), "master_key_file": str(folder / "master.key")}
        self.clock = Clock()
        master = folder / "master.key"
        if not master.exists():
            master.write_text(os.urandom(32).hex())
            master.chmod(0o600)

    def memory(self, **options):
        options = {"store": self.store, "keyring": self.keyring, "clock": self.clock, **options}
        if "route" in options:
            del options["store"]
        return Memory(**options)

    @contextlib.contextmanager
    def operator(self, namespace):
        store = open_store(self.store)
        try:
            yield store, store.claim(namespace, "host:1:1", "tester", new_incident=f"inc-{namespace}")
        finally:
            store.close()

    def fence(self, namespace):
        with self.operator(namespace) as (store, claim):
            assert store.fence(claim)

    def unfence(self, namespace):
        with self.operator(namespace) as (store, claim):
            assert store.unfence(claim)

    def sql(self, *statement):
        with contextlib.closing(sqlite3.connect(self.store["path"], isolation_level=None)) as con:
            return con.execute(*statement).fetchall()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def memory(place):
    with place.memory() as memory:
        yield memory
