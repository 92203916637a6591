# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Applications while a whole store fails over to a replica: those that know both servers, as libpq does, and those
whose commits wait for a synchronous standby."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_session import Session
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.unit.operations.pair_help import Pair, refused


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Every test leaves the roles as they were."""
    pair = Pair(tmp_path_factory.mktemp("clients"), "cluster_name = 'node'")
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


def knows_both(pair):
    """As an application of an inventory without a route: the first server that takes writes is the one."""
    hosts = ",".join(f"127.0.0.1:{pair.hosts[name].port}" for name in ("a", "b"))
    url = f"postgresql://{hosts}/memory?target_session_attrs=read-write"
    return {**pair.hosts["a"].application(busy_timeout=5), "url": url}


def home_again(pair):
    pair.rejoin("a", "b")
    pair.fail_over("b", "a", kind="failback")
    pair.rejoin("b", "a")


def test_an_application_that_knows_both_servers_goes_with_the_store(pair):
    with Memory(store=knows_both(pair), keyring=pair.keyring) as memory:
        memory.write("agent-1", "key", {"n": 0}, reason="test")
        steps = (
            lambda: pair.fail_over("a", "b"), lambda: pair.rejoin("a", "b"),
            lambda: pair.fail_over("b", "a", kind="failback"), lambda: pair.rejoin("b", "a"),
        )  # fmt: skip
        for n, step in enumerate(steps):
            assert step().get("clients", "") == ""
            assert memory.read("agent-1", "key") == {"n": n}  # not what the former one still has
            memory.write("agent-1", "key", {"n": n + 1}, reason="test")
    for server in pair.hosts.values():
        with server.connect() as con:
            assert con.execute("SELECT count(*) FROM pg_db_role_setting").fetchone() == (0,)


def test_a_promotion_goes_on_though_what_is_replayed_ends_the_statement_that_waits_for_it(pair, monkeypatch):
    row, left = Session.row, [True]

    def ended(self, text, *values):
        if "pg_promote(" in text and left:
            left.pop()
            row(self, text.replace("true", "false"), *values)
            self.say("DO $$BEGIN RAISE EXCEPTION 'conflict with recovery' USING ERRCODE = '40001'; END$$")
        return row(self, text, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "row", ended)
        assert pair.fail_over("a", "b")["changed"] and not left
    home_again(pair)


def test_one_that_goes_on_at_the_former_primary_is_told_why_it_may_not_write(pair):
    pair.fail_over("a", "b")
    with pair.memory("a") as memory:
        assert memory.read("agent-1", "key-1") == {"n": 1}
        with pytest.raises(StoreUnavailable, match="takes no writes") as caught:
            memory.write("agent-1", "key-1", {"n": 2}, reason="test")
    assert "another server is the primary" in caught.value.next_step
    home_again(pair)


def test_where_only_the_owner_of_the_database_could_lead_them_away_he_is_named(pair):
    with pair.hosts["a"].connect() as con:
        con.execute("ALTER DATABASE memory OWNER TO postgres")
    told = pair.fail_over("a", "b")["clients"]
    assert told.endswith('(on the primary: ALTER DATABASE "memory" OWNER TO "memops")')
    with pair.hosts["b"].connect() as con:
        con.execute(told.partition("on the primary: ")[2].rstrip(")"))
    home_again(pair)


@contextlib.contextmanager
def synchronous(pair, names):
    """Both servers wait for these standbys whenever they are the primary."""

    def say(text):
        for server in pair.hosts.values():
            with server.connect() as con:
                con.execute(text)
                con.execute("SELECT pg_reload_conf()")

    say(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    try:
        yield
    finally:
        say("ALTER SYSTEM RESET synchronous_standby_names")


@pytest.mark.parametrize("names", ["node", "ANY 1 (node, other)", "*"])
def test_a_replica_that_would_acknowledge_no_write_does_not_take_over(pair, names):
    with synchronous(pair, names):
        exc = refused("no write there is acknowledged", lambda: pair.fail_over("a", "b"))
        assert pair.serving("a") and not any(state.state == "open" for state in pair.incidents("a"))
    with pair.hosts["b"].connect() as con:  # what the sentence says to do
        for text in exc.next_step.partition(": ")[2].split("; ")[:2]:
            con.execute(text)


def test_forced_it_does_and_a_rejoin_comes_by_the_name_that_is_waited_for(pair):
    with synchronous(pair, "node"):
        warned = pair.fail_over("a", "b", force=True, outside_fence="none is needed")["warnings"]
        assert "No write on b is acknowledged: its synchronous_standby_names (node)" in warned[0]
        with pair.memory("b") as memory:
            waits = threading.Thread(target=memory.write, args=("agent-2", "key", {"n": 1}), kwargs={"reason": "test"})
            waits.start()
            pair.rejoin("a", "b")
            with pair.hosts["b"].connect() as con:
                assert con.execute("SELECT application_name FROM pg_stat_replication").fetchall() == [("node",)]
            waits.join()
    pair.fail_over("b", "a", kind="failback")
    pair.rejoin("b", "a")


def test_a_replica_keeps_the_name_that_it_was_given_for_that(pair):
    with pair.hosts["b"].connect() as con:
        (before,) = con.execute("SELECT current_setting('primary_conninfo')").fetchone()
        named = psycopg.conninfo.make_conninfo(before, application_name="second").replace("'", "''")
        con.execute(f"ALTER SYSTEM SET primary_conninfo = '{named}'")
    pair.fail_over("a", "b")
    home_again(pair)
    with pair.hosts["a"].connect() as con:
        assert con.execute("SELECT application_name FROM pg_stat_replication").fetchall() == [("second",)]
