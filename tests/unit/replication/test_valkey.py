# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Real Valkey servers and their replicas, without Sentinel: what they say of themselves, and how roles change."""
from __future__ import annotations

import contextlib
import pathlib

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import open_server, valkey
from tests.support.debian import need
from tests.support.valkey_replicas import ReplicaSet, frozen, wait_for


@pytest.fixture(scope="module", params=["valkey"])
def group(request):
    binary = need("redis-server", "redis-server") if request.param == "redis" else ""
    with ReplicaSet(replicas=2, binary=binary) as servers:
        yield servers


@pytest.fixture
def roles(group):
    """(primary, replica, another replica), all in step, whatever the test before did."""
    first = group.primary()
    others = [one for one in group.servers if one is not first]
    for one in others:
        with opened(one) as server:
            server.follow(first.store(), 120.0)
    group.synced()
    return [first, *others]


BOTH = pytest.mark.parametrize("group", ["valkey", "redis"], indirect=True)


def opened(server, **more):
    return contextlib.closing(open_server(server.store(**more)))


def put(server, count=1):
    with server.client() as client:
        for number in range(count):
            client.set(f"raw-{number}", "x" * 100)
        return client.info("replication")["master_repl_offset"]


@BOTH
def test_the_standing_of_a_primary_and_of_its_replica(roles):
    with opened(roles[0]) as primary, opened(roles[1]) as replica:
        end = put(roles[0], 20)
        assert replica.applied(end, 120.0) >= end
        assert primary.applied(end, 0.0) >= end
        first, second = primary.standing(), replica.standing()
        assert (first.role, first.writable, first.upstream, first.link) == ("primary", True, None, None)
        assert first.position >= end
        assert {one for one, _position in first.replicas} == {f"127.0.0.1:{one.port}" for one in roles[1:]}
        assert (second.role, second.writable, second.link) == ("replica", False, True)
        assert second.upstream == f"127.0.0.1:{roles[0].port}"
        assert second.silent_seconds is not None and second.silent_seconds < 60
        assert replica.follows(second, first)
        assert not replica.follows(first, first)
        with ReplicaSet(replicas=0) as stranger, opened(stranger.servers[0]) as other:
            assert not replica.follows(second, other.standing())


def test_what_a_replica_lacks_is_said(roles):
    with opened(roles[1]) as replica:
        position = replica.standing().position
        with pytest.raises(CannotProceed, match=r"lacks 1\d{6} of \d+ bytes .* after 0.2 seconds; it last heard"):
            replica.applied(position + 1_100_000, 0.2)


def test_a_link_that_was_cut_is_down_and_comes_back(roles):
    with opened(roles[0]) as primary, opened(roles[1]) as replica, roles[1].client() as client:
        client.config_set("masterauth", "wrong")
        with roles[0].client() as other:
            other.execute_command("CLIENT", "KILL", "TYPE", "replica")
        wait_for("the link is down", lambda: replica.standing().link is False)
        assert not replica.follows(replica.standing(), primary.standing())
        end = put(roles[0])
        with pytest.raises(CannotProceed, match=r"its link to 127.0.0.1:.* is down"):
            replica.applied(end, 0.2)
        with pytest.raises(CannotProceed, match=r"does not follow .* its link to 127.0.0.1:.* is down") as caught:
            replica.follow(roles[0].store(), 0.3)
        assert "masterauth" in caught.value.next_step
        client.config_set("masterauth", roles[1].passwords["memops"])
        assert replica.follow(roles[0].store(), 120.0).position >= end
        assert replica.follows(replica.standing(), primary.standing())


def test_a_primary_that_stands_still_is_no_link_though_it_is_up(roles, monkeypatch):
    monkeypatch.setattr(valkey, "LATE_SECONDS", 1.0)
    with opened(roles[1]) as replica:
        with frozen(roles[0]):
            now = wait_for("silence is noticed", lambda: (now := replica.standing()).link is False and now)
            assert roles[1].said_of()["master_link_status"] == "up"
            assert now.silent_seconds > 2
        wait_for("it is heard again", lambda: replica.standing().link)


def test_a_replica_that_stands_still_is_not_counted(roles, monkeypatch):
    monkeypatch.setattr(valkey, "LATE_SECONDS", 1.0)
    with opened(roles[0]) as primary:
        with frozen(roles[1]):
            wait_for("it is missed", lambda: len(primary.standing().replicas) == 1)
            assert roles[0].said_of()["connected_slaves"] == 2
        wait_for("it is back", lambda: len(primary.standing().replicas) == 2)


@BOTH
def test_promotion_by_the_primary_changes_both_roles_at_once(roles):
    end = put(roles[0], 50)
    with opened(roles[1]) as replica, opened(roles[0]) as primary:
        history = primary.standing().history
        now = replica.promote(120.0)
        assert (now.role, now.writable) == ("primary", True)
        assert now.position >= end
        assert now.history != history
        assert roles[0].said_of()["role"] == "slave"
        with roles[1].client() as client:
            assert client.get("raw-49")
        assert replica.promote(120.0).role == "primary"  # nothing the second time
        # the roles are in the servers' own files: a restart changes nothing
        assert f"replicaof 127.0.0.1 {roles[1].port}" in pathlib.Path(roles[0]._config).read_text()
        assert "replicaof" not in pathlib.Path(roles[1]._config).read_text()
        back = primary.follow(roles[1].store(), 120.0)
        assert (back.role, back.link) == ("replica", True)
        assert primary.follows(back, replica.standing())
        full = roles[1].said_of("stats")["sync_full"]
        assert primary.follow(roles[1].store(), 120.0).role == "replica"
        assert roles[1].said_of("stats")["sync_full"] == full


def test_promotion_without_the_primary_and_its_return_without_its_own_later_writes(roles):
    with opened(roles[1]) as replica:
        put(roles[0])
        with frozen(roles[0]):
            assert replica.promote(120.0).role == "primary"
            put(roles[1])
        with opened(roles[0]) as former:
            with roles[0].client() as client:
                client.set("only-there", "1")
            assert former.standing().role == "primary"
            assert not former.follows(former.standing(), replica.standing())
            now = former.follow(roles[1].store(), 120.0)
            assert former.follows(now, replica.standing())
            with roles[0].client() as client:
                assert client.get("only-there") is None


def test_a_promotion_that_leaves_too_few_replicas_says_so_and_the_same_command_finishes(roles):
    with opened(roles[1]) as replica, roles[1].client() as client:
        client.config_set("min-replicas-to-write", 5)
        seconds = 1.6
        with pytest.raises(StoreUnavailable, match=r"takes no writes, because too few replicas follow it"):
            while True:  # until the roles had the time to change
                with contextlib.suppress(CannotProceed):
                    replica.promote(seconds)
                seconds *= 3
        client.config_set("min-replicas-to-write", 0)
        assert replica.promote(120.0).writable


def test_a_primary_whose_replicas_are_too_few_is_not_writable(roles):
    with opened(roles[0]) as primary, roles[0].client() as client:
        client.config_set("min-replicas-to-write", 3)
        assert not primary.standing().writable
        client.config_set("min-replicas-to-write", 0)
        assert primary.standing().writable


def test_following_what_is_no_primary_or_itself(roles):
    with opened(roles[1]) as replica, opened(roles[0]) as primary:
        with pytest.raises(CannotProceed, match=r"is no primary"):
            replica.follow(roles[2].store(), 1.0)
        with pytest.raises(CannotProceed, match=r"cannot follow itself"):
            primary.follow(roles[0].store(), 1.0)
        assert primary.standing().role == "primary"


def test_logins_and_rights(roles):
    with pytest.raises(StoreUnavailable, match=r"refuses the login of user memops"):
        open_server(roles[0].store(password="wrong"))
    with roles[1].client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">weak", "~*", "+@read", "+@write", "+@connection",
                               "+@transaction", "+info")  # fmt: skip
    with opened(roles[1], user="weak", password="weak") as replica:
        assert replica.standing().role == "replica"
        with pytest.raises(CannotProceed, match=r"does not allow user weak to run replicaof") as caught:
            replica.promote(1.0)
        assert "+failover" in caught.value.next_step
    assert roles[1].said_of()["role"] == "slave"


def test_an_embedded_store_has_no_replica():
    with pytest.raises(CapabilityMissing, match=r"has no replica"):
        open_server({"engine": "sqlite", "path": "/nowhere"})
