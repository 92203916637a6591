# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole store on Valkey fails over to a real replica and comes home, without Sentinel and with it."""

from __future__ import annotations

import contextlib
import pathlib

import pytest
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    LeaseHeld,
    NamespaceQuarantined,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import failover_store
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.replicas import Side, describe
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import valkey as replication
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.valkey_replicas import SERVICE, ReplicaSet, wait_for
from tests.support.valkey_server import APPLICATION
from tests.unit.operations.pair_help import (
    NAMESPACES,
    Killed,
    Pair,
    Writers,
    killed_after,
    killed_then_finished,
    refused,
)


class ValkeyPair(Pair):
    """Hosts a and b; with Sentinels the application knows these alone."""

    def __init__(self, folder, group):
        super().__init__(folder)
        self.group = group

    def start(self):
        first = self.group.primary()
        self.hosts = {"a": first, "b": next(one for one in self.group.servers if one is not first)}
        with contextlib.closing(open_store(self.params("a"), create=True)) as store:
            for name in NAMESPACES:
                store.create_namespace(name)
        with self.memory("a") as memory:
            for name in NAMESPACES:
                memory.write_many(name, {f"key-{n}": {"n": n} for n in range(50)})
        with self.side("b") as side, self.side("a") as main:
            side.server.applied(main.standing().position, 300)

    def side(self, host):
        if not self.group.sentinels:
            return super().side(host)
        return Side(self.group.store(at=self.hosts[host], busy_timeout=5), host)

    def memory(self, host):
        if not self.group.sentinels:
            return super().memory(host)
        return Memory(store=self.group.application(busy_timeout=5), keyring=self.keyring, create=True)


@pytest.fixture(scope="module")
def _servers(tmp_path_factory):
    with ReplicaSet(replicas=1, durable=True) as group:
        pair = ValkeyPair(tmp_path_factory.mktemp("pair"), group)
        pair.start()
        yield pair


@pytest.fixture
def pair(_servers, tmp_path):
    _servers.folder = tmp_path
    yield _servers
    primary, replica = _servers.roles()
    assert set(_servers.serving(primary)) == set(NAMESPACES)
    assert [seen(_servers, primary, name) for name in NAMESPACES] == ["served"] * 3
    with _servers.side(replica) as side, _servers.side(primary) as main:
        side.server.applied(main.standing().position, 300)


@pytest.fixture(scope="module")
def watched(sentinel_group, tmp_path_factory):
    sentinel_group.settled()
    pair = ValkeyPair(tmp_path_factory.mktemp("watched"), sentinel_group)
    pair.start()
    return pair


def seen(pair, host, name):
    """By a raw client, as the application's user."""
    with contextlib.closing(open_store(pair.params(host))) as store:
        key = store.names.records(name, store.reader().namespace(name).generation)
    with pair.hosts[host].client(APPLICATION) as client:
        try:
            client.zcard(key)
        except NoPermissionError:
            return "refused"
        return "served"


def test_nothing_acknowledged_is_lost_across_failover_and_failback(pair):
    home, away = pair.roles()
    with Writers(pair) as writers:
        writers.wait()
        assert pair.fail_over(home, away, check=True)["changed"]
        first = pair.fail_over(home, away)
        assert first["changed"] and first["position_before"] <= first["position_after"]
        assert first["proof"]["old_refuses_writes"] and first["proof"]["new_accepts_writes"]
        writers.wait()
        assert not pair.fail_over(home, away)["changed"]
        back = pair.rejoin(home, away)
        assert back["lost"] == 0
        assert not pair.rejoin(home, away)["changed"]
        writers.wait()
        assert pair.fail_over(away, home, kind="failback")["epoch"] == first["epoch"] + 1
        pair.rejoin(away, home)
        writers.wait()
    assert pair.roles() == (home, away)
    for name in NAMESPACES:
        found = pair.values(home, name)
        assert {key for space, key, _host in writers.acknowledged if space == name} <= set(found)
    assert describe(pair.params(home))["last_switch"]["kind"] == "failback"


def test_nor_is_it_under_sentinel_with_applications_that_know_sentinel_alone(sentinel_group, watched):
    pair = watched
    home, away = pair.roles()
    with Writers(pair) as writers:
        writers.wait()
        assert pair.fail_over(home, away)["proof"]["old_refuses_writes"]
        writers.wait()
        assert pair.rejoin(home, away)["lost"] == 0
    sentinel_group.settled()
    assert pair.roles() == (away, home)
    for name in NAMESPACES:
        found = pair.values(away, name)
        assert {key for space, key, _host in writers.acknowledged if space == name} <= set(found)


def test_a_promotion_by_sentinel_in_the_middle_takes_no_second_command(sentinel_group, watched, monkeypatch):
    pair = watched
    home, away = pair.roles()
    check = failover_store.check_copy

    def overtaken(*args, **kwargs):
        found = check(*args, **kwargs)
        with pair.side(away) as other:
            other.server.promote(60.0)
        wait_for("the other one serves", lambda: sentinel_group.primary() is pair.hosts[away])
        return found

    monkeypatch.setattr(failover_store, "check_copy", overtaken)
    done = pair.fail_over(home, away, kind="failback")
    assert done["changed"] and "Sentinel made the other server the primary by itself" in done["outside_fence"]
    sentinel_group.settled()
    assert pair.roles() == (away, home) and pair.serving(away) == list(NAMESPACES)
    assert "serves already" in pair.fail_over(home, away)["detail"]
    pair.rejoin(home, away)


def test_what_sentinel_did_by_itself_is_taken_up(sentinel_group, watched):
    pair = watched
    home, away = pair.roles()
    with pair.side(home) as here, pair.side(away) as there:
        assert here.place != there.place and not there.server.appointed()
        wait_for("Sentinel has asked it who it is", here.server.appointed)
    with sentinel_group.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", SERVICE)
    wait_for("Sentinel promotes", lambda: sentinel_group.primary() is not pair.hosts[home])
    pair.hosts[away] = sentinel_group.primary()  # whichever it took
    sentinel_group.settled()
    with pair.side(away) as there:
        wait_for("Sentinel has asked it, too", there.server.appointed)
    assert pair.fail_over(home, away, check=True)["changed"]
    pair.hosts[home].kill()
    done = pair.fail_over(home, away)
    assert done["changed"] and done["forced"] and "Sentinel" in done["outside_fence"]
    assert done["epoch"] == describe(sentinel_group.store(at=pair.hosts[away]))["epoch"]
    assert "serves already" in pair.fail_over(home, away)["detail"]
    pair.hosts[home].again()
    sentinel_group.settled()
    assert not pair.fail_over(home, away)["changed"]
    assert pair.serving(away) == list(NAMESPACES)


@pytest.mark.parametrize("step", ["fence-store", "promote-replica", "serve-store"])
def test_the_same_command_finishes_what_was_killed(pair, monkeypatch, step):
    home, away = killed_then_finished(pair, monkeypatch, step)
    pair.rejoin(home, away)


def test_what_nobody_compared_before_somebody_else_made_it_follow_is_not_told_to_be_nothing(pair):
    home, away = pair.roles()
    pair.hosts[home].kill()
    pair.fail_over(home, away, force=True, outside_fence="its power is off")
    pair.hosts[home].again()
    with pair.hosts[home].client() as client:  # as Sentinels do
        client.replicaof("127.0.0.1", str(pair.hosts[away].port))
    wait_for("it follows", lambda: pair.hosts[home].said_of()["master_link_status"] == "up")
    back = pair.rejoin(home, away)
    assert (back["changed"], back["untold"], back["lost"]) == (False, True, None)
    assert "cannot be told any more" in back["detail"]
    pair.fail_over(away, home, kind="failback")
    assert pair.rejoin(away, home)["lost"] == 0


def dies_alone(pair, home, away):
    """The primary acknowledges five writes that its replica never hears of, and is gone."""
    with pair.hosts[away].client() as client, pair.hosts[home].client() as other:
        client.config_set("masterauth", "wrong")
        other.execute_command("CLIENT", "KILL", "TYPE", "replica")
        wait_for("the link is down", lambda: pair.hosts[away].said_of()["master_link_status"] == "down")
        with pair.memory(home) as memory:
            memory.write_many("agent-2", {f"lost-{n}": {"n": n} for n in range(5)})
    pair.hosts[home].kill()


def test_a_log_that_was_pruned_past_the_parting_does_not_say_that_nothing_was_lost(pair):
    home, away = pair.roles()
    dies_alone(pair, home, away)
    pair.fail_over(home, away, force=True, outside_fence="its power is off")
    with pair.memory(away) as memory:
        memory.write_many("agent-2", {f"after-{n}": {"n": n} for n in range(9)})
    pruned(pair, away)
    pair.hosts[home].again()
    known = pair.rejoin(home, away, check=True)
    assert known["untold"] and known["lost"] is None and "pruned past" in known["detail"]
    refused("What only .* has cannot be told, since a write log was pruned past", lambda: pair.rejoin(home, away))
    back = pair.rejoin(home, away, forensic=lambda incident: f"snapshot of {incident}")
    with pair.hosts[away].client() as client:
        client.config_set("masterauth", pair.hosts[away].passwords["memops"])
    assert back["untold"] and back["lost"] is None and back["forensic"] and "pruned past" in back["detail"]
    assert pathlib.Path(back["lost_file"]).read_text().count("lost-") == 5
    again = pair.rejoin(home, away)
    assert (again["changed"], again["untold"], again["lost"]) == (False, True, None)
    pair.fail_over(away, home, kind="failback")  # that one was fenced before
    pruned(pair, home)
    assert (pair.rejoin(away, home)["lost"], pair.rejoin(away, home)["untold"]) == (0, False)
    with pair.memory(home) as memory:
        memory.write("agent-2", "both have it", {"n": 1})


def pruned(pair, host):
    with contextlib.closing(open_store(pair.params(host))) as store:
        store.prune_log(0, (store.identity().epoch, store.identity().sequence))


def test_a_forced_failover_tells_what_was_lost_to_the_record(pair, monkeypatch):
    home, away = pair.roles()
    dies_alone(pair, home, away)
    refused("nobody can fence it", lambda: pair.fail_over(home, away))
    done = pair.fail_over(home, away, force=True, outside_fence="its power is off")
    assert done["forced"] and pair.serving(away) == list(NAMESPACES)
    pair.hosts[home].again()
    with pair.hosts[away].client() as client:
        refused("cannot be kept as a snapshot", lambda: pair.rejoin(home, away))
        assert pair.serving(home) == [] and seen(pair, home, "agent-2") == "refused"
        back = pair.rejoin(home, away, forensic=lambda incident: f"snapshot of {incident}")
        assert sorted(back["lost_keys"]) == [f"agent-2: lost-{n}" for n in range(5)]
        client.config_set("masterauth", pair.hosts[away].passwords["memops"])
    assert "lost-1" not in pair.values(away, "agent-2")
    run = pair.run()
    with killed_after("replicates", monkeypatch), pytest.raises(Killed):
        pair.fail_over(away, home, kind="failback", run=run)
    again = pair.rejoin(home, away)  # the way home began and did not end; what was lost is told all the same
    assert (again["changed"], again["lost"], again["lost_keys"]) == (False, 5, back["lost_keys"])
    pair.fail_over(away, home, kind="failback", run=pair.run(takeover=run.attempt))
    assert pair.rejoin(away, home)["lost"] == 0


def test_what_is_quarantined_stays_so_and_nobody_opens_the_store_meanwhile(pair, monkeypatch):
    home, away = pair.roles()
    with contextlib.closing(open_store(pair.params(home))) as store:
        claim = store.claim("agent-3", "other:2:1", "somebody", new_incident="inc-quarantine")
        store.fence(claim)
        store.end_lease(claim)
        run = pair.run()
        with killed_after("fence-store", monkeypatch), pytest.raises(Killed):
            pair.fail_over(home, away, run=run)
        assert pair.states(home) == {"agent-1": "standby", "agent-2": "standby", "agent-3": "quarantined"}
        assert [seen(pair, host, name) for host in "ab" for name in NAMESPACES] == ["refused"] * 6
        refused("whole store", lambda: store.claim("agent-3", "o:3:1", "other", new_incident="x"), LeaseHeld)
        with pytest.raises(NamespaceQuarantined):
            store.create_namespace("agent-new")
    pair.fail_over(home, away, run=pair.run(takeover=run.attempt))
    assert pair.states(away) == {"agent-1": "serving", "agent-2": "serving", "agent-3": "quarantined"}
    assert [seen(pair, away, name) for name in NAMESPACES] == ["served", "served", "refused"]
    pair.rejoin(home, away)
    with contextlib.closing(open_store(pair.params(away))) as store:
        claim = store.claim("agent-3", "other:4:1", "somebody", new_incident="none")
        store.unfence(claim)
        store.close_incident(claim)


def test_a_replica_of_which_its_primary_hears_nothing_is_refused(pair, monkeypatch):
    home, away = pair.roles()
    monkeypatch.setattr(replication, "replicas_of", lambda _known: ())
    refused("says that it follows .*, where no replica is connected", lambda: pair.fail_over(home, away))
    monkeypatch.undo()
    with pair.hosts[away].client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        refused("it is not connected to any primary", lambda: pair.fail_over(home, away))
    finally:
        with pair.hosts[away].client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(pair.hosts[home].port))
        wait_for("it follows", lambda: pair.hosts[away].said_of()["master_link_status"] == "up")
    assert pair.serving(home)


def test_who_works_on_a_namespace_is_waited_for(pair):
    home, away = pair.roles()
    with contextlib.closing(open_store(pair.params(home))) as store:
        claim = store.claim("agent-2", "other:1:1", "somebody", new_incident="inc-of-somebody")
        refused("namespace 'agent-2' is being worked on by somebody", lambda: pair.fail_over(home, away), LeaseHeld)
        store.close_incident(claim)


def test_servers_without_a_file_of_users_start_again_with_what_their_users_had(tmp_path):
    """A change of roles writes the configuration, and with it the users as they are in that moment."""
    with ReplicaSet(replicas=1) as group:
        pair = ValkeyPair(tmp_path, group)
        pair.start()
        before = [users(server) for server in group.servers]
        home, away = pair.roles()
        pair.fail_over(home, away)
        pair.rejoin(home, away)
        assert [users(server) for server in group.servers] == before
        for server in group.servers:
            server.kill()
            server.again()
        assert [users(server) for server in group.servers] == before


def users(server):
    with server.client() as client:
        return sorted(map(str, client.acl_list()))
