# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that replaces an application's keys is killed again and again; the same command goes on, and nothing is
lost. Random damage is repaired to exactly what the rules say."""

from __future__ import annotations

import os
import secrets
import signal
import traceback

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import keyspace_generations
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.keyspace_help import KeyspaceSite
from tests.unit.operations.runbook import attempt

FEW = 5  # keys that are moved in one transaction


@pytest.fixture
def site(tmp_path, valkey_server):
    one = KeyspaceSite(tmp_path, valkey_server)
    yield one
    one.wipe()


def killed_at(step, work):
    """``work`` in a process of its own that is killed (SIGKILL) before its ``step``-th transaction on keys."""
    pid = os.fork()
    if not pid:
        left = [step]
        keyspace_generations.MOVED = FEW
        real = keyspace_generations.KeyspaceGenerations._operating

        def operating(self, *args, **kwargs):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *args, **kwargs)

        keyspace_generations.KeyspaceGenerations._operating = operating
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def after(site):
    """A new attempt that knows the former one to be dead."""
    with site.open() as store:
        return attempt(takeover=next(one.attempt for one in store.incidents("agent-7") if one.state == "open"))


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


NAMES = [f"k{number}" for number in range(12)]
CHANGE = st.tuples(st.sampled_from(NAMES), st.sampled_from(["set", "delete", "type", "expiry", "same"]))


@settings(max_examples=8, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(
    between=st.lists(CHANGE, max_size=5),
    damage=st.lists(CHANGE, max_size=8),
    inside=st.sampled_from(["nothing", "onset", "keys"]),
    absent=st.sampled_from(["auto", "keep", "restore"]),
    strategy=st.sampled_from(["soft", "hard"]),
)
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
    named = frozenset(NAMES[::2])
    window = {"nothing": None, "onset": Window(onset=onset), "keys": Window(keys=named)}[inside]
    run = attempt()
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent, "accept_loss": True}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply"):
        site.step(name, run, namespace=namespace, **options.get(name, {}))
    site.step("release", run, namespace=namespace, force=True)
    expected = {}
    for name in NAMES:
        key = site.key(name, namespace)
        meant = inside == "onset" or (inside == "keys" and name in named)
        there, copy = now.get(key), newest.get(key)
        if there is None:
            back = copy is not None and (absent == "restore" or (meant and absent == "auto"))
            there = copy if back else None
        elif meant:
            there = copy
        if there is not None:
            expected[key] = there
    assert site.values(namespace) == expected, (first, newest, now)
