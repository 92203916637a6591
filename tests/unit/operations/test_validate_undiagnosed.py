# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A quarantine in which nothing was diagnosed, as that of a failover of what is whole: it is judged by what
applications read before the fence."""

from __future__ import annotations

import pytest

from tests.unit.operations.runbook import NS, Site, attempt

VALUES = {f"k{n}": {"v": n} for n in range(10)}


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    with one.memory() as memory:
        memory.write_many(NS, VALUES)
    one.backup()
    return one


def read(site):
    with site.memory() as memory:
        for key in VALUES:
            memory.read(NS, key)


def test_what_was_read_before_the_fence_is_asked_for(site):
    read(site)
    run = attempt()
    site.step("isolate", run)
    found = site.step("validate", run)
    assert (found["verdict"], found["probes"]["checked"], found["probes"]["passed"]) == ("pass", 10, 10)
    site.raw.remove(NS, ["k1", "k2", "k3"])
    found = site.step("validate", run)
    assert found["verdict"] == "fail" and found["probes"]["passed"] == 7


def test_where_nobody_read_nobody_can_tell(site):
    run = attempt()
    site.step("isolate", run)
    found = site.step("validate", run)
    assert found["verdict"] == "could-not-verify" and "no read from before" in found["reasons"][0]
