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
from tests.support.engines import Bench


class Clock:
    def __init__(self):
        self.now = time.time_ns() // 1000

    def __call__(self):
        self.now += 1
        return self.now

    def turn(self, seconds):
        self.now += int(seconds * 1e6)


class Place:
    """The parameters of a store and a keyring, and what an operator would do there.

    ``store`` is as an application opens it, ``home`` as the operator does.
    """

    def __init__(self, folder, name="store", bench=None):
        self.folder = folder
        bench = bench or Bench("sqlite", folder)
        self.store, self.home = bench.application(name, busy_timeout=10), bench.params(name, busy_timeout=10)
        self.keyring = {"path": str(folder / "keyring.json"), "master_key_file": str(folder / "master.key")}
        self.clock = Clock()
        master = folder / "master.key"
        if not master.exists():
            master.write_text(os.urandom(32).hex())
            master.chmod(0o600)

    def memory(self, **options):
        if "url" in self.home and options.get("create", True):  # on a server an operator makes it
            open_store(self.home, create=True).close()
        options = {"store": self.store, "keyring": self.keyring, "clock": self.clock, **options}
        if "route" in options:
            del options["store"]
        return Memory(**options)

    @contextlib.contextmanager
    def operator(self, namespace):
        store = open_store(self.home)
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

    def rows(self):
        """All rows as they lie, of every namespace."""
        with contextlib.closing(open_store(self.home)) as store, store.reader() as reader:
            return [r for space in reader.namespaces() for rows in reader.scan(space.name) for r in rows]

    def logged(self, operation):
        """How many entries of the log say so."""
        with contextlib.closing(open_store(self.home)) as store, store.reader() as reader:
            return sum(map(len, reader.log(operations=[operation])))

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
