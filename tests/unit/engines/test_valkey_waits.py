# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Who waited in the server (BLPOP, XREAD BLOCK …) before the fence was raised gets nothing that comes behind it:
neither from a server that asks for rights again nor from one that does not."""
from __future__ import annotations

import threading

import pytest
from redis.exceptions import ResponseError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_waits import end_waits
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.debian import need
from tests.support.valkey_replicas import wait_for
from tests.support.valkey_server import APPLICATION, OWNER, ValkeyServer
from tests.unit.operations.keyspace_help import KeyspaceSite, rebuild

NS, OTHER = "agent-7", "agent-8"


@pytest.fixture(scope="module", params=["valkey", "redis 7.0"])
def server(request):
    with ValkeyServer(binary="" if request.param == "valkey" else need("redis-server", "redis-server")) as own:
        yield own


class Queues(KeyspaceSite):
    """An application with queues: it waits for what comes."""

    def fill(self, namespace=NS, count=3):
        self.fill_more(20, namespace)
        self.app.rpush(self.key("queue", namespace), *range(count))
        self.app.zadd(self.key("ranks", namespace), {"member": 1})
        self.app.xadd(self.key("stream", namespace), {"n": 1})
        self.app.xgroup_create(self.key("stream", namespace), "group", "$")

    def waits(self, namespace=NS):
        queue, stream = self.key("queue", namespace), self.key("stream", namespace)
        return [
            ("BLPOP", queue, 0),
            ("BLMOVE", queue, self.key("elsewhere", OTHER), "LEFT", "RIGHT", 0),
            ("BZPOPMIN", self.key("ranks", namespace), 0),
            ("XREAD", "BLOCK", 0, "STREAMS", stream, "$"),
            ("XREADGROUP", "GROUP", "group", "me", "BLOCK", 0, "STREAMS", stream, ">"),
        ]


@pytest.fixture
def site(tmp_path, server):
    one = Queues(tmp_path, server)
    one.fill()
    yield one
    one.wipe()


class Waiting(threading.Thread):
    """A client of the application's that waits, each with a connection of its own."""

    def __init__(self, server, command, user=APPLICATION):
        super().__init__(daemon=True)
        self.client, self.command, self.got, self.refused = server.client(user), command, None, None

    def run(self):
        try:
            self.got = self.client.execute_command(*self.command)
        except ResponseError as exc:
            self.refused = exc


def waiting(server, commands, user=APPLICATION):
    some = [Waiting(server, command, user) for command in commands]
    with server.client() as client:
        before = int(client.info("clients")["blocked_clients"])
        for one in some:
            one.start()
        wait_for("they wait", lambda: int(client.info("clients")["blocked_clients"]) == before + len(some))
    return some


def test_what_a_rebuild_brings_is_not_handed_to_who_waited_before(site, server):
    before = site.values()
    site.backup()
    site.app.delete(site.key("queue"), site.key("ranks"))
    clients = waiting(server, site.waits())
    done = rebuild(site, strategy="hard", absent="restore", until="validate")
    assert done["validate"]["verdict"] == "pass"
    site.root.xadd(site.key("stream"), {"by": "an operator"})
    for one in clients:
        one.join(60)
        assert not one.is_alive() and one.refused is not None and one.got is None, one.command
    site.root.execute_command("XDEL", site.key("stream"), site.root.xrevrange(site.key("stream"), count=1)[0][0])
    assert site.root.exists(site.key("elsewhere", OTHER)) == 0
    assert {key: value for key, (value, *_more) in site.values().items()} == {
        key: value for key, (value, *_more) in before.items()
    }


def test_others_that_wait_are_left_alone(site, server):
    store = open_store(site.store)
    (other,) = waiting(server, [("BLPOP", site.key("other", OTHER), 0)], OWNER)
    claim = store.claim(NS, "attempt-1", "operator", new_incident="inc-1")
    store.fence(claim)
    end_waits(store.wire, "nobody")
    site.root.rpush(site.key("other", OTHER), "it")
    other.join(60)
    assert other.got == [site.key("other", OTHER), b"it"] or other.got == (site.key("other", OTHER), b"it")
    store.unfence(claim)
    store.close()


def test_an_operator_who_may_not_end_waits_is_told_where_that_matters(site, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">limited", "~*", "+@all", "-client|unblock")
    store = open_store({**site.store, "user": "limited", "password": "limited"})
    claim = store.claim(NS, "attempt-1", "operator", new_incident="inc-1")
    store.fence(claim)
    told = any("clients that waited in BLPOP" in line for line in store.prove(NS)["not_fenced"])
    assert told == bool(server.binary)
    store.unfence(claim)
    store.close()
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", "limited")


def test_a_replica_ends_waits_too(tmp_path, server):
    with ValkeyServer(binary=server.binary, of=server) as replica:
        site = Queues(tmp_path, server)
        site.fill()
        wait_for("it follows", lambda: replica.said_of()["master_link_status"] == "up"
                 and replica.client().exists(site.key("stream")))  # fmt: skip
        (one,) = waiting(replica, [("XREAD", "BLOCK", 0, "STREAMS", site.key("stream"), "$")])
        store = open_store(site.store)
        claim = store.claim(NS, "attempt-1", "operator", new_incident="inc-1")
        store.fence(claim)
        site.root.xadd(site.key("stream"), {"by": "an operator"})
        one.join(60)
        assert one.refused is not None and one.got is None
        store.unfence(claim)
        store.close()
        site.wipe()
