# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole store fails over to a real streaming replica and comes home; what stands in the way, and what is killed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    LeaseHeld,
    MemoryOpsError,
    NamespaceQuarantined,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    failover_checks,
    failover_store,
    rotate,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.failover_checks import Wish
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.replicas import describe
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer
from tests.unit.operations.pair_help import (
    NAMESPACES,
    Killed,
    Pair,
    Writers,
    caught_up,
    killed_after,
    killed_then_finished,
    refused,
    spoil,
    stuck,
)
from tests.unit.operations.runbook import chained


@pytest.fixture(scope="module")
def _servers(tmp_path_factory):
    pair = Pair(tmp_path_factory.mktemp("pair"))
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def pair(_servers, tmp_path):
    """Every test may leave the roles swapped; none leaves the pair broken."""
    _servers.folder = tmp_path
    yield _servers
    primary, replica = _servers.roles()
    assert set(_servers.serving(primary)) == set(NAMESPACES)
    caught_up(_servers, primary, replica)


def test_nothing_acknowledged_is_lost_across_failover_and_failback(pair):
    there_and_back(pair, "pg_rewind took back its own later writes")


def test_the_proof_of_a_fence_names_a_standby_on_which_it_has_not_arrived(pair):
    primary, replica = pair.roles()
    store = open_store(pair.params(primary))
    with contextlib.closing(store), pair.hosts[replica].connect() as con:
        claim = store.claim("agent-1", "attempt-1", "operator", new_incident="inc-1")
        con.execute("SELECT pg_wal_replay_pause()")
        try:
            store.fence(claim)
            assert any("the fence has not arrived there" in line for line in store.prove("agent-1")["not_fenced"])
        finally:
            con.execute("SELECT pg_wal_replay_resume()")
        assert not any("standby" in line for line in store.prove("agent-1")["not_fenced"])
        store.unfence(claim)
        store.close_incident(claim)


@pytest.mark.parametrize(
    ("version", "more", "note"),
    [
        ("15", ["wal_log_hints = off"], "pg_rewind was not possible .*wal_log_hints.*, so everything was copied anew"),
        ("17", [], "pg_rewind took back its own later writes"),
    ],
    ids=["15", "17"],
)
def test_nothing_acknowledged_is_lost_on_older_servers(tmp_path, version, more, note):
    """As their initdb makes them: without data checksums. Then pg_rewind asks for that setting."""
    pair = Pair(tmp_path, *more, version=version)
    try:
        pair.start()
        there_and_back(pair, note)
    finally:
        pair.stop()


def there_and_back(pair, note):
    """``note``: what the rejoin says of its way."""
    home, away = pair.roles()
    with Writers(pair) as writers:
        writers.wait()
        rehearsed = pair.fail_over(home, away, check=True)
        assert rehearsed["changed"] and not pair.incidents(home) and not list(pair.folder.rglob("*.jsonl"))
        first = pair.fail_over(home, away)
        assert first["changed"] and first["epoch"] == 2 and first["position_before"] <= first["position_after"]
        assert first["proof"]["old_refuses_writes"] and first["proof"]["new_accepts_writes"]
        writers.wait()
        again = pair.fail_over(home, away)
        assert not again["changed"] and again["epoch"] == 2 and again["incident"] == first["incident"]
        for told in ("fenced_at", "promoted_at", "verified_at", "lag_seconds"):  # the replicated incident has them
            assert again[told] is not None and again[told] == first[told], told
        assert again["proof"].items() <= first["proof"].items()
        assert again["proof"]["writes_refused"] and again["proof"]["new_accepts_writes"]
        assert pair.serving(home) == [] and pair.serving(away) == list(NAMESPACES)

        assert pair.rejoin(home, away, check=True)["changed"]
        back = pair.rejoin(home, away)
        assert back["changed"] and back["lost"] == 0
        (said,) = back["notes"]
        assert re.match(note, said), said
        assert not pair.rejoin(home, away)["changed"]
        writers.wait()
        home_again = pair.fail_over(away, home, kind="failback")
        assert home_again["epoch"] == 3
        writers.wait()
        pair.rejoin(away, home)
        writers.wait()
    assert pair.roles() == (home, away)
    assert {host for _name, _key, host in writers.acknowledged} == {home, away}
    for name in NAMESPACES:
        found = pair.values(home, name)
        assert {key for space, key, _host in writers.acknowledged if space == name} <= set(found)
    journal = pair.folder / "work" / first["incident"] / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    assert chained(lines)
    told = {(line["step"], line["phase"]) for line in map(json.loads, lines)}
    assert {("fence-store", "result"), ("catch-up", "result"), ("promote-replica", "result")} <= told
    assert describe(pair.params(home))["last_switch"]["kind"] == "failback"


@pytest.mark.parametrize("step", ["replicates", "fence-store", "catch-up", "promote-replica", "serve-store"])
def test_the_same_command_finishes_what_was_killed(pair, monkeypatch, step):
    home, away = killed_then_finished(pair, monkeypatch, step)
    assert pair.serving(home) == []
    pair.rejoin(home, away)


def test_the_way_back_waits_for_the_end_of_the_way_there(pair, monkeypatch):
    home, away = pair.roles()
    run = pair.run()
    with killed_after("serve-store", monkeypatch), pytest.raises(Killed):
        pair.fail_over(home, away, run=run)
    pair.rejoin(home, away)
    refused("failover .* began and did not end", lambda: pair.fail_over(away, home, kind="failback"))
    done = pair.fail_over(home, away, run=pair.run(takeover=run.attempt))
    assert pair.fail_over(away, home, kind="failback")["epoch"] == done["epoch"] + 1
    pair.rejoin(away, home)


def test_a_rejoin_that_was_killed_goes_on(pair, monkeypatch):
    home, away = pair.roles()
    pair.fail_over(home, away)
    run = pair.run()
    with killed_after("rejoin", monkeypatch), pytest.raises(Killed):
        pair.rejoin(home, away, run=run)
    pair.hosts[home].kill()  # and its server with it
    time.sleep(1.5)
    assert pair.rejoin(home, away, run=pair.run(takeover=run.attempt))["changed"]


def test_a_copy_anew_is_started_by_the_programs_that_the_former_server_ran_with(pair, monkeypatch):
    home, away = pair.roles()
    server = pair.hosts[home]
    pair.fail_over(home, away)
    server.kill()
    os.unlink(os.path.join(server.data, "global", "pg_control"))
    known = {name: value for name, value in server.on_host().items() if name != "binaries"}
    monkeypatch.setattr(server, "on_host", lambda: known)
    assert pair.rejoin(home, away)["changed"]
    assert pair.roles() == (away, home)


def test_a_configuration_apart_from_the_data_is_found(pair):
    """As on Debian, where the server's command line names it. Its server was killed."""
    home, away = pair.roles()
    server = pair.hosts[home]
    pair.fail_over(home, away)
    server.kill()
    usual, apart = os.path.join(server.data, "postgresql.conf"), os.path.join(server.directory, "apart.conf")
    os.rename(usual, apart)
    with open(os.path.join(server.data, "postmaster.opts"), "r+", encoding="ascii") as file:
        line = file.read().rstrip()
        file.seek(0)
        file.write(f'{line} "-c" "config_file={apart}"\n')
    assert pair.rejoin(home, away)["notes"] == ["pg_rewind took back its own later writes"]
    assert pair.roles() == (away, home)
    server.kill()
    os.rename(apart, usual)
    server.again()


def test_a_forced_failover_tells_what_was_lost_to_the_record(pair):
    home, away = pair.roles()
    refused("cannot be asked|what keeps", lambda: pair.fail_over(home, away, force=True), MemoryOpsError)
    store = open_store(pair.params(home))
    store.claim("agent-1", "other:5:1", "somebody", new_incident="inc-with-a-lease")
    store.close()
    caught_up(pair, home, away)
    pair.hosts[away].cut()
    with pair.memory(home) as memory:
        memory.write_many("agent-2", {f"lost-{n}": {"n": n} for n in range(5)})
        memory.delete("agent-2", "key-3")
    pair.hosts[home].kill()
    refused("nobody can fence it", lambda: pair.fail_over(home, away))
    forced = {"force": True, "outside_fence": "its power is off"}
    error = refused("somebody works on agent-1", lambda: pair.fail_over(home, away, **forced), LeaseHeld)
    done = pair.fail_over(home, away, run=pair.run(takeover=error.holder["attempt"]), **forced)
    assert done["forced"] and done["outside_fence"] == "its power is off" and done["position_before"]
    with pair.memory(away) as memory:
        memory.write("agent-2", "after", {"n": 1}, reason="test")
    refused("cannot be told", lambda: pair.rejoin(home, away))
    pair.hosts[home].again()
    zombie = pair.run(takeover=error.holder["attempt"])
    refused("cannot be kept as a snapshot", lambda: pair.rejoin(home, away, run=zombie))
    assert pair.serving(home) == []  # it came back serving and was fenced before it was compared
    refused("took over from", lambda: pair.fail_over(away, home))
    back = pair.rejoin(home, away, forensic=lambda incident: f"snapshot of {incident}")
    assert back["lost"] == 6 and back["forensic"].startswith("snapshot of inc-")
    assert sorted(back["lost_keys"]) == ["agent-2: key-3", *(f"agent-2: lost-{n}" for n in range(5))]
    assert len(pathlib.Path(back["lost_file"]).read_text().splitlines()) == 6
    again = pair.rejoin(home, away)
    assert not again["changed"] and again["lost"] == 6
    assert "after" in pair.values(away, "agent-2")
    store = open_store(pair.params(away))
    store.close_incident(store.claim("agent-1", "other:5:1", "somebody", new_incident="none"))
    store.close()


def test_a_replica_whose_host_lacks_the_rotated_key_does_not_take_over(pair, tmp_path):
    home, away = pair.roles()
    other = {**pair.keyring, "path": str(tmp_path / "other.json")}
    shutil.copy(pair.keyring["path"], other["path"])  # from before the rotation, as a copy that was verified
    ring = Keyring.open(pair.keyring)
    done = rotate.rotate(store_params=pair.params(home), keyring=ring, namespace="agent-1", force=True)
    caught_up(pair, home, away)

    def fail_over():
        with pair.side(home) as one, pair.side(away) as two:
            return failover_store.fail_over(
                old=one, new=two, wish=Wish(min_interval=0.0), open_keyring=lambda: Keyring.open(other), run=pair.run()
            )

    said = refused(f"lacks the record key {done['key']}, with which agent-1 was encrypted anew", fail_over)
    assert "memops.agent_memory.backup" in said.next_step and pair.serving(home) == list(NAMESPACES)
    Keyring.open(other).adopt(ring.export_wrapped())
    assert fail_over()["performed"]
    pair.rejoin(home, away)


@pytest.fixture
def halted(pair):
    """(pair, primary, replica) whose replica receives, but applies nothing."""
    home, away = pair.roles()
    with pair.hosts[away].connect() as con:
        con.execute("SELECT pg_wal_replay_pause()")
        yield pair, home, away
        con.execute("SELECT pg_wal_replay_resume()")


def test_a_replica_that_is_behind_the_rpo_does_not_take_over(halted):
    pair, home, away = halted
    refused("behind, and the RPO is 0.5 s", lambda: pair.fail_over(home, away, rpo=0.5))
    assert pair.serving(home) == list(NAMESPACES)


def test_the_fence_is_lifted_when_the_replica_does_not_catch_up(halted, monkeypatch):
    monkeypatch.setattr(failover_checks, "PROBE_SECONDS", 0.2)
    pair, home, away = halted
    refused("lacks .* bytes .*fence was lifted again", lambda: pair.fail_over(home, away, catch_up=0.5))
    assert pair.serving(home) == list(NAMESPACES)
    with pair.memory(home) as memory:
        memory.write("agent-1", "goes-on", {"n": 1}, reason="test")


@pytest.mark.parametrize("lost", [False, True], ids=["late", "lost"])
def test_the_fence_stays_where_the_replica_was_told_to_take_over_and_may_yet_do_so(pair, monkeypatch, lost):
    home, away = pair.roles()
    with stuck(pair.hosts[away], monkeypatch, lost):
        for _turn in range(2):
            refused("may do so at any moment", lambda: pair.fail_over(home, away, catch_up=0.1), StoreUnavailable)
        assert pair.serving(home) == []
    with pair.side(away) as side:
        while side.standing().role != "primary":
            time.sleep(0.05)
    assert pair.serving(home) == pair.serving(away) == []
    with pair.memory(home) as memory, pytest.raises(NamespaceQuarantined):
        memory.write("agent-1", "nobody-has-it-later", 1)
    assert pair.fail_over(home, away)["performed"]
    assert pair.serving(home) == [] and pair.serving(away) == list(NAMESPACES)
    pair.rejoin(home, away)


def test_a_replica_that_refuses_the_promotion_leaves_the_primary_serving(pair):
    home, away = pair.roles()
    with pair.hosts[home].connect() as con:
        con.execute("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM memops")
        refused("may not promote .*fence was lifted again", lambda: pair.fail_over(home, away))
        assert pair.serving(home) == list(NAMESPACES)
        con.execute("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO memops")
    caught_up(pair, home, away)


def test_a_replication_that_is_silently_broken_is_seen(pair):
    home, away = pair.roles()
    pair.hosts[away].freeze()
    try:
        refused("is broken although it says", lambda: pair.fail_over(home, away))
    finally:
        pair.hosts[away].thaw()
    assert pair.serving(home) == list(NAMESPACES)


def test_who_is_no_replica_of_this_primary_is_refused(pair, tmp_path):
    home, away = pair.roles()
    refused("is a primary and no replica of", lambda: pair.fail_over(away, home))
    refused("does not run|did not take over", lambda: pair.rejoin(home, home))
    with PostgresqlServer() as other:
        open_store(other.store(), create=True).close()
        pair.hosts["c"] = other
        try:
            refused("no replica of c now: it follows .* with another history", lambda: pair.fail_over("c", away))
            refused("another store", lambda: pair.rejoin("c", home))
        finally:
            del pair.hosts["c"]
    assert pair.serving(home) == list(NAMESPACES)


def test_who_works_on_a_namespace_is_waited_for(pair):
    home, away = pair.roles()
    store = open_store(pair.params(home))
    claim = store.claim("agent-2", "other:1:1", "somebody", new_incident="inc-of-somebody")
    error = refused("namespace 'agent-2' is being worked on by somebody", lambda: pair.fail_over(home, away), LeaseHeld)
    assert error.holder["attempt"] == "other:1:1"
    store.end_lease(claim)
    store.close_incident(store.claim("agent-2", "other:1:1", "somebody", new_incident="none"))
    store.close()


def test_what_is_quarantined_stays_so_and_nobody_opens_the_store_meanwhile(pair, monkeypatch):
    home, away = pair.roles()
    store = open_store(pair.params(home))
    claim = store.claim("agent-3", "other:2:1", "somebody", new_incident="inc-quarantine")
    store.fence(claim)
    store.end_lease(claim)
    run = pair.run()
    with killed_after("fence-store", monkeypatch), pytest.raises(Killed):
        pair.fail_over(home, away, run=run)
    assert pair.states(home) == {"agent-1": "standby", "agent-2": "standby", "agent-3": "quarantined"}
    refused("whole store", lambda: store.claim("agent-3", "o:3:1", "other", new_incident="x"), LeaseHeld)
    with pytest.raises(NamespaceQuarantined):
        store.create_namespace("agent-new")
    store.close()
    pair.fail_over(home, away, run=pair.run(takeover=run.attempt))
    assert pair.states(away) == {"agent-1": "serving", "agent-2": "serving", "agent-3": "quarantined"}
    pair.rejoin(home, away)
    store = open_store(pair.params(away))
    claim = store.claim("agent-3", "other:4:1", "somebody", new_incident="none")
    store.unfence(claim)
    store.close_incident(claim)
    store.close()


def test_replicated_damage_is_no_rescue_and_a_fresh_look_counts(pair):
    home, away = pair.roles()
    assert pair.fail_over(home, away, check=True)["scanned"] == list(NAMESPACES)
    with pair.hosts[home].connect() as con:
        payload = spoil(con, "agent-2", "key-7", lambda payload: bytes([payload[0] ^ 1]) + payload[1:])
        try:
            caught_up(pair, home, away)
            refused("copy of agent-2 .* does not verify", lambda: pair.fail_over(home, away))
        finally:
            spoil(con, "agent-2", "key-7", lambda _damaged: payload)
    caught_up(pair, home, away)
    refused("is no rescue|has no namespace", lambda: pair.fail_over(home, away, namespaces=["agent-9"]))
    assert pair.fail_over(home, away)["scanned"] == ["agent-2", "agent-3"]
    pair.rejoin(home, away)
    refused("least time between is 600 s", lambda: pair.fail_over(away, home, min_interval=600))
    assert pair.fail_over(away, home, min_interval=600, kind="failback")["scanned"] == []
    pair.rejoin(away, home)
