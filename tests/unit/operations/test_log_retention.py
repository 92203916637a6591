# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Old entries of the access log go once good snapshots hold them, and nothing that a rebuild needs goes with them."""

from __future__ import annotations

import json
import os
import pathlib
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._model import READ_OPERATIONS, WRITE_OPERATIONS
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, log_retention, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt

VALUES = {f"user/{n:03d}": {"n": n} for n in range(40)}
DAY = 86400.0


@pytest.fixture
def site(bench, tmp_path):
    made = Site(tmp_path / "site", bench=bench)
    with made.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {"calm": 1})
        assert memory.read(NS, "user/000") == VALUES["user/000"]
        assert memory.read(NS, "nobody") is None
        memory.delete(NS, "user/039")
    return made


def retain(site, reads=0.0, writes=None, check=False):
    with site.open() as store:
        return log_retention.apply(
            store=store, store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(),
            name=NAME, keep_reads=reads, keep_writes=writes, check=check,
        )  # fmt: skip


def logged(site):
    with site.open() as store, store.reader() as reader:
        assert reader.log_health()["intact"]
        return [entry for batch in reader.log() for entry in batch]


def reads(site):
    return [entry.id for entry in logged(site) if entry.operation in READ_OPERATIONS]


def test_reads_that_a_good_snapshot_holds_go_and_nothing_else(site):
    before = logged(site)
    site.backup()
    with site.memory() as memory:
        memory.read(NS, "user/001")
    newer = reads(site)[2:]
    assert retain(site, check=True) == {"changed": True, "reads": 2, "writes": 0, "reason": ""}
    assert len(reads(site)) == 3
    assert retain(site) == {"changed": True, "reads": 2, "writes": 0, "reason": ""}
    assert reads(site) == newer  # in no snapshot yet
    assert [one for one in logged(site) if one.operation not in READ_OPERATIONS][: len(before) - 2] == [
        one for one in before if one.operation not in READ_OPERATIONS
    ]
    assert retain(site) == {"changed": False, "reads": 0, "writes": 0, "reason": ""}


def test_what_is_younger_stays_and_a_look_a_day_is_enough(site):
    site.backup()
    assert not retain(site, reads=DAY)["changed"] and len(reads(site)) == 2
    assert retain(site, reads=0.0, writes=DAY)["reads"] == 2  # the shorter time decides how often
    assert len(reads(site)) == 0
    with site.memory() as memory:
        memory.read(NS, "user/001")
    site.backup(purpose="baseline")
    path = os.path.join(note_folder(site), f"{NAME}.log_retention.json")
    with open(path, encoding="utf-8") as file:
        noted = json.load(file)
    assert time.time() - 900 < noted["at"] <= time.time()
    os.truncate(path, 5)  # a note that cannot be read costs a look from the beginning, no more
    assert retain(site)["reads"] == 1


def note_folder(site):
    return os.path.join(incident.base(site.store), "backup")


def test_a_damaged_time_stops_nothing(site):
    with site.open() as store:
        far = int(time.time() * 1e6) + 10**15
        store.append_log([(0, far, NS, "hit", "user/000", None, None, None, None, "r", None, b"")])
        store.append_log([(0, 1, NS, "hit", "user/000", None, None, None, None, "r", None, b"")])
    site.backup()
    assert retain(site)["reads"] == 4 and not reads(site)


def test_nothing_goes_without_a_good_snapshot_of_every_namespace_of_this_very_store(site):
    other = {"url": site.repository["url"] + "-other"}
    Repository.open(other, create=True)
    with site.open() as store:
        common = {"store_params": site.store, "keyring": site.ring(), "name": NAME, "keep_reads": 0.0, "keep_writes": 0}
        for repository, reason in ((None, "no snapshot yet"), (Repository.open(other), "no good snapshot holds")):
            found = log_retention.apply(store=store, repository=repository, **common)
            assert not found["changed"] and reason in found["reason"]
    site.backup()
    with site.memory() as memory:
        memory.write("new", "key", 1)
    assert retain(site, writes=0.0)["reason"] == "no good snapshot holds namespace 'new'"
    site.backup()
    run = attempt()
    site.rebuild(until="isolate", run=run)
    assert retain(site, writes=0.0)["reason"] == f"namespace {NS!r} is quarantined"
    site.rebuild(run=run)
    assert len(reads(site)) >= 2
    newest = site.backup()["snapshot"]
    manifest = next(pathlib.Path(site.repository["url"][len("file://") :]).glob(f"**/{newest}/manifest.json"))
    line = manifest.read_bytes()
    assert line.count(b'"log_last_id":') == 1
    manifest.write_bytes(line.replace(b'"log_last_id":', b'"log_last_id":9'))
    with pytest.raises(errors.SnapshotUnusable):
        retain(site, writes=0.0)
    assert len(reads(site)) >= 2


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_rebuild_after_writes_were_dropped_trusts_the_snapshot(site, strategy):
    with site.memory() as memory:
        memory.delete(NS, "user/038", soft=True)
    site.backup()
    wanted = site.served()
    found = retain(site, writes=0.0)
    assert found["writes"] >= 42 and [e for e in logged(site) if e.operation in WRITE_OPERATIONS] == []
    assert site.aside() == {}  # what applications soft-deleted goes with the entries of its writing
    with site.memory() as memory:
        memory.write(NS, "later", {"n": 1})
    for key in ("user/003", "user/004"):
        site.raw.flip(NS, key)
    done = site.rebuild(strategy)
    assert not done["plan"]["lost_keys"] and done["plan"]["records"]["repair"] == 2
    assert done["validate"]["verdict"] == "pass"
    assert site.served() == {**wanted, "later": {"n": 1}}


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_writes_stay_as_long_as_reads_so_that_a_validation_knows_what_was_deleted_since(site):
    with site.memory() as memory:
        memory.delete(NS, "user/000")
    site.backup()
    for kept in (None, DAY):
        assert retain(site, reads=kept, writes=0.0) == {"changed": False, "reads": 0, "writes": 0, "reason": ""}
    site.raw.flip(NS, "user/003")
    assert site.rebuild()["validate"]["verdict"] == "pass"
    assert retain(site, writes=0.0)["reason"] == "" and not reads(site)


def test_a_copy_goes_on_from_snapshots_with_a_shorter_log(site, bench):
    """As a secondary that each backup is restored to."""
    copy = bench.params("copy", layout="native", name=NAME, busy_timeout=20)

    def follow():
        taken = site.backup()["snapshot"]
        return restore.restore(
            store_params=copy, repository=site.repository, keyring=site.ring(), name=NAME, snapshot_id=taken,
            namespace=NS, create=True,
        )  # fmt: skip

    assert follow()["restored"] >= 39
    assert retain(site, writes=0.0)["changed"]
    with site.memory() as memory:
        memory.write(NS, "later", {"n": 1})
    assert follow()["restored"] >= 1
    assert not follow()["changed"]
    store = open_store(copy)
    try:
        with store.reader() as reader:
            assert reader.log_health()["intact"]
            there = {row[0]: row for batch in reader.scan(NS) for row in batch}
    finally:
        store.close()
    assert there == site.rows()
