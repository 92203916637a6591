# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on another application's keys in all slots of a real Valkey Cluster."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import keyspace_cluster_generations
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_slots import Slots
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.support.valkey_cluster import ValkeyCluster
from tests.unit.operations.keyspace_cluster_help import ODD, ClusterSite
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.operations.unlogged_model import after, in_child

FEW = 20  # keys that are moved in one transaction


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


def repairable(site):
    """(what was there, when the damage began, an attempt that has diagnosed it)."""
    before = site.dumps()
    site.backup()
    started, run = now_us(), attempt()
    damage(site)
    for name in ("isolate", "forensic"):
        site.step(name, run)
    site.step("diagnose", run, window=Window(onset=started))
    return before, started, run


def finish(site):
    last = after(site)
    for name in ("validate", "release"):
        site.step(name, last)
    with site.open() as store:
        store.close_incident(incident.claim(store, NS, after(site)))


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


# --- killed in the middle -------------------------------------------------------------------------------------------
def killed_at(step, work):
    """``work`` in a process of its own that is killed (SIGKILL) at its ``step``-th turn to the nodes with the keys:
    before anything was sent, or when all was carried out and nothing of it is noted yet."""

    def prepare():
        turn, real = itertools.count(1), Slots.write
        keyspace_cluster_generations.MOVED = FEW

        def write(self, tx, writes):
            if next(turn) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            said = real(self, tx, writes)
            if next(turn) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return said

        Slots.write = write

    return in_child(prepare, work)


@pytest.mark.parametrize(("strategy", "stride"), [("soft", 1), ("hard", 4)])
def test_whenever_it_is_killed_the_same_command_finishes_it(site, strategy, stride):
    before, started, run = repairable(site)
    site.step("plan", run, strategy=strategy)
    step, kills, middle = 1, 0, 0
    while os.WIFSIGNALED(status := killed_at(step, lambda: site.step("apply", after(site)))):
        kills += 1
        step += stride
        site.let_go()
        with site.open() as store:
            if store._space(NS).get("moving"):
                middle += 1
                step = middle  # it goes on in the switch, so it counts from there
                with pytest.raises(CannotProceed, match="in the middle"):
                    site.step("release", after(site), force=True)
                site.let_go()
    assert os.WEXITSTATUS(status) == 0
    assert (kills, middle) >= ((5, 3) if strategy == "hard" else (2, 0)), (kills, middle)
    finish(site)
    assert site.dumps() == before
    if strategy == "soft":  # once each, however often it was begun
        assert {key: len(rows) for key, rows in site.aside().items()} == {"s00001": 1, "list": 1, "{made}": 1, "{{x}}": 1}
