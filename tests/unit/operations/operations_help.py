# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real store with a real keyring, and the ways in which an operator's tests damage it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory

NS = "agent-7"


class Place:
    """In SQLite, unless a ``bench`` brings another engine."""

    def __init__(self, folder, bench=None):
        self.folder = folder
        self.store = {"engine": "sqlite", "path": str(folder / "store.db"), "busy_timeout": 20}
        self.application = self.store
        if bench is not None:
            self.store, self.application = bench.params("store"), bench.application("store")
            open_store(self.store, create=True).close()
        self.keyring = {"path": str(folder / "keyring.json"), "master_key_file": str(folder / "master.key")}
        master = folder / "master.key"
        if not master.exists():
            master.write_text(os.urandom(32).hex())
            master.chmod(0o600)

    def memory(self, **options):
        return Memory(store=self.application, keyring=self.keyring, **options)

    def ring(self):
        return Keyring.open(self.keyring)

    def fill(self, count, start=0, **options):
        """``count`` memories; {key: value}."""
        values = {f"user/{n:05d}": {"n": n, "text": f"memory number {n}"} for n in range(start, start + count)}
        with self.memory(**options) as memory:
            memory.write_many(NS, values)
        return values

    def values(self, keys):
        with self.memory() as memory:
            return memory.read_many(NS, keys)

    def rows(self, generation=None):
        store = open_store(self.store)
        try:
            with store.reader() as reader:
                return [row for batch in reader.scan(NS, generation=generation) for row in batch]
        finally:
            store.close()

    def log(self, operation=None):
        store = open_store(self.store)
        try:
            with store.reader() as reader:
                return [e for batch in reader.log(NS) for e in batch if operation in (None, e.operation)]
        finally:
            store.close()

    def sql(self, text, *values):
        """As a raw client."""
        con = sqlite3.connect(self.store["path"], timeout=20, isolation_level=None)
        try:
            return con.execute(text, values).fetchall()
        finally:
            con.close()

    def flip(self, key, column="payload"):
        """One bit of one column."""
        ((old,),) = self.sql(f"SELECT {column} FROM memory_records WHERE key = ?", key)
        self.sql(f"UPDATE memory_records SET {column} = ? WHERE key = ?", bytes([old[0] ^ 1]) + old[1:], key)

    def rewrite(self, key, **columns):
        """Put columns and a checksum that fits them, as damage that only the key can tell."""
        from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
        from ansible_collections.memops.agent_memory.plugins.module_utils._model import Record

        ((*fields,),) = self.sql(
            "SELECT key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum "
            "FROM memory_records WHERE key = ?",
            key,
        )
        row = Record(*fields)._replace(**columns)
        self.sql(
            "UPDATE memory_records SET key_id = ?, payload = ?, sequence = ?, checksum = ? WHERE key = ?",
            row.key_id, row.payload, row.sequence, RecordCodec(NS).checksum(tuple(row)), key,
        )  # fmt: skip

    def break_page_of(self, key):
        """Overwrite the whole page that holds the payload of ``key``."""
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        ((payload,),) = self.sql("SELECT payload FROM memory_records WHERE key = ?", key)
        ((size,),) = self.sql("PRAGMA page_size")
        with open(self.store["path"], "r+b") as file:
            where = file.read().index(payload) // size * size
            file.seek(where)
            file.write(b"\xff" * size)


def now_us():
    return time.time_ns() // 1000


def small_disk(path, size):
    """Whether a file system of that size, as mount has it, could be mounted there."""
    os.makedirs(path)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
