# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on another application's keys in all slots of a real Valkey Cluster."""

from __future__ import annotations

import pytest
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.support.valkey_cluster import ValkeyCluster
from tests.unit.operations.keyspace_cluster_help import ODD, ClusterSite
from tests.unit.operations.runbook import NS, OTHER, attempt


@pytest.fixture(scope="module")
def cluster():
    with ValkeyCluster() as own:
        yield own


@pytest.fixture
def site(tmp_path, cluster):
    one = ClusterSite(tmp_path, cluster)
    one.fill()
    yield one
    one.wipe()


def rebuild(site, window=None, strategy="auto", absent="auto"):
    run, done = attempt(), {}
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[name] = site.step(name, run, **options.get(name, {}))
    return done


def damage(site):
    """Values are garbage, some are gone, one is of another type, and one came that nobody knows."""
    site.app.set(site.key("s00001"), "garbage")
    site.app.delete(site.key("s00002"), site.key("a{b}c"), site.key(ODD[-2]))
    site.app.set(site.key("list"), "no list")
    site.app.set(site.key("{{x}}"), b"")
    site.app.set(site.key("{made}"), "by the damage")


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_was_damaged_is_as_before_and_the_rest_is_not_touched(site, strategy):
    site.fill(OTHER)
    before, sibling = site.dumps(), site.dumps(OTHER)
    site.backup()
    assert site.dumps() == before
    started = now_us()
    damage(site)
    done = rebuild(site, Window(onset=started), strategy)
    assert site.dumps() == before
    assert site.dumps(OTHER) == sibling
    assert done["plan"]["suspect_keys"] == ["{made}"]
    assert done["plan"]["records"]["repair"] == 6 and done["validate"]["verdict"] == "pass"
    assert site.app.get(site.key("s00003")).startswith(b"value 3")  # the application reads again
