# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that replaces an application's keys is killed again and again; the same command goes on, and nothing is
lost. Random damage is repaired to exactly what the rules say."""

from __future__ import annotations

import os
import secrets
import signal

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import keyspace_generations
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.keyspace_help import KeyspaceSite
from tests.unit.operations.runbook import attempt
from tests.unit.operations.unlogged_model import NAMES, after, expected, histories, in_child, rebuild

FEW = 5  # keys that are moved in one transaction


@pytest.fixture
def site(tmp_path, valkey_server):
    one = KeyspaceSite(tmp_path, valkey_server)
    yield one
    one.wipe()


def killed_at(step, work):
    """``work`` in a process of its own that is killed (SIGKILL) before its ``step``-th transaction on keys."""

    def prepare():
        left, real = [step], keyspace_generations.KeyspaceGenerations._operating
        keyspace_generations.MOVED = FEW

        def operating(self, *args, **kwargs):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *args, **kwargs)

        keyspace_generations.KeyspaceGenerations._operating = operating

    return in_child(prepare, work)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_whenever_it_is_killed_the_same_command_finishes_it(site, strategy):
    site.fill()
    before = site.values()
    site.backup()
    started = now_us()
    site.app.delete(site.key("s00003"), site.key("set"))
    site.app.set(site.key("list"), "no list")
    run = attempt()
    for name in ("isolate", "forensic"):
        site.step(name, run)
    site.step("diagnose", run, window=Window(onset=started))
    site.step("plan", run, strategy=strategy)
    step, kills, middle = 1, 0, 0
    while True:
        status = killed_at(step, lambda: site.step("apply", after(site)))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        step += 3
        with site.open() as store:
            if store._space("agent-7").get("moving"):
                middle += 1
                with pytest.raises(CannotProceed, match="in the middle"):
                    site.step("release", after(site), force=True)
    assert kills >= (5 if strategy == "hard" else 1) and (middle or strategy == "soft")
    last = after(site)
    for name in ("validate", "release"):
        site.step(name, last)
    assert site.values() == before
    with site.open() as store:
        store.close_incident(incident.claim(store, "agent-7", after(site)))


@settings(max_examples=8, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(**histories("set", "delete", "type", "expiry", "same"))
def test_random_damage_is_repaired_as_the_rules_say(site, between, damage, inside, absent, strategy):
    namespace = f"model{secrets.token_hex(6)}"  # hypothesis begins every example with the same random numbers
    app = site.app

    def do(changes):
        for name, what in changes:
            key = site.key(name, namespace)
            if what == "set":
                app.set(key, f"changed {secrets.token_hex(8)}")
            elif what == "delete":
                app.delete(key)
            elif what == "type":
                app.delete(key)
                app.sadd(key, "x", "y")
            elif what == "expiry":
                app.expireat(key, 3_900_000_000)

    for name in NAMES[:9]:
        app.set(site.key(name, namespace), f"first {name}")
    site.backup()
    first = site.values(namespace)
    do(between)
    if between:
        site.backup()
    newest = site.values(namespace)
    onset = now_us()
    do(damage)
    now = site.values(namespace)
    rebuild(site, namespace, inside, onset, strategy, absent)
    wanted = expected(*({name: all_of.get(site.key(name, namespace)) for name in NAMES} for all_of in (now, newest)),
                      inside, absent)  # fmt: skip
    assert site.values(namespace) == {site.key(name, namespace): value for name, value in wanted.items()}, (
        first, newest, now,
    )  # fmt: skip
