# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Stores on a real Valkey Cluster: each in one hash slot, found again wherever that goes, fenced at all its nodes."""
from __future__ import annotations

import contextlib
import itertools
import threading
import time

import pytest
from redis.exceptions import MovedError, NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_connect import place_of
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_errors import RIGHTS
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CapabilityMissing,
    InvalidInput,
    NamespaceQuarantined,
    StoreMoved,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.certificates import Authority
from tests.support.debian import need
from tests.support.engines import Bench
from tests.support.valkey_cluster import APPLICATION, Tagged, ValkeyCluster
from tests.support.valkey_server import APPLICATION_RULES
from tests.unit.engines.sqlite_help import keys_of, structure, write
from tests.unit.operations.runbook import NS, attempt
from tests.unit.operations.test_rebuild_failover import Pair

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def cluster():
    with ValkeyCluster() as own:
        yield own


@pytest.fixture
def prefix(cluster):
    """In a slot of the shard that has a replica."""
    return cluster.tag(0, f"t{next(_NUMBERS)}x")


@pytest.fixture
def store(cluster, prefix):
    opened = open_store(cluster.store(prefix, busy_timeout=1), create=True)
    opened.create_namespace("n")
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    return store.claim("n", "attempt-1", "operator", new_incident="inc-1")


def keyring(folder):
    master = folder / "master.key"
    master.write_text("5a" * 32)
    master.chmod(0o600)
    return {"source": "file", "path": str(folder / "keyring.json"), "master_key_file": str(master)}


class Writer(threading.Thread):
    """An application that goes on writing; ``acknowledged`` in order, and what it was told instead."""

    def __init__(self, memory):
        super().__init__()
        self.memory, self.acknowledged, self.errors, self.ended = memory, [], [], threading.Event()

    def run(self):
        for number in itertools.count():
            if self.ended.is_set():
                return
            try:
                self.memory.write("n", f"w{number:05d}", number)
                self.acknowledged.append(f"w{number:05d}")
            except Exception as exc:
                self.errors.append(exc)

    def more(self, count):
        goal = len(self.acknowledged) + count
        deadline = time.monotonic() + 300
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline and self.is_alive(), self.errors
            time.sleep(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.join()


def test_three_stores_on_three_primaries_work_side_by_side(cluster, tmp_path):
    with contextlib.ExitStack() as stack:
        memories = []
        for number in range(3):
            prefix = cluster.tag(number, f"s{next(_NUMBERS)}x")
            seed = cluster.primaries[(number + 1) % 3]  # one that does not have it
            store = stack.enter_context(contextlib.closing(open_store(cluster.store(prefix, at=[seed]), create=True)))
            store.create_namespace("n")
            assert cluster.shard(prefix)[0].port == store.wire.address[1]
            folder = tmp_path / str(number)
            folder.mkdir()
            memory = Memory(store=cluster.application(prefix), keyring=keyring(folder))
            memories.append(stack.enter_context(memory))
        writers = [stack.enter_context(Writer(memory)) for memory in memories]
        for writer in writers:
            writer.more(20)
        for writer in writers:
            writer.ended.set()
            writer.join()
            assert not writer.errors
            assert list(writer.memory.list_keys("n")) == writer.acknowledged
            assert writer.memory.read("n", "w00003") == 3


def test_the_runbook_on_a_cluster(cluster, tmp_path, monkeypatch):
    """Write, read, log, backup, restore into a second store, rebuild soft and hard, serve read-only."""
    monkeypatch.setattr(incident, "state_home", lambda: str(tmp_path / "state"))
    bench = Bench("valkey", tmp_path, Tagged(cluster))
    pair = Pair(tmp_path / "site", bench)
    values = {f"k{n:02d}": n for n in range(40)}
    with pair.home.memory() as memory:
        memory.write_many(NS, values)
        for key in values:
            memory.read(NS, key)
    assert pair.warm()["changed"] and pair.away.rows() == pair.home.rows()
    for strategy in ("soft", "hard"):
        pair.home.raw.flip(NS, "k03")
        pair.home.raw.remove(NS, ["k04"])
        done = pair.home.rebuild(strategy)
        assert done["apply"]["method"] == strategy and done["isolate"]["proof"]["reads_refused"]
        assert pair.home.served() == values and pair.home.state() == "serving"
        with pair.home.open() as store, store.reader() as reader:
            assert reader.structure() == [] and reader.log_health()["intact"]
        pair.home.close_incident()
    with pair.home.memory() as memory:
        memory.rotate_keys(NS)
        assert memory.read(NS, "k03") == 3
    served = pair.take_over("reading", attempt())
    assert served["accepts_reads"] and served["accepts_writes"] is False and pair.away.served() == values
    bench.close()


def test_the_fence_stands_at_every_node_of_the_shard_and_moves_with_the_slot(cluster, store, claim, prefix):
    write(store, "n", {"a": b"1"})
    key = store.names.records("n", 1)
    owner, [replica] = cluster.shard(prefix)
    before = {node: node.execute("ACL", "GETUSER", APPLICATION) for node in (owner, replica)}

    def read_there(node):
        with node.client(APPLICATION) as raw:
            raw.execute_command("READONLY")
            return raw.zcard(key)

    cluster.until(lambda: read_there(replica) == 2)
    assert store.fence(claim)
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"], proof
    assert any(line.startswith(f"at 127.0.0.1:{replica.port}: raw ZRANGE") for line in proof["detail"]), proof
    for node in (owner, replica):
        with pytest.raises(NoPermissionError):
            read_there(node)
    replica.execute("ACL", "SETUSER", APPLICATION, "~*")
    assert not store.prove("n")["reads_refused"]
    assert any("is down: the server's user agent" in line for line in structure(store))
    assert not store.fence(claim) and store.prove("n")["reads_refused"]
    cluster.fail_over(owner, replica)
    cluster.until(lambda: cluster.shard(prefix) == (replica, [owner]))
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"], proof
    assert store.unfence(claim)
    assert {node: node.execute("ACL", "GETUSER", APPLICATION) for node in (owner, replica)} == before
    assert store.set_state(claim, "reading") and store.prove("n")["writes_refused"] and read_there(owner) == 2
    assert store.set_state(claim, "serving")
    assert {node: node.execute("ACL", "GETUSER", APPLICATION) for node in (owner, replica)} == before


def test_redis_7_as_a_cluster_over_tls(tmp_path):
    redis = need("redis-server", "redis-server")
    with ValkeyCluster(redis, Authority(tmp_path)) as cluster, contextlib.ExitStack() as stack:
        prefix = cluster.tag(0, "tls")
        params = cluster.store(prefix, at=[cluster.primaries[1]], busy_timeout=5)  # one that does not have it
        store = stack.enter_context(contextlib.closing(open_store(params, create=True)))
        owner, [replica] = cluster.shard(prefix)
        assert store.wire.address == ("127.0.0.1", owner.tls_port)
        memory = stack.enter_context(Memory(store=cluster.application(prefix), keyring=keyring(tmp_path)))
        with Writer(memory) as writer:
            writer.more(20)
            cluster.fail_over(owner, replica)
            writer.more(20)
        assert writer.errors == [] and list(memory.list_keys("n")) == writer.acknowledged
        cluster.until(lambda: cluster.shard(prefix, by=replica) == (replica, [owner]))
        claim = store.claim("n", "attempt-1", "operator", new_incident="inc-1")
        assert store.fence(claim)
        proof = store.prove("n")
        assert proof["writes_refused"] and proof["reads_refused"], proof
        assert any(line.startswith(f"at 127.0.0.1:{owner.tls_port}: raw ZRANGE") for line in proof["detail"]), proof
        with pytest.raises(NamespaceQuarantined):
            memory.write("n", "more", 1)
        assert store.unfence(claim)
        memory.write("n", "more", 1)
        keys_in_all_slots(cluster, stack)


def keys_in_all_slots(cluster, stack):
    """The layout keyspace: every key goes to another place and back, with what it holds and when that ends."""
    nodes = [stack.enter_context(node.client()) for node in cluster.nodes if cluster.leads(node)]

    def at_its_node(*command):
        for node in nodes:
            with contextlib.suppress(MovedError):
                return node.execute_command(*command)
        raise AssertionError("no node has it")

    names = [f"k{number}" for number in range(40)]
    for number, name in enumerate(names):
        more = ("PXAT", 4_000_000_000_000) if number % 2 else ()
        at_its_node("SET", f"app:n:{name}", f"value {number}", *more)

    def there():
        keys = [f"app:n:{name}" for name in names]
        return [(at_its_node("DUMP", key), at_its_node("PEXPIRETIME", key)) for key in keys]

    before = there()
    params = cluster.store("{keys}", layout="keyspace", pattern="app:{namespace}:*")
    with contextlib.closing(open_store(params)) as store:
        claim = store.claim("n", "attempt-1", "operator", new_incident="inc-2")
        assert store.fence(claim) and store.prove("n")["writes_refused"]
        former, target = store.generations("n")[0], store.begin_generation(claim)
        assert store.copy_generation(claim, former, target, after=None, limit=100, excluding=None) == max(names)
        assert store.switch(claim, target, former) and there() == before
        assert store.drop_generation(claim, former) == len(names)
        with store.reader() as reader:
            rows = reader.get_many("n", names)
            assert len(rows) == len(names) and not reader.moved("n")
        changes = [Change("k7", rows["k7"][9], None, "taken"), Change("k8", b"other", None, "refused")]
        assert store.change(claim, changes) == ["k8"]
        assert at_its_node("EXISTS", "app:n:k7") == 0
        assert store.change(claim, [Change("k7", None, rows["k7"])]) == [] and there() == before
        assert store.unfence(claim)


def test_a_point_is_kept_in_the_slot_of_its_store_until_another_node_takes_over(cluster, store, prefix):
    rows = write(store, "n", {"a": b"1", "b": b"1"})
    owner, [replica] = cluster.shard(prefix)
    with store.keeping():
        with store.point() as point:
            reader = store.reader(point)
        with reader:
            write(store, "n", {"a": b"2", "c": b"2"})
            assert [row for page in reader.scan("n") for row in page] == rows and not reader.moved("n")
            cluster.fail_over(owner, replica)
            assert [row for page in reader.scan("n") for row in page] == rows
            assert reader.moved("n")  # nobody knows what the other node never got


def test_an_application_writes_on_through_a_failover_that_waits_and_loses_nothing(cluster, store, prefix, tmp_path):
    owner, [replica] = cluster.shard(prefix)
    with Memory(store=cluster.application(prefix), keyring=keyring(tmp_path)) as memory, Writer(memory) as writer:
        writer.more(20)
        cluster.fail_over(owner, replica)
        writer.more(20)
    assert writer.errors == []
    assert keys_of(store, "n") == writer.acknowledged


def test_an_application_with_no_more_rights_than_a_store_needs_finds_its_slot_again(cluster, store, prefix, tmp_path):
    try:
        for node in cluster.nodes:
            node.execute("ACL", "SETUSER", APPLICATION, "resetkeys", "resetchannels", "nocommands", *RIGHTS.split(),
                         f"~{prefix}:*")  # fmt: skip
        owner, [replica] = cluster.shard(prefix)
        with Memory(store=cluster.application(prefix), keyring=keyring(tmp_path)) as memory, Writer(memory) as writer:
            writer.more(5)
            cluster.fail_over(owner, replica)
            writer.more(5)
        assert writer.errors == []
    finally:
        for node in cluster.nodes:
            node.execute("ACL", "SETUSER", APPLICATION, "nocommands", *APPLICATION_RULES)


def test_an_application_writes_on_when_the_primary_is_killed(cluster, store, claim, prefix, tmp_path):
    owner, [replica] = cluster.shard(prefix)
    store.create_namespace("quiet")
    assert any("newest writes that it acknowledged" in line for line in store.warnings())
    with Memory(store=cluster.application(prefix), keyring=keyring(tmp_path)) as memory:
        with Writer(memory) as writer:
            writer.more(20)
            sure = len(writer.acknowledged)
            with owner.client() as raw:
                raw.set(f"{prefix}:mark", 1)
                assert raw.wait(1, 5000) == 1  # what was acknowledged before is with the replica
                raw.delete(f"{prefix}:mark")
            reader = store.reader()
            assert not reader.moved("quiet")
            with cluster.alert():
                owner.kill()
                writer.more(20)
            acknowledged = list(writer.acknowledged)
        with reader:
            assert reader.moved("quiet")  # nobody wrote there; but nobody knows what the other node never got
        there = set(keys_of(store, "n"))
        lost = [key for key in acknowledged if key not in there]
        numbers = [int(key[1:]) for key in lost]
        assert not set(lost) & set(acknowledged[:sure]) and numbers == list(range(*_ends(numbers))), lost
        assert all("not known whether" in str(exc) for exc in writer.errors) and len(writer.errors) <= 1
        store.note(claim, still="ours")  # the operator's connection finds it as well
        assert store.fence(claim) and store.unfence(claim)
        assert any("no replica follows" in line for line in store.warnings())
    owner.again()
    cluster.until(lambda: cluster.follows(owner) and cluster.shard(prefix) == (replica, [owner]))


def _ends(numbers):
    return (min(numbers), max(numbers) + 1) if numbers else (0, 0)


def test_a_slot_that_is_being_moved_is_waited_for_and_followed(cluster, store, prefix):
    write(store, "n", {"a": b"1"})
    slot, [source, _replicas] = store.place.nodes.slot, cluster.shard(prefix)
    target = cluster.primaries[1]
    target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    with pytest.raises(StoreMoved, match=f"hash slot {slot} of the store .* is on its way") as caught:
        write(store, "n", {"b": b"2"})
    assert "resharding" in caught.value.next_step
    keys = source.execute("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    user, password = "memops", cluster.passwords["memops"]
    source.execute("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH2", user, password, "KEYS", *keys)
    for node in (target, source, *cluster.primaries[2:]):
        node.execute("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    write(store, "n", {"b": b"2"})
    assert keys_of(store, "n") == ["a", "b"] and store.wire.address[1] == target.port
    assert store.drop_tombstones("n", write(store, "n", {"b": None})) == 1 and keys_of(store, "n") == ["a"]


def test_what_cannot_work_says_why(cluster, prefix, store):
    seed = cluster.primaries[0]
    with pytest.raises(CapabilityMissing, match=r"cluster mode, and the prefix .memops. has no hash tag") as caught:
        open_store(cluster.store("memops", at=[seed]), create=True)
    assert "'{memops}'" in caught.value.next_step
    with pytest.raises(InvalidInput, match="names several servers, and the prefix 'memops' has no hash tag"):
        open_store(cluster.store("memops"))
    for bad in ("{}", "{a", "a}", "{a}{b}", "{a b}"):
        with pytest.raises(InvalidInput, match="in braces"):
            place_of(cluster.store(bad))
    with pytest.raises(StoreUnavailable, match="refuses the login of user memops"):
        open_store(cluster.store(prefix, password="wrong"))
    slot, owner = store.place.nodes.slot, cluster.shard(prefix)[0]
    owner.execute("CLUSTER", "DELSLOTS", slot)
    try:
        with pytest.raises(StoreUnavailable, match=f"No node of the Cluster .* serves the hash slot {slot}") as caught:
            write(store, "n", {"a": b"1"})
        assert "--cluster check" in caught.value.next_step
        with pytest.raises(StoreUnavailable, match="No node of the Cluster"):
            open_store(cluster.store(prefix))
    finally:
        owner.execute("CLUSTER", "ADDSLOTS", slot)
        cluster.until(lambda: all(cluster.up(node) for node in cluster.nodes))
    write(store, "n", {"a": b"1"})


def test_several_addresses_and_a_tag_on_a_server_without_cluster_mode(valkey_server):
    tagged = open_store(valkey_server.store("{tagged}"), create=True)
    tagged.create_namespace("n")
    write(tagged, "n", {"a": b"1"})
    assert keys_of(tagged, "n") == ["a"] and not tagged.place.nodes.clustered
    tagged.close()
    params = valkey_server.store("{tagged}")
    params["url"] = params["url"].replace("/0", ",127.0.0.1:1/0")
    with pytest.raises(InvalidInput, match="runs without cluster mode"):
        open_store(params)
    with valkey_server.client() as client:
        client.delete(*client.keys("{tagged}*"))
