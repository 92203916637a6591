# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence on a replica set: it is raised on every server, whoever becomes the primary, and comes down exactly."""
from __future__ import annotations

import contextlib
import threading

import pytest
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import valkey_replicas
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import open_server
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_replicas import SERVICE, frozen, wait_for
from tests.support.valkey_server import APPLICATION
from tests.unit.engines.sqlite_help import all_rows, structure, write
from tests.unit.engines.valkey_help import prefix


@pytest.fixture
def group(sentinel_group):
    return sentinel_group


@pytest.fixture
def store(group):
    group.synced()
    group.settled()
    with contextlib.closing(open_store(group.store(prefix()), create=True)) as opened:
        write(opened, "n", {"a": b"1"})
        write(opened, "m", {"a": b"1"})
        yield opened
    for server in group.servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "~*", "&*")


def claimed(store, namespace="n", number=1):
    return store.claim(namespace, f"attempt-{number}", "operator", new_incident=f"inc-{namespace}")


def at(store, server, namespace="n"):
    """What a raw read of the application's user meets there."""
    key = store.names.records(namespace, store.reader().namespace(namespace).generation)
    with server.client(APPLICATION) as client:
        try:
            client.zcard(key)
        except NoPermissionError:
            return "refused"
        return "served"


def users(group):
    out = []
    for server in group.servers:
        with server.client() as client:
            out.append(client.acl_list())
    return out


def others(group):
    first = group.primary()
    return [one for one in group.servers if one is not first]


def about_replicas(proof):
    return [line for line in proof["not_fenced"] if "the replica" in line]


def test_a_fence_holds_on_every_server_and_comes_down_exactly(group, store):
    before = users(group)
    assert about_replicas(store.prove("n")) == []  # it serves, so its application is let in there by rights
    first, second = claimed(store), claimed(store, "m")
    assert store.fence(first)
    assert [at(store, one) for one in group.servers] == ["refused"] * 3
    assert [at(store, one, "m") for one in group.servers] == ["served"] * 3
    proof = store.prove("n")
    assert (proof["writes_refused"], proof["reads_refused"], about_replicas(proof)) == (True, True, [])
    assert sum(line.endswith("fenced, too") for line in proof["detail"]) == 2
    assert not store.fence(first)
    assert store.fence(second)
    assert store.unfence(first)
    assert [at(store, one) for one in group.servers] == ["served"] * 3
    assert [at(store, one, "m") for one in group.servers] == ["refused"] * 3
    assert store.unfence(second)
    assert users(group) == before
    assert about_replicas(store.prove("n")) == []


def test_a_replica_whose_user_differs_is_left_alone_and_named(group, store):
    with others(group)[0].client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "%R~*")
        before = client.acl_list()
        claim = claimed(store)
        store.fence(claim)
        assert client.acl_list() == before
        where = f"the replica valkey://127.0.0.1:{others(group)[0].port}/0"
        assert about_replicas(store.prove("n")) == [f"raw clients of user {APPLICATION} at {where}: it may read"]
        store.unfence(claim)
        assert client.acl_list() == before


def test_a_replica_that_is_away_is_named_and_fenced_by_the_same_command(group, store, monkeypatch):
    monkeypatch.setattr(valkey_replicas, "PATIENCE", 0.5)
    away = others(group)[1]
    claim = claimed(store)
    with frozen(away):
        store.fence(claim)
        found = about_replicas(store.prove("n"))
        assert len(found) == 1
        assert f"127.0.0.1:{away.port}/0: not tried (The server" in found[0]
    assert at(store, away) == "served"
    assert store.fence(claim)
    assert at(store, away) == "refused"
    store.unfence(claim)


def test_a_quarantine_that_does_not_arrive_is_said(group, store):
    cut = others(group)[0]
    with cut.client() as client, group.primary().client() as primary:
        client.config_set("masterauth", "wrong")
        primary.execute_command("CLIENT", "KILL", "TYPE", "replica")  # the other one comes back
        wait_for("the link is down", lambda: cut.said_of()["master_link_status"] == "down")
        claim = claimed(store)
        store.fence(claim)
        # the primary no longer knows it, so nobody can name it
        assert str(cut.port) not in " ".join(store.prove("n")["detail"])
        client.config_set("masterauth", cut.passwords["memops"])
    group.synced()
    assert store.fence(claim)
    assert at(store, cut) == "refused"
    store.unfence(claim)


def test_a_replica_is_waited_for_before_a_quarantine_is_said_to_stand(group, store):
    """Sentinel may make it the primary in the next moment."""
    claim, primary = claimed(store), group.primary()
    with contextlib.ExitStack() as still:
        for one in others(group):
            still.enter_context(frozen(one))
        fencing = threading.Thread(target=lambda: store._fence(claim, False))
        fencing.start()
        with primary.client() as client:
            waited = wait_for(
                "it waits, or is done",
                lambda: client.info("clients")["blocked_clients"] or (not fencing.is_alive() and "never"),
            )
    fencing.join()
    assert waited != "never" and store.reader().namespace("n").state == "quarantined"
    store.unfence(claim)


def test_sentinels_own_failover_in_a_quarantine_to_a_server_that_was_not_fenced(group, store):
    claim = claimed(store)
    before = group.primary()
    store.fence(claim)
    for one in others(group):
        with one.client() as client:
            client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "~*")
    before.kill()
    with group.alert():
        new = wait_for("another primary", lambda: (p := group.primary()) is not before and p)
    assert store.reader().namespace("n").state == "quarantined"  # data: Memory refuses
    with contextlib.closing(open_store(group.application(store.place.prefix))) as application:
        with pytest.raises(NamespaceQuarantined):
            write(application, "n", {"late": b"1"})
    assert at(store, new) == "served"  # raw clients are not kept out
    assert structure(store) == [
        f"the fence around 'n' is down: the server's user {APPLICATION} may use those keys again"
    ]
    assert not store.prove("n")["reads_refused"]
    assert store.fence(claim)
    assert at(store, new) == "refused"
    proof = store.prove("n")
    assert (proof["writes_refused"], proof["reads_refused"]) == (True, True)
    assert structure(store) == []
    assert store.unfence(claim)
    assert at(store, new) == "served"
    before.again()
    with contextlib.closing(open_server(group.store(at=before))) as former:
        former.follow(group.store(), 120.0)


def test_sentinels_own_failover_in_a_release_keeps_nobody_out(group, store, monkeypatch):
    """The namespace serves already, and its former primary does not know the new one as a replica any more."""
    claim = claimed(store)
    before = group.primary()
    store.fence(claim)
    assert {at(store, server) for server in group.servers} == {"refused"}
    fence_replicas = store._fence_replicas

    def demoted(namespace):
        with before.client() as client:
            client.set("reached", "1")
            client.wait(len(group.servers) - 1, 60_000)
        with group.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        wait_for("another primary", lambda: group.primary() is not before)
        return fence_replicas(namespace)

    monkeypatch.setattr(store, "_fence_replicas", demoted)
    store.unfence(claim)
    group.synced()
    group.settled()
    assert store.reader().namespace("n").state == "serving"
    assert at(store, group.primary()) == "served"


def test_a_point_that_is_kept_outlives_sentinels_failover(group, store):
    rows, before = all_rows(store, "n"), group.primary()
    with store.keeping():
        with store.point() as point:
            reader = store.reader(point)
        with reader:
            write(store, "n", {"a": b"2", "b": b"2"})
            group.synced()
            with group.sentinels[0].client() as client:
                client.execute_command("SENTINEL", "FAILOVER", SERVICE)
            wait_for("another primary", lambda: group.primary() is not before)
            write(store, "n", {"a": None, "c": b"3"})
            assert [row for page in reader.scan("n") for row in page] == rows and not reader.moved("n")
    group.synced()
    group.settled()
