# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Real Valkey servers under real Sentinels: Memory and operators find the primary, and promotions go by Sentinel."""
from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    MemoryOpsError,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import open_server
from ansible_collections.memops.agent_memory.plugins.module_utils._route import for_applications
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils._store_address import location
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.debian import need
from tests.support.stores import keyring_params
from tests.support.valkey_replicas import SERVICE, ReplicaSet, frozen, wait_for
from tests.unit.engines.valkey_help import prefix


@pytest.fixture
def group(sentinel_group):
    return sentinel_group


@pytest.fixture
def roles(group):
    """(primary, replica, another replica), all in step."""
    first = group.primary()
    group.synced()
    group.settled()
    return [first, *(one for one in group.servers if one is not first)]


class Writer:
    """An application that goes on writing and notes what was acknowledged, and how far the replicas were then."""

    def __init__(self, group, params, keyring):
        self.group, self.keyring = group, keyring
        self.memory = Memory(store=params, keyring=keyring, actor="writer", create=False)
        self.acknowledged, self.safe, self.errors = [], [], []
        self._end, self._thread = threading.Event(), threading.Thread(target=self._work)

    def _work(self):
        for number in itertools.count():
            if self._end.is_set():
                return
            primary = self.group.primary()
            try:
                self.memory.write("n", f"k{number:06}", number)
            except MemoryOpsError as exc:
                self.errors.append(exc)
                time.sleep(0.05)
                continue
            self.acknowledged.append(number)
            if self._replicated(primary):
                self.safe.append(number)

    @staticmethod
    def _replicated(primary):
        """As WAIT 1: whether a replica has all that the primary had written when this was asked."""
        with contextlib.suppress(Exception):
            with primary.client(patience=1) as client:
                client.set("mark", "1")
                return client.execute_command("WAIT", "1", "500") >= 1
        return False

    def __enter__(self):
        self._thread.start()
        wait_for("some writes", lambda: len(self.acknowledged) > 5)
        return self

    def more(self, count=5):
        """It writes again."""
        there = len(self.acknowledged)
        wait_for("more writes", lambda: len(self.acknowledged) >= there + count)

    def __exit__(self, *exc):
        self._end.set()
        self._thread.join(300)
        self.memory.close()


@pytest.fixture
def store(group, roles):
    """The operator's mapping of a new store, with a namespace."""
    params = group.store(prefix())
    with contextlib.closing(open_store(params, create=True)) as made:
        made.create_namespace("n")
    return params


@pytest.fixture
def writer(group, store, tmp_path):
    keyring = keyring_params(tmp_path)
    Memory(store=store, keyring=keyring).close()
    return Writer(group, group.application(store["prefix"], busy_timeout=2), keyring)


def opened(group, server, **more):
    return contextlib.closing(open_server(group.store(at=server, **more)))


def kept(writer, store):
    with Memory(store=store, keyring=writer.keyring, create=False) as memory:
        return set(memory.read_many("n", [f"k{number:06}" for number in writer.acknowledged]).values())


def test_a_store_is_where_sentinel_says(group, roles, store):
    with contextlib.closing(open_store(store)) as found:
        assert found.path == "mymaster (by Sentinel)"
        assert found.reader().namespace("n").state == "serving"
    with roles[0].client() as client:
        assert client.exists(f"{store['prefix']}:store")
    assert location(store) == location({**store, "url": roles[1].url, "sentinels": store["sentinels"][::-1]})
    route = for_applications({**store, "application_password_file": "/theirs"})
    assert route["sentinels"] == store["sentinels"]
    assert (route["user"], route["password_file"]) == ("agent", "/theirs")
    assert "password" not in route
    for part in ("sentinels", "sentinel_service"):
        with pytest.raises(InvalidInput, match=r"go together"):
            open_store({**store, part: None})
    with pytest.raises(InvalidInput, match=r"has 'a:b:c'"):
        open_store({**store, "sentinels": ["a:b:c"]})
    with pytest.raises(StoreUnavailable, match=r"No Sentinel of other answers and names a primary that is up"):
        open_store({**store, "sentinel_service": "other", "busy_timeout": 0.1})
    with pytest.raises(StoreUnavailable, match=r"The Sentinels of mymaster refuse the login of user nobody"):
        open_store({**store, "sentinel_user": "nobody"})
    with pytest.raises(StoreUnavailable, match=r"The server mymaster \(by Sentinel\) refuses the login of user memops"):
        open_store({**store, "password": "wrong"})


def test_without_a_server_of_its_own_it_is_the_primary(group, roles):
    with contextlib.closing(open_server(group.store())) as server:
        assert server.standing().role == "primary"
        assert server.place.port == roles[0].port


def test_promotion_by_sentinel_of_the_wanted_replica_under_a_writer_who_loses_nothing(group, roles, writer, store):
    wanted = roles[2]
    with writer, contextlib.closing(open_store(store)) as reading:
        reading.identity()
        with opened(group, wanted) as replica:
            now = replica.promote(120.0)
        assert (now.role, now.writable) == ("primary", True)
        writer.more()
        # who only reads is not left at the former primary, which would answer, too
        wait_for("reads move", lambda: reading.identity() and reading.wire._con.port == wanted.port)
    assert roles[0].said_of()["role"] == "slave"
    for one in group.servers:
        with one.client() as client:
            assert client.config_get("replica-priority") == {"replica-priority": "100"}
    group.settled()  # nobody turns it back
    assert group.primary() is wanted
    assert kept(writer, store) == set(writer.acknowledged)
    with opened(group, roles[0]) as former:
        assert former.follow(group.store(at=wanted), 120.0).upstream == f"127.0.0.1:{wanted.port}"


def test_the_death_of_the_primary_under_a_writer(group, roles, writer, store):
    """Sentinel's own failover. What a replica had (WAIT) is there; what was acknowledged later may be lost."""
    with group.alert(), writer:
        roles[0].kill()
        wait_for("another primary", lambda: group.primary() is not roles[0])
        wait_for("every Sentinel heard", lambda: roles[0].port not in _named(group))
        writer.more()
    lost = sorted(set(writer.acknowledged) - kept(writer, store))
    assert not set(lost) & set(writer.safe)
    roles[0].again()  # as a primary, by its file
    with opened(group, roles[0]) as former:
        assert former.follow(group.store(), 120.0).role == "replica"


def test_a_primary_that_went_silent_is_replaced_before_sentinel_misses_it(group, roles):
    """As when its power goes: to the Sentinels it is alive for their whole patience."""
    with opened(group, roles[1]) as replica, frozen(roles[0]):
        assert replica.promote(100.0).role == "primary"  # they would miss it after 120
    with opened(group, roles[0]) as former:
        assert former.follow(group.store(at=roles[1]), 120.0).role == "replica"


def test_what_sentinel_would_not_do_changes_nothing(group, roles):
    before = [one.said_of()["role"] for one in group.servers]
    with opened(group, roles[1]) as replica, roles[1].client() as client, roles[2].client() as other:
        client.config_set("replica-priority", 0)
        wait_for("Sentinel heard", lambda: _priority(group, roles[1]) == 0)
        with pytest.raises(CannotProceed, match=r"has replica-priority 0, so that they never promote it. Nothing was"):
            replica.promote(5.0)
        client.config_set("replica-priority", 100)
        other.config_set("replica-priority", 1)
        wait_for("Sentinel heard", lambda: (_priority(group, roles[1]), _priority(group, roles[2])) == (100, 1))
        with pytest.raises(CannotProceed, match=r"Another replica of mymaster has the lowest replica-priority"):
            replica.promote(5.0)
        other.config_set("replica-priority", 100)
        wait_for("Sentinel heard", lambda: _priority(group, roles[2]) == 100)
    assert [one.said_of()["role"] for one in group.servers] == before


def _named(group):
    """The port of the primary, as each Sentinel has it."""
    ports = set()
    for one in group.sentinels:
        with one.client() as client:
            ports.add(int(client.sentinel_get_master_addr_by_name(SERVICE)[1]))
    return ports


def _priority(group, server):
    with group.sentinels[0].client() as client:
        known = client.sentinel_slaves(SERVICE)
        return next(int(one["slave-priority"]) for one in known if int(one["port"]) == server.port)


def test_sentinels_without_a_quorum_promote_nobody(group, roles):
    """The last one: two of the three Sentinels stand still."""
    with opened(group, roles[1]) as replica:
        with group.alert(), frozen(group.sentinels[1]), frozen(group.sentinels[2]):
            wait_for("the others are missed", lambda: _missed(group) == 2)
            with pytest.raises(CannotProceed, match=r"have no quorum: they can promote nobody. Nothing was changed"):
                replica.promote(5.0)
        replica.sentinels.place = dataclasses.replace(replica.sentinels.place, sentinels=(("127.0.0.1", 1),))
        with pytest.raises(CannotProceed, match=r"No Sentinel of mymaster answers. Nothing was changed"):
            replica.promote(5.0)
        assert group.primary() is roles[0]


def _missed(group):
    with group.sentinels[0].client() as client:
        return sum("s_down" in one["flags"] for one in client.sentinel_sentinels(SERVICE))


def test_redis_sentinels_without_coordination():
    binary = need("redis-server", "redis-server")
    with ReplicaSet(replicas=1, sentinels=1, quorum=1, binary=binary) as group:
        first, second = group.servers
        with opened(group, second) as replica, opened(group, first) as former:
            assert replica.promote(120.0).role == "primary"
            now = former.follow(group.store(at=second), 120.0)
            assert former.follows(now, replica.standing())
        group.settled()
