# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A Valkey server whose memory is full drops keys (``maxmemory`` with an ``allkeys-`` policy) before or
while a snapshot or a restore reads or writes them: what misses them is never good without a word."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreDamaged
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, restore, snapshot_scan
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.engines import Bench
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.keyspace_help import KeyspaceSite
from tests.unit.operations.runbook import NAME, NS, Site, attempt

VALUES = {f"k{n:04}": "x" * 300 for n in range(1000)}
LOG, RECORDS = b":store:log:", b"}:r:1"


@pytest.fixture(scope="module")
def server():
    # least frequently used: which key goes is then no matter of time
    settings = ("maxmemory-policy allkeys-lfu", "maxmemory-samples 64", "lazyfree-lazy-eviction no")
    with ValkeyServer(*settings) as started:
        yield started


@pytest.fixture
def site(tmp_path, server):
    bench = Bench("valkey", tmp_path, server)
    one = Site(tmp_path / "site", bench=bench)
    with one.memory() as memory:
        memory.write_many(NS, VALUES)
    yield one
    bench.close()


def evict(server, wanted):
    """The server drops the keys with this in their names, and no others."""
    with server.client() as client:
        keys = list(client.scan_iter())
        others = [key for key in keys if wanted not in key]
        for key in set(keys) - set(others):
            client.restore(key, max(client.pttl(key), 0), client.dump(key), replace=True, frequency=0)
        before, least = client.info("stats")["evicted_keys"], 0
        while client.exists(*keys) > len(others):
            least += 4_000
            client.config_set("maxmemory", client.info("memory")["used_memory"] - least)
            client.config_set("maxmemory", 0)
        assert client.info("stats")["evicted_keys"] == before + len(keys) - len(others)
        assert client.exists(*others) == len(others)


def in_the_middle(monkeypatch, what):
    """``what`` happens when the first records of a snapshot were read, before the rest of it."""
    genuine, done = snapshot_scan.Scribe.run, []

    def run(self, task, say):
        if done == [0]:
            what()
        done.append(len(done))
        return genuine(self, task, say)

    monkeypatch.setattr(snapshot_scan.Scribe, "run", run)


def newest(site):
    (info, *_older) = Repository.open(site.repository).snapshots(NAME)
    return info


def test_a_log_that_was_dropped_before_or_while_it_was_read_makes_no_good_snapshot(site, server, monkeypatch):
    site.backup()
    assert newest(site).good
    evict(server, LOG)
    with site.memory() as memory:  # which begins the log anew
        memory.write(NS, "k0001", "new")
    told = site.backup()
    assert "dropped keys when its memory was full, and the access log has gaps" in told["reasons"][0]
    assert not newest(site).good


def test_a_log_that_is_dropped_in_the_middle_of_a_snapshot(site, server, monkeypatch):
    in_the_middle(monkeypatch, lambda: evict(server, LOG))
    assert site.backup()["suspect"] and not newest(site).good


def test_copies_for_a_point_that_are_dropped_make_it_fuzzy(site, server, monkeypatch):
    def go():
        with site.memory() as memory:
            memory.write_many(NS, dict.fromkeys(VALUES, "later"))
        evict(server, b"}:k:")

    in_the_middle(monkeypatch, go)
    assert "and no point in time was kept for it: the snapshot is fuzzy" in site.backup()["warnings"][-1]
    assert newest(site).manifest["consistency"] == "fuzzy"


def test_an_applications_keys_that_are_dropped_while_they_are_read(tmp_path, server, monkeypatch):
    site = KeyspaceSite(tmp_path / "site", server)
    site.fill()
    site.step("isolate", attempt())
    assert not site.backup()["suspect"]
    genuine, done = snapshot_scan.Scribe.run, []

    def run(self, task, say):
        done.append(self._reader.count(NS))  # the names are listed
        evict(server, site.key("big hash"))
        return genuine(self, task, say)

    monkeypatch.setattr(snapshot_scan.Scribe, "run", run)
    told = site.backup()
    assert done and "dropped keys while they were read, as its memory was full" in told["reasons"][0]
    site.wipe()


@pytest.mark.parametrize("lost", [b"}:r:2", LOG])
def test_what_is_dropped_while_it_is_restored_is_not_served_without_a_word(site, server, monkeypatch, lost):
    site.backup()
    site.raw.remove(NS, ["k0003"])
    run, done = attempt(), []
    site.step("isolate", run)
    with site.open() as store:
        claim, genuine = incident.claim(store, NS, run), type(store).load
        options = {
            "store_params": site.store, "repository": site.repository, "keyring": site.ring(), "name": NAME,
            "namespace": NS, "claim": claim,
        }  # fmt: skip

        def load(self, *args):
            genuine(self, *args)
            done.append(evict(server, lost))

        monkeypatch.setattr(type(store), "load", load)
        if lost == LOG:
            (told,) = restore.restore(**options)["warnings"]
            assert "dropped keys when its memory was full, and the access log has gaps." in told
        else:
            with pytest.raises(StoreDamaged, match=r"are gone \(generation 2\): the server dropped them"):
                restore.restore(**options)
            assert site.generation() == 1
    assert done and site.state() == "quarantined"
    monkeypatch.undo()
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        site.rebuild("hard", run=run)
        client.config_set("maxmemory-policy", "allkeys-lfu")
    assert site.served() == VALUES


def test_records_that_are_dropped_stop_a_snapshot(site, server, monkeypatch):
    evict(server, RECORDS)
    with pytest.raises(StoreDamaged, match=r"are gone .* the server dropped them"):
        site.backup()
    assert Repository.open(site.repository).snapshots(NAME) == []
