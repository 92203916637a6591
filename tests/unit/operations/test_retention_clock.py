# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's clock that jumps makes nothing old that is young."""

from __future__ import annotations

import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _steady_time
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    log_retention,
    retention,
    retention_clock,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, Site

DAY = 86400.0


class Host:
    """What its clocks say: that of the day, and the time since its start."""

    def __init__(self, monkeypatch):
        self.wall, self.running, self.boot = time.time(), 1000.0, 7
        monkeypatch.setattr(retention_clock.time, "time", lambda: self.wall)
        monkeypatch.setattr(_steady_time, "since_start", lambda: self.running)
        monkeypatch.setattr(_steady_time, "start", lambda: self.boot)

    def passes(self, seconds):
        self.wall += seconds
        self.running += seconds


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "site")
    with made.memory() as memory:
        memory.write(NS, "key", 1)
        memory.read(NS, "key")
    made.backup()
    return made


def at(site, check=False):
    place = Repository.open(site.repository)
    return retention_clock.moment(place, site.store, NAME, None, check)


def test_a_clock_that_went_ahead_is_believed_a_day_later(site, monkeypatch):
    host = Host(monkeypatch)
    right = host.wall
    assert at(site) == (right, "")
    host.passes(600)
    host.wall += 400 * DAY
    for _run in range(3):  # each run of the schedule, not the first one alone
        host.passes(600)
        found = at(site)
        assert abs(found.now - (host.wall - 400 * DAY)) < 5 and "ahead of what it said before" in found.doubt
    with site.open() as store:
        kept = log_retention.apply(
            store=store, store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(),
            name=NAME, keep_reads=30 * DAY, keep_writes=None, now=found.now,
        )  # fmt: skip
    assert not kept["changed"]
    host.passes(DAY)
    assert at(site) == (host.wall, "") == at(site)
    host.wall -= 400 * DAY  # corrected after all: what is young by it is young
    assert at(site) == (host.wall, "")


def test_a_start_of_the_machine_and_a_clock_that_is_behind_are_as_the_clock_says(site, monkeypatch):
    host = Host(monkeypatch)
    at(site)
    host.wall -= DAY
    assert at(site) == (host.wall, "")
    host.wall, host.running, host.boot = host.wall + 30 * DAY, 5.0, 8
    assert at(site, check=True) == (host.wall, "") == at(site)


def test_the_repositorys_clock_decides_where_it_has_one(site, monkeypatch):
    host = Host(monkeypatch)
    place = Repository.open(site.repository)
    monkeypatch.setattr(place.objects, "clock", lambda: time_of_place)
    time_of_place = host.wall - DAY
    found = retention_clock.moment(place, site.store, NAME, None)
    assert found.now == time_of_place and "86,400 s ahead of the repository's" in found.doubt
    time_of_place = host.wall + DAY
    assert retention_clock.moment(place, site.store, NAME, None) == (host.wall, "")


def test_a_snapshot_is_no_older_than_those_before_it_though_the_clock_was_behind(site, monkeypatch):
    now = time.time()
    with site.memory() as memory:
        memory.write(NS, "key", 2)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 400 * DAY)
        patch.setattr(time, "time_ns", lambda: int((now - 400 * DAY) * 1e9))
        behind = site.backup()["snapshot"]
    with site.memory() as memory:
        memory.write(NS, "key", 3)
    site.backup()
    found = retention.apply(
        repository=site.repository, keyring=site.ring(), name=NAME, keep_last=1, keep_within=DAY, now=now + 60
    )
    assert behind < time.strftime("%Y%m%d", time.gmtime(now - 300 * DAY))
    assert {one["snapshot"]: one["reason"] for one in found["kept"]}.get(behind) == "young" and not found["removed"]
