# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole store in Valkey fails over to a real replica and comes home, by the same operations."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import LeaseHeld, NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.replicas import Side
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_replicas import ReplicaSet
from tests.unit.operations.pair_help import NAMESPACES, Killed, Pair, Writers, killed_after


class ValkeyPair(Pair):
    def start(self):
        self.group = ReplicaSet(settings=("appendonly yes", "appendfsync always")).start()
        self.hosts = dict(zip("ab", self.group.servers))
        self.fill()
        with self.side("b") as side, self.side("a") as main:
            side.server.applied(main.standing().position, 10)

    def stop(self):
        self.group.stop()

    def params(self, host):
        return self.hosts[host].store(busy_timeout=5)

    def side(self, host):
        return Side(self.params(host), host)


@pytest.fixture(scope="module")
def _servers(tmp_path_factory):
    pair = ValkeyPair(tmp_path_factory.mktemp("pair"))
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def pair(_servers, tmp_path):
    _servers.folder = tmp_path
    return _servers


def test_nothing_acknowledged_is_lost_across_failover_and_failback(pair):
    home, away = pair.roles()
    with Writers(pair) as writers:
        writers.wait()
        assert pair.fail_over(home, away, check=True)["changed"] and not pair.incidents(home)
        first = pair.fail_over(home, away)
        assert first["changed"] and first["proof"]["old_refuses_writes"] and first["proof"]["new_accepts_writes"]
        writers.wait()
        assert not pair.fail_over(home, away)["changed"]
        assert not pair.rejoin(home, away)["changed"]  # the change of roles made it a replica
        assert pair.fail_over(away, home, kind="failback")["epoch"] == first["epoch"] + 1
        writers.wait()
    assert pair.roles() == (home, away) and pair.serving(home) == list(NAMESPACES)
    for name in NAMESPACES:
        found = pair.values(home, name)
        assert {key for space, key, _host in writers.acknowledged if space == name} <= set(found)


@pytest.mark.parametrize("step", ["fence-store", "promote-replica"])
def test_the_same_command_finishes_what_was_killed(pair, monkeypatch, step):
    home, away = pair.roles()
    run = pair.run()
    with killed_after(step, monkeypatch), pytest.raises(Killed):
        pair.fail_over(home, away, run=run)
    store = open_store(pair.params(pair.roles()[0]))
    with pytest.raises(NamespaceQuarantined):
        store.create_namespace("agent-new")
    with pytest.raises(LeaseHeld, match="whole store"):
        store.claim("agent-3", "o:3:1", "other", new_incident="x")
    store.close()
    done = pair.fail_over(home, away, run=pair.run(takeover=run.attempt))
    assert done["performed"] and pair.serving(away) == list(NAMESPACES) and pair.roles() == (away, home)


def test_a_forced_failover_tells_what_was_lost_to_the_record(pair):
    home, away = pair.roles()
    with pair.hosts[away].client() as client:
        client.replicaof("127.0.0.1", 1)
    with pair.memory(home) as memory:
        memory.write_many("agent-2", {f"lost-{n}": {"n": n} for n in range(5)})
    pair.hosts[home].kill()
    done = pair.fail_over(home, away, force=True, outside_fence="its power is off")
    assert done["forced"] and pair.serving(away) == list(NAMESPACES)
    pair.hosts[home].again()
    back = pair.rejoin(home, away, forensic=lambda incident: f"snapshot of {incident}")
    assert back["lost"] == 5 and sorted(back["lost_keys"]) == [f"agent-2: lost-{n}" for n in range(5)]
    assert pair.roles() == (away, home) and not pair.rejoin(home, away)["changed"]
