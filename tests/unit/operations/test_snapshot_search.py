# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots are found by time, namespace, purpose, verdict, and as the last good one before a time."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._inputs import moment
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot_info, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot_info import Search
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, OTHER, Site


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    taken = []
    for namespace in (NS, OTHER):
        with one.memory() as memory:
            memory.write_many(namespace, {f"key-{n:03}": {"n": n} for n in range(20)})
        taken.append(one.backup()["snapshot"])
    taken.append(one.backup(purpose="drill")["snapshot"])
    one.taken = taken
    return one


def found(site, **search):
    shown = snapshot_info.snapshots(Repository.open(site.repository), NAME, site.ring(), Search(**search))
    return [site.taken.index(one["snapshot"]) for one in shown]


def test_by_namespace_purpose_and_time(site):
    everything = snapshot_info.snapshots(Repository.open(site.repository), NAME, site.ring())
    times = [moment(one["at"]) for one in reversed(everything)]
    assert found(site) == [2, 1, 0]
    assert found(site, namespace=OTHER) == [2, 1]
    assert found(site, purposes=frozenset(["scheduled"])) == [1, 0]
    assert found(site, purposes=frozenset(["scheduled", "drill"]), namespace=OTHER) == [2, 1]
    assert found(site, since=times[1]) == [2, 1]
    assert found(site, until=times[2] - 1) == [1, 0]
    assert found(site, since=times[0] + 1000, until=times[2] - 1) == [1]
    assert found(site, last_good_before=times[2] - 1) == [1]
    assert found(site, last_good_before=times[2] - 1, namespace=NS) == [1]
    assert found(site, last_good_before=times[1] - 1, namespace=OTHER) == []
    assert found(site, last_good_before=times[0] - 1000) == []


def test_by_the_verdict_of_the_newest_verification(site):
    place = Repository.open(site.repository)
    usual = {"repository": place, "keyring": site.ring(), "name": NAME, "depth": "hashed"}
    assert found(site, verdict="unverified") == [2, 1, 0] and found(site, verdict="pass") == []
    for number in (0, 1):
        assert verify.verify(snapshot_id=site.taken[number], **usual)["verdict"] == "pass"
    assert found(site, verdict="pass") == [1, 0] and found(site, verdict="unverified") == [2]
    pack = next(pathlib.Path(site.folder, "repository", "snapshots", NAME, site.taken[0]).rglob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    assert verify.verify(snapshot_id=site.taken[0], **usual)["verdict"] == "fail"
    assert 0 in found(site, verdict="fail") and 0 not in found(site, verdict="pass")


def test_a_verdict_that_somebody_made_up_does_not_count(site):
    place = Repository.open(site.repository)
    verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=site.taken[0], depth="hashed")
    (check,) = pathlib.Path(site.folder, "repository", "snapshots", NAME, site.taken[0], "checks").iterdir()
    check.write_bytes(check.read_bytes().replace(b'"hashed"', b'"opened"'))
    assert found(site, verdict="unverified") == [2, 1, 0]


def test_one_that_cannot_be_read_is_listed_but_found_by_nothing_it_does_not_tell(site):
    where = pathlib.Path(site.folder, "repository", "snapshots", NAME, site.taken[1], "manifest.json")
    where.write_bytes(where.read_bytes()[:-9])
    assert sorted(found(site)) == [0, 1, 2]
    assert found(site, purposes=frozenset(["scheduled"])) == [0]
    assert found(site, since=0) == [2, 0] and found(site, last_good_before=2**60) == [2]
