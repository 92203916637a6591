# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that take no writes, have no room, or may drop what they took: one sentence, nothing half done, and the same
call finishes when they do.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import valkey_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import isolate_records, release_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.engines import Bench
from tests.support.postgresql_server import PostgresqlServer, Standby
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.operations_help import small_disk
from tests.unit.operations.runbook import NS, STEPS, Site, attempt
from tests.unit.operations.test_rebuild_kills import check, damaged, options


@pytest.fixture(scope="module")
def postgresql():
    # Segments are smaller than the limit on the size of files below, and no vacuum frees what is to lack.
    with PostgresqlServer("autovacuum = off", initdb=["--wal-segsize=1"]) as server:
        yield server


@pytest.fixture
def valkey():
    with ValkeyServer("repl-diskless-sync-delay 1") as server:
        yield server


def refused(words, work):
    with pytest.raises(MemoryOpsError) as caught:
        work()
    error = caught.value
    assert words in error.message and error.next_step and "\n" not in str(error), str(error)


def test_a_standby_of_postgresql_given_as_primary(postgresql, tmp_path):
    bench = Bench("postgresql", tmp_path, postgresql)
    site = damaged(tmp_path / "site", bench)
    elsewhere, primary, run = site.untouched(), dict(site.store), attempt()
    with Standby(postgresql) as standby:
        site.store["url"] = standby.url
        refused("is a read-only standby", lambda: site.step("isolate", run))
        assert site.state() == "serving"
        site.store.update(primary)
        site.step("isolate", run)
    site.rebuild("soft", run=run)
    check(site, elsewhere)
    bench.close()


def test_a_replica_of_valkey_given_as_primary(valkey, tmp_path):
    bench = Bench("valkey", tmp_path, valkey)
    site, run = damaged(tmp_path / "site", bench), attempt()
    elsewhere, primary = site.untouched(), dict(site.store)
    place = f"replicaof 127.0.0.1 {valkey.port}", "masteruser memops", f"masterauth {valkey.passwords['memops']}"
    with ValkeyServer(*place) as replica, replica.client() as client:
        site.store.update(url=replica.url, password=replica.passwords["memops"])
        refused("is a replica, and has no memory store", lambda: site.step("isolate", run))
        deadline = time.monotonic() + 300
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline, replica.said()
            time.sleep(0.05)
        refused("is a read-only replica", lambda: site.step("isolate", run))
        site.store.update(primary)
        site.step("isolate", run)
    site.rebuild("soft", run=run)
    check(site, elsewhere)
    bench.close()


@pytest.mark.parametrize("step", ["isolate", "apply", "release"])
def test_a_store_that_was_made_read_only(postgresql, tmp_path, step):
    bench = Bench("postgresql", tmp_path, postgresql)
    site, run = damaged(tmp_path / "site", bench), attempt()
    elsewhere = site.untouched()
    for name in STEPS:
        if name == step:
            with postgresql.connect() as con:
                con.execute("ALTER ROLE memops SET default_transaction_read_only = on")
                try:
                    refused("made read-only", lambda name=name: site.step(name, run, **options(name, "soft")))
                    assert site.state() == ("serving" if step == "isolate" else "quarantined")
                finally:
                    con.execute("ALTER ROLE memops RESET default_transaction_read_only")
        site.step(name, run, **options(name, "soft"))
    check(site, elsewhere)
    bench.close()


@pytest.mark.parametrize("step", ["isolate", "apply", "release"])
def test_a_valkey_server_that_lost_its_replicas(valkey, tmp_path, step):
    bench = Bench("valkey", tmp_path, valkey)
    site, run = damaged(tmp_path / "site", bench), attempt()
    elsewhere = site.untouched()
    for name in STEPS:
        if name == step:
            with valkey.client() as client:
                client.config_set("min-replicas-to-write", 1)
                refused("too few replicas follow it", lambda name=name: site.step(name, run, **options(name, "soft")))
                assert site.state() == ("serving" if step == "isolate" else "quarantined")
                client.config_set("min-replicas-to-write", 0)
        site.step(name, run, **options(name, "soft"))
    check(site, elsewhere)
    bench.close()


# --- no room --------------------------------------------------------------------------------------------------------
VALUES = {f"k{n:04d}": "x" * 4000 for n in range(600)}


def big(folder, bench):
    site = Site(folder, bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
    site.backup()
    site.raw.remove(NS, sorted(VALUES)[:500])
    return site


def finish(site, run):
    for name in ("apply", "validate", "release"):
        site.step(name, run, **options(name, "hard"))
    assert site.served() == VALUES
    with site.open() as store, store.reader() as reader:
        assert reader.structure() == [] and reader.log_health()["intact"]


def test_a_valkey_server_that_is_full_or_may_drop_records_while_a_generation_is_loaded(valkey, tmp_path):
    bench = Bench("valkey", tmp_path, valkey)
    site, run = big(tmp_path / "site", bench), attempt()
    site.rebuild("hard", until="plan", run=run)
    active = site.generation()
    with valkey.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
        refused("has used all of its maxmemory", lambda: site.step("apply", run))
        assert site.state() == "quarantined" and site.generation() == active
        client.config_set("maxmemory", 1 << 30)
        client.config_set("maxmemory-policy", "allkeys-lru")
        with site.open() as store:
            claim = store.claim(NS, run.attempt, "the test", new_incident="x")
            refused("may drop records", lambda: store.begin_generation(claim))
        client.config_set("maxmemory-policy", "noeviction")
    finish(site, run)
    bench.close()


def test_a_valkey_server_that_may_drop_records_takes_no_bulk_write_of_an_operator_but_every_isolation(
    valkey, tmp_path
):
    bench = Bench("valkey", tmp_path, valkey)
    site, run = Site(tmp_path / "site", bench=bench), attempt()
    values = {f"k{n:03d}": n for n in range(50)}
    with site.memory() as memory:
        memory.write_many(NS, values)
    site.backup()
    site.raw.remove(NS, ["k001", "k002"])
    with valkey.client() as client, site.open() as store:
        client.config_set("maxmemory", 1 << 30)
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert any("may drop records" in line for line in store.warnings())
        isolated = isolate_records.isolate_records(
            store=store, store_params=site.store, namespace=NS, run=run, open_keyring=site.ring,
            choice=choose(["k003"], None, None, None),
        )
        assert isolated["isolated"] == 1
        refused(
            "may drop records",
            lambda: release_records.release_records(
                store=store, store_params=site.store, namespace=NS, run=run,
                choice=choose(["k003"], None, None, None),
            ),
        )
        site.rebuild("soft", until="plan", run=run)
        assert site.state() == "quarantined"
        before = site.rows()
        refused("may drop records", lambda: site.step("apply", run))
        claim = store.claim(NS, run.attempt, "the test", new_incident="x")
        with store.reader() as reader:
            entries = [entry for page in reader.log(NS) for entry in page]
        refused("may drop records", lambda: store.reseal(claim, []))
        refused("may drop records", lambda: store.import_log(claim, entries))
        assert site.rows() == before
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
    for name in ("apply", "validate", "release"):
        site.step(name, run, **options(name, "soft"))
    with site.open() as store:
        release_records.release_records(
            store=store, store_params=site.store, namespace=NS, run=attempt(takeover=run.attempt), choice=None
        )
    assert site.served() == values
    bench.close()


def limit_files(server, size):
    command = ["prlimit", "--pid", str(server.child()), f"--fsize={size}:"]
    subprocess.run(command, check=True, cwd="/", **server._as)


@pytest.mark.parametrize("kind", ["file system", "file size"])
def test_a_full_disk_under_postgresql(postgresql, tmp_path, kind):
    """A small file system of its own where one may be mounted, else a limit on the size of the server's files."""
    disk = os.path.join(postgresql.directory, "disk")
    mounted = kind == "file system" and small_disk(disk, "5m")
    bench = Bench("postgresql", tmp_path, postgresql)
    try:
        if mounted:
            if postgresql.user:
                shutil.chown(disk, postgresql.user)
            with postgresql.connect() as con:
                con.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
                con.execute("GRANT CREATE ON TABLESPACE small TO memops")
                con.execute("ALTER ROLE memops SET default_tablespace = small")
        site, run = big(tmp_path / "site", bench), attempt()
        site.rebuild("hard", until="plan", run=run)
        active, rows = site.generation(), site.rows()
        if not mounted:  # of the processes that it starts from now on
            limit_files(postgresql, 2 << 20)
        refused("cannot grow", lambda: site.step("apply", run))
        assert site.state() == "quarantined" and site.generation() == active and site.rows() == rows
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        else:
            limit_files(postgresql, "unlimited")
        finish(site, run)
    finally:
        bench.close()
        if mounted:
            with postgresql.connect() as con:
                con.execute("ALTER ROLE memops RESET default_tablespace")
            subprocess.run(["umount", "-l", disk], check=False)


def test_a_server_that_is_too_old_is_named(valkey, monkeypatch):
    """No server that old can be had: this one is taken for too old."""
    monkeypatch.setattr(valkey_connect, "OLDEST", (99, 0))
    refused("which is too old", lambda: open_store(valkey.store(), create=True))
