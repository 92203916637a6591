# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on another application's keys in all slots of a real Valkey Cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal

import pytest
from redis.crc import key_slot
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import (
    keyspace_cluster_generations,
    keyspace_slot_map,
    keyspace_slots,
    valkey_cluster,
    valkey_transactions,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_cluster import KeyspaceClusterStore
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_dump import canonical
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_slots import Slots
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    StaleAttempt,
    StoreMoved,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from tests.support.valkey_cluster import APPLICATION, ValkeyCluster
from tests.unit.operations.keyspace_cluster_help import ODD, ClusterSite
from tests.unit.operations.keyspace_help import Agent, rebuild
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt
from tests.unit.operations.unlogged_model import after, in_child

FEW = 40  # keys that are moved in one transaction


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


def damage(site):
    """Values are garbage, some are gone, one is of another type, and one came that nobody knows."""
    site.app.set(site.key("s00001"), "garbage")
    site.app.delete(site.key("s00002"), site.key("a{b}c"), site.key(ODD[-2]))
    site.app.set(site.key("list"), "no list")
    site.app.set(site.key("{{x}}"), b"")
    site.app.set(site.key("{made}"), "by the damage")


def repairable(site):
    """(what was there, when the damage began, an attempt that has diagnosed it)."""
    before = site.values()
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


def test_what_was_damaged_is_as_before_and_the_rest_is_not_touched(site):
    site.fill(OTHER)
    before, sibling = site.dumps(), site.dumps(OTHER)
    site.backup()
    assert site.dumps() == before
    started = now_us()
    damage(site)
    done = rebuild(site, Window(onset=started), "hard")
    assert site.dumps() == before
    assert site.dumps(OTHER) == sibling
    assert done["plan"]["suspect_keys"] == ["{made}"]
    assert done["plan"]["records"]["repair"] == 6 and done["validate"]["verdict"] == "pass"
    assert site.app.get(site.key("s00003")).startswith(b"value 3")  # the application reads again
    site.close_incident()
    site.forget_incidents(0)
    assert site.dumps() == before and site.dumps(OTHER) == sibling


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


@pytest.mark.parametrize(("strategy", "step"), [("soft", 1), ("hard", 4)])
def test_whenever_it_is_killed_the_same_command_finishes_it(site, strategy, step):
    """*hard*: first when the repairs are staged and not named yet, then again and again in the switch."""
    before, _started, run = repairable(site)
    site.step("plan", run, strategy=strategy)
    kills = middle = 0
    while os.WIFSIGNALED(status := killed_at(step, lambda: site.step("apply", after(site)))):
        kills += 1
        step += 1
        site.let_go()
        with site.open() as store:
            if store._space(NS).get("moving"):
                middle += 1
                step = 2 + middle % 2  # it goes on in the switch: once more before something is noted, once after
                if middle == 1:
                    with pytest.raises(CannotProceed, match="in the middle"):
                        site.step("release", after(site), force=True)
    assert os.WEXITSTATUS(status) == 0
    assert (kills, middle) >= ((3, 2) if strategy == "hard" else (2, 0)), (kills, middle)
    finish(site)
    assert site.values() == before
    if strategy == "soft":  # once each, however often it was begun
        assert sorted((key, len(rows)) for key, rows in site.aside().items()) == [
            ("list", 1), ("s00001", 1), ("{made}", 1), ("{{x}}", 1),
        ]  # fmt: skip
        site.forget_incidents(4)
        assert site.values() == before


# --- nodes that change ----------------------------------------------------------------------------------------------
@pytest.fixture
def at_turn(monkeypatch):
    """Do something before (or after) the n-th turn to the nodes with the keys."""

    def arrange(number, act, afterwards=False):
        turn, real = itertools.count(1), Slots.write

        def write(self, tx, writes):
            now = next(turn) == number
            if now and not afterwards:
                act()
            said = real(self, tx, writes)
            if now and afterwards:
                act()
            return said

        monkeypatch.setattr(Slots, "write", write)

    return arrange


def shard(cluster):
    """(the primary, its replica) of the shard that has one."""
    owner, [replica] = cluster.shard(cluster.tag(0))
    return owner, replica


def test_what_was_late_on_its_way_changes_nothing_any_more(site, monkeypatch):
    """Between a step's look at the store and its commands at the nodes another attempt takes over, ends, and the
    application goes on."""
    monkeypatch.setattr(valkey_transactions, "HOLD_SECONDS", 0.6)
    monkeypatch.setattr(keyspace_slots, "MARGIN", 0.1)
    real, left = Slots._exchange, [True]

    def exchange(self, groups):
        if left and any(keyspace_slots.GUARD.encode() in command for some in groups.values() for command in some):
            left.clear()
            with site.open() as other:
                later = other.claim(NS, "attempt-2", "o", new_incident="i", takeover="attempt-1")
                other.unfence(later)
            site.app.set(site.key("s00003"), "value 3 of agent-7 " * 5)  # the very same as before
        return real(self, groups)

    with site.open() as store:
        claim = store.claim(NS, "attempt-1", "o", new_incident="i")
        store.fence(claim)
        with store.reader() as reader:
            row = reader.get_many(NS, ["s00003"])["s00003"]
        monkeypatch.setattr(Slots, "_exchange", exchange)
        with pytest.raises(StaleAttempt):
            store.change(claim, [Change("s00003", row[9], None, "gone")])
    assert not left and site.app.exists(site.key("s00003"))
    with site.open() as store:
        store.claim(NS, "attempt-2", "o", new_incident="i")
    assert not site.aside()


@pytest.mark.parametrize(("strategy", "turn"), [("soft", 1), ("hard", 4)])
def test_a_shard_that_fails_over_in_the_middle_is_followed(site, cluster, at_turn, strategy, turn):
    before, _started, run = repairable(site)
    site.step("plan", run, strategy=strategy)
    owner, replica = shard(cluster)

    def fail_over():
        cluster.fail_over(owner, replica)

    at_turn(turn, fail_over)
    site.step("apply", run)
    assert cluster.leads(replica)
    for name in ("validate", "release"):
        site.step(name, run)
    assert site.values() == before


def test_what_a_replica_never_got_is_done_again_when_it_takes_over(tmp_path, cluster, at_turn):
    """It dies before the keys move, and comes back as the primary when all of them are where they belong. It has the
    collection's own data, too: the control row says again that nothing has moved."""
    site = ClusterSite(tmp_path, cluster, third=0)
    site.fill()
    before, _started, run = repairable(site)
    site.step("plan", run, strategy="hard")
    owner, replica = shard(cluster)

    def lose():
        replica.execute("SAVE")
        replica.kill()

    at_turn(3, lose)
    real = KeyspaceClusterStore._again
    found = []

    def again(self, claim):
        if not found:
            owner.kill()
            replica.again()
            replica.execute("CLUSTER", "FAILOVER", "TAKEOVER")
            cluster.until(lambda: cluster.leads(replica))
            replica.execute("DEL", f"{site.own_prefix}:store:hold")  # as it was saved; nobody waits for its end
        found.append(real(self, claim))
        return found[-1]

    KeyspaceClusterStore._again = again
    try:
        with pytest.raises(CannotProceed, match="isolate it first"):  # it has no ACL file, and so no fence any more
            site.step("apply", run)
    finally:
        KeyspaceClusterStore._again = real
    site.step("isolate", run)
    site.step("apply", run)
    for name in ("validate", "release"):
        site.step(name, run)
    assert site.values() == before
    owner.again()
    cluster.until(lambda: cluster.follows(owner) and all(cluster.shown(node) for node in cluster.nodes))
    site.wipe()


def test_a_cluster_that_is_being_resharded_is_not_walked_through(site, cluster):
    site.store["busy_timeout"] = 0.2
    key = site.key("s00003")
    slot, source = key_slot(key), cluster.shard(key.decode())[0]
    target = next(node for node in cluster.nodes if cluster.leads(node) and node is not source)
    before = site.values()
    target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    for step in (site.backup, lambda: site.step("isolate", attempt())):  # the fence is up where it can be
        with pytest.raises(StoreMoved, match="on their way to other nodes") as caught:
            step()
        assert "resharding is done" in caught.value.next_step
    login = ("AUTH2", "memops", cluster.passwords["memops"])
    source.execute("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *login, "KEYS", key)
    for node in (target, source, *(one for one in cluster.nodes if one not in (source, target) and cluster.leads(one))):
        node.execute("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    assert site.state() == "quarantined"
    run = after(site)
    assert site.step("isolate", run)["proof"]["writes_refused"] and site.values() == before
    site.step("release", run, force=True)


def test_a_node_that_is_full_stops_it_and_the_same_command_goes_on(site, cluster):
    before, _started, run = repairable(site)
    site.step("plan", run, strategy="soft")
    full, _replica = shard(cluster)  # a key that is to come back lies there (a{b}c), nothing of the collection's own
    full.execute("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match=f":{full.port} is full.*Not all was written") as caught:
        site.step("apply", run)
    full.execute("CONFIG", "SET", "maxmemory", "0")
    assert "same command" in caught.value.next_step and site.state() == "quarantined"
    for name in ("apply", "validate", "release"):
        site.step(name, run)
    assert site.values() == before


def test_a_primary_that_is_gone_is_waited_for_and_the_quarantine_stands(site, cluster, monkeypatch):
    for module in (keyspace_slot_map, valkey_cluster, valkey_transactions):
        monkeypatch.setattr(module, "FAILOVER_SECONDS", 0.3)
    site.store["busy_timeout"] = 0.3
    before, lost = site.values(), next(node for node in cluster.primaries[1:] if cluster.leads(node))
    lost.execute("SAVE")
    lost.kill()
    run = attempt()
    with pytest.raises((StoreMoved, StoreUnavailable)) as caught:
        site.step("isolate", run)
    assert "same command" in caught.value.next_step
    lost.again()
    cluster.until(lambda: all(cluster.up(node) for node in cluster.nodes))
    assert site.step("isolate", run)["proof"]["reads_refused"] and site.values() == before
    site.step("release", run, force=True)


# --- the fence, and what others notice --------------------------------------------------------------------------------
def test_the_fence_stands_at_every_node_and_neighbours_never_notice(site, cluster):
    site.fill(OTHER)
    users = [node.execute("ACL", "GETUSER", APPLICATION) for node in cluster.nodes]
    sibling, run = site.dumps(OTHER), attempt()
    with Agent(site, "agent-9") as neighbour, contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(node.client(APPLICATION)) for node in cluster.nodes]
        for node in open_ones:
            node.ping()
        proof = site.step("isolate", run)["proof"]
        assert proof["writes_refused"] and proof["reads_refused"]
        assert len([line for line in proof["detail"] if "raw ZRANGE" in line and "refused" in line]) == 4
        for node in open_ones:
            for command in (("GET", site.key("s00003")), ("SET", site.key("new"), 1)):
                with pytest.raises(NoPermissionError):
                    node.execute_command(*command)
        with site.open() as store:
            with store.reader() as reader:
                reader.namespace(NS)
                assert not reader.moved(NS) and not reader.structure()
                cluster.nodes[2].execute("ACL", "SETUSER", APPLICATION, "~*")
                assert reader.moved(NS) and "is down" in reader.structure()[0]
            assert not site.step("isolate", run)["proof"].get("open") and store.prove(NS)["reads_refused"]
        site.step("release", run, force=True)
    assert [node.execute("ACL", "GETUSER", APPLICATION) for node in cluster.nodes] == users
    assert neighbour.written and not (neighbour.refused or neighbour.wrong or neighbour.other)
    assert site.dumps(OTHER) == sibling


def test_a_right_that_is_missing_is_named(site, cluster):
    try:
        for command in ("cluster|nodes", "cluster|slots", "time"):
            for node in cluster.nodes:
                node.execute("ACL", "SETUSER", "other", "on", ">other", "~*", "&*", "+@all", f"-{command}")
            site.store.update(user="other", password="other")
            with pytest.raises(StoreUnavailable, match=re.escape(f"{command}")) as caught, site.open() as store:
                claim = store.claim(NS, "a", "o", new_incident="i")
                store.fence(claim)
                store.load(claim, store.begin_generation(claim), [])
                with store.reader() as reader:
                    rows = next(reader.scan(NS))
                store.change(claim, [Change("new", None, ("new", *rows[0][1:]))])
            assert f"+{command}" in caught.value.next_step
    finally:
        for node in cluster.nodes:
            node.execute("ACL", "DELUSER", "other")


# --- single records, and all of them ----------------------------------------------------------------------------------
def test_isolated_records_come_back_as_they_were(site):
    before, more = site.dumps(), {"store_params": site.store, "namespace": NS}
    chosen = choose(pattern="*[{}]*")
    held = [key for key in before if b"{" in key or b"}" in key]

    def isolate():
        with site.open() as store:
            isolate_records(store=store, choice=chosen, open_keyring=site.ring, run=after(site), **more)

    def release():
        with site.open() as store:
            release_records(store=store, choice=None, run=after(site), **more)

    for step in (1, 2):
        assert os.WIFSIGNALED(killed_at(step, isolate))
        site.let_go()
    isolate()
    assert site.dumps() == {key: value for key, value in before.items() if key not in held}
    for step in (1, 2):
        assert os.WIFSIGNALED(killed_at(step, release))
        site.let_go()
    release()
    assert site.dumps() == before and not site.aside()


def test_a_whole_restore_and_single_keys(tmp_path, cluster):
    """The application has its namespaces in braces, as one does whose commands take several keys."""
    site = ClusterSite(tmp_path, cluster, pattern="{{namespace}}:TOKEN:*")
    site.key = lambda name, namespace=NS: f"{{{namespace}}}:{site.token}:".encode() + (
        name.encode() if isinstance(name, str) else name
    )
    site.fill(count=3)
    before = site.dumps()
    site.backup()
    site.app.delete(site.key("set"))
    site.app.set(site.key("new"), "not in the snapshot")
    options = {"repository": site.repository, "keyring": site.ring(), "name": NAME, "namespace": NS}
    assert restore.restore(store_params=site.store, keys=["set"], **options)["restored"] == 1
    run = attempt()
    site.step("isolate", run, check=True)
    assert not list(site.root.scan_iter(f"{site.own_prefix}:store:fences"))
    site.step("isolate", run)
    with site.open() as store:
        done = restore.restore(store_params=site.store, claim=incident.claim(store, NS, run), **options)
        assert done["restored"] == len(before) and site.values() == {
            key: (canonical(dump), end) for key, (dump, end) in before.items()
        }
    site.step("release", run, force=True)
    site.wipe()
