# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Two real servers, one a streaming replica of the other, with one memory store. Which is the primary changes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    LeaseHeld,
    MemoryOpsError,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import failover_checks, failover_store
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.failover_checks import Wish
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.failover_store import fail_over
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Journal, Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.rejoin_store import rejoin
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.replicas import Side
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import postgresql
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.postgresql_server import PostgresqlServer, Standby

SETTINGS = (
    "wal_retrieve_retry_interval = 200ms", "wal_keep_size = 64MB", "wal_receiver_status_interval = 1s",
    "wal_log_hints = on",
)  # fmt: skip
NAMESPACES = ("agent-1", "agent-2", "agent-3")


class Killed(BaseException):
    """The process ended here."""


class Pair:
    def __init__(self, folder, *settings, version=""):
        """Of both PostgreSQL servers."""
        self.folder, self.version, self.settings = folder, version, (*SETTINGS, *settings)
        self.hosts = {}
        self.attempts = 0
        master = folder / "master.key"
        master.write_text(os.urandom(32).hex())
        master.chmod(0o600)
        self.keyring = {"path": str(folder / "keyring.json"), "master_key_file": str(master)}

    def start(self):
        self.hosts["a"] = PostgresqlServer(*self.settings, version=self.version).start()
        self.fill()
        self.hosts["b"] = Standby(self.hosts["a"], *self.settings).start()

    def fill(self):
        store = open_store(self.params("a"), create=True)
        for name in NAMESPACES:
            store.create_namespace(name)
        store.close()
        with self.memory("a") as memory:
            for name in NAMESPACES:
                memory.write_many(name, {f"key-{n}": {"n": n} for n in range(50)})

    def stop(self):
        for server in self.hosts.values():
            server.stop()

    def params(self, host):
        return self.hosts[host].store(busy_timeout=5)

    def memory(self, host):
        return Memory(store=self.hosts[host].application(busy_timeout=5), keyring=self.keyring, create=True)

    def side(self, host):
        server = self.hosts[host]
        return Side({**self.params(host), **({"server": server.on_host()} if self.replicates(server) else {})}, host)

    @staticmethod
    def replicates(server):
        return "replicator" in server.passwords

    def roles(self):
        """(host of the primary, host of the replica) as they are now."""
        found = {}
        for host in self.hosts:
            with self.side(host) as side:
                found[side.standing().role] = host
        return found["primary"], found["replica"]

    def run(self, takeover=None):
        self.attempts += 1
        work = self.folder / "work"
        return Run(f"controller:{self.attempts}:1", "test", takeover=takeover, work_dir=str(work))

    def fail_over(self, old, new, run=None, check=False, **wish):
        wish = Wish(**{"min_interval": 0.0, "catch_up": 120.0, **wish})
        with self.side(old) as one, self.side(new) as other:
            return fail_over(
                old=one, new=other, wish=wish, open_keyring=lambda: Keyring.open(self.keyring), run=run or self.run(),
                check=check,
            )  # fmt: skip

    def rejoin(self, old, main, run=None, forensic=lambda incident: None, **options):
        with self.side(old) as one, self.side(main) as other:
            return rejoin(old=one, main=other, forensic=forensic, run=run or self.run(), timeout=300, **options)

    def states(self, host):
        store = open_store(self.params(host))
        with contextlib.closing(store), store.reader() as reader:
            return {state.name: state.state for state in reader.namespaces()}

    def serving(self, host):
        return sorted(name for name, state in self.states(host).items() if state == "serving")

    def incidents(self, host):
        store = open_store(self.params(host))
        with contextlib.closing(store):
            return store.incidents("")

    def values(self, host, name):
        with self.memory(host) as memory:
            return memory.read_many(name, memory.list_keys(name))


@contextlib.contextmanager
def killed_after(step, monkeypatch):
    """The process ends when ``step`` was carried out and its result is not noted yet: from there to the note of the
    next one's intent nothing changes."""
    append, dead = Journal.append, []

    def last(self, name, phase, *args, **kwargs):
        if dead or (name, phase) == (step, "result"):
            dead.append(name)
            raise Killed
        append(self, name, phase, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", last)
        yield


class Writers:
    """Applications that write without a pause wherever they are let, and remember what was acknowledged."""

    def __init__(self, pair, count=2):
        self.pair, self.ended = pair, threading.Event()
        self.acknowledged = []
        self.threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]

    def _work(self, number):
        memories = {host: self.pair.memory(host) for host in self.pair.hosts}
        host, n = next(iter(memories)), 0
        while not self.ended.is_set():
            key = f"writer-{number}-{n}"
            try:
                memories[host].write(NAMESPACES[number % 3], key, {"n": n}, reason="test")
            except MemoryOpsError:
                host = "b" if host == "a" else "a"
                time.sleep(0.02)
                continue
            self.acknowledged.append((NAMESPACES[number % 3], key, host))
            n += 1
        for memory in memories.values():
            memory.close()

    def wait(self, more=20):
        """Until so many more writes were acknowledged."""
        wanted, deadline = len(self.acknowledged) + more, time.monotonic() + 300
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, "nobody lets the applications write"
            time.sleep(0.01)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def refused(words, attempt, error=CannotProceed):
    with pytest.raises(error, match=words) as caught:
        attempt()
    assert caught.value.next_step
    return caught.value


def killed_then_finished(pair, monkeypatch, step):
    """A failover that ended with ``step``; nobody else comes near it, and the same command ends it."""
    home, away = pair.roles()
    before = pair.values(home, "agent-1")
    run = pair.run()
    with killed_after(step, monkeypatch), pytest.raises(Killed):
        pair.fail_over(home, away, run=run)
    refused("worked on", lambda: pair.fail_over(home, away), LeaseHeld)
    done = pair.fail_over(home, away, run=pair.run(takeover=run.attempt))
    assert done["performed"] and pair.serving(away) == list(NAMESPACES)
    assert [state.state for state in pair.incidents(away)][0] == "closed"
    assert pair.values(away, "agent-1") == before
    return home, away


def spoil(con, namespace, key, change):
    """Another payload in the place of a record's, as a bad disk would do it; the former one."""
    table, where = "memops.memory_records", (
        "key = %s AND generation = (SELECT generation FROM memops.memops_namespace WHERE name = %s)"
    )
    names = (key.encode(), namespace.encode())
    with con.transaction():
        con.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        (payload,) = con.execute(f"SELECT payload FROM {table} WHERE {where}", names).fetchone()
        con.execute(f"UPDATE {table} SET payload = %s WHERE {where}", (change(payload), *names))
        for verb in ("insert", "update", "delete", "truncate"):
            con.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER memops_fence_{verb}")
    return payload


def caught_up(pair, home, away):
    with pair.side(away) as side, pair.side(home) as main:
        side.server.applied(main.standing().position, 300)


@contextlib.contextmanager
def stuck(server, monkeypatch, lost):
    """The recovery of that server stands still from its promotion on, as on a disk that hangs. With ``lost`` the
    connection is, too, else nobody waits longer than a second."""
    promote, pids = postgresql.PostgresqlServer.promote, []

    def late(self, timeout):
        with server.connect() as con:
            pids.append(con.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'").fetchone()[0])
        os.kill(pids[0], signal.SIGSTOP)
        cutter = threading.Thread(target=cut)
        if lost:
            cutter.start()
        try:
            return promote(self, timeout)
        finally:
            if lost:
                cutter.join()

    def cut():
        waits = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'Promote'"
        with server.connect() as con:
            while not con.execute(waits).fetchall():
                time.sleep(0.02)

    with monkeypatch.context() as patch:
        patch.setattr(postgresql.PostgresqlServer, "promote", late)
        patch.setattr(failover_store, "PROMOTE_SECONDS", 60.0 if lost else 1.0)
        patch.setattr(failover_checks, "PROBE_SECONDS", 0.2)
        try:
            yield
        finally:
            os.kill(pids[0], signal.SIGCONT)
