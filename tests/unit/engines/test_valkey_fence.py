# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence on a real server: what the applications' user loses on an open connection, and gets back."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_errors import (
    OPERATORS_RIGHTS,
    RIGHTS,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_rules import readable, without
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import Names
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    NamespaceQuarantined,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import failover
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_server import APPLICATION, APPLICATION_RULES, ValkeyServer
from tests.unit.engines.sqlite_help import all_rows, keys_of, structure, write
from tests.unit.engines.valkey_help import application_keys, new_valkey, same

AWKWARD = "a\0{b}*[^x]? -ü"


@pytest.fixture(scope="module")
def server():
    with ValkeyServer() as own:  # this one's users are changed
        yield own


@pytest.fixture
def store(server):
    opened = new_valkey(server)
    yield opened
    opened.close()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "clearselectors", "nocommands",
                               *APPLICATION_RULES)  # fmt: skip


@pytest.fixture
def claim(store):
    store.create_namespace("n")
    return store.claim("n", "attempt-1", "operator", new_incident="inc-1")


def users(server):
    with server.client() as client:
        return client.acl_list()


def attempts(client, key):
    return [
        lambda: client.zadd(key, {"x": 0}),
        lambda: client.zrem(key, "x"),
        lambda: client.delete(key),
        lambda: client.rename(key, "elsewhere"),
        lambda: client.copy(key, "elsewhere"),
        lambda: client.zrange(key, 0, -1),
        lambda: client.eval("return redis.call('ZCARD', KEYS[1])", 1, key),
        lambda: client.eval(f"return redis.call('DEL', '{key}')", 0),
        lambda: client.sort(key),
    ]


@pytest.mark.parametrize(
    "rules",
    [
        ("~*",),
        ("allkeys",),
        ("~PREFIX:*", "~other:*"),
        ("~PREFIX:store*", "~PREFIX:{n}:*", "~PREFIX:{m}:*"),
        ("%R~*", "%W~PREFIX:*"),
        ("~PREFIX:store*", "~other:*", "(+@read ~PREFIX:*)", "(+@all %W~PREFIX:{n}:*)"),
    ],
)
def test_a_connection_that_was_open_loses_the_namespace_at_once_and_gets_it_back(store, claim, server, rules):
    write(store, "n", {"a": b"1"})
    write(store, "m", {"a": b"1"})
    rules = [rule.replace("PREFIX", store.place.prefix) for rule in rules]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", *rules)
    before, key = users(server), store.names.records("n", 1)
    with server.client(APPLICATION) as raw:
        assert raw.zrange(store.names.records("m", 2), 1, -1)
        assert raw.zcard(key) == 2
        raw.zadd(key, {"": 0})
        assert not store.prove("n")["writes_refused"]
        assert (store.fence(claim), store.fence(claim)) == (True, False)
        proof = store.prove("n")
        assert (proof["writes_refused"], proof["reads_refused"]) == (True, True), proof
        for attempt in attempts(raw, key):
            # in a script it is a plain error
            with pytest.raises(ResponseError, match=r"(?i)permission|NOPERM|can't access"):
                attempt()
        assert raw.zcard(store.names.records("m", 2)) == 2
        raw.hget(store.names.store, "epoch")
        assert store.unfence(claim)
        assert raw.zcard(key) == 2
    assert users(server) == before
    assert not store.unfence(claim)


@pytest.mark.parametrize(
    "rules", [("~*",), ("~PREFIX:*",), ("~PREFIX:store*", "~PREFIX:{n}:*"), ("~PREFIX:store*", "(+@all ~PREFIX:*)")]
)
def test_a_connection_that_was_open_may_only_read_what_is_served_read_only(store, claim, server, rules):
    write(store, "n", {"a": b"1"})
    write(store, "m", {"a": b"1"})
    rules = [rule.replace("PREFIX", store.place.prefix) for rule in rules]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "clearselectors", *rules)
    before, key = users(server), store.names.records("n", 1)
    with server.client(APPLICATION) as raw:
        raw.zadd(key, {"": 0})
        assert store.set_state(claim, "reading")
        for attempt in attempts(raw, key)[:4]:
            with pytest.raises(ResponseError, match=r"(?i)permission|NOPERM"):
                attempt()
        assert raw.zcard(key) == len(raw.zrange(key, 0, -1)) == 2
        if len(rules) == 1:
            raw.zadd(store.names.records("m", 2), {"": 0})
        raw.hget(store.names.store, "epoch")
        store.fence(claim)
        with pytest.raises(ResponseError, match=r"(?i)permission|NOPERM"):
            raw.zcard(key)
        store.unfence(claim)
        assert raw.zcard(key) == 2 and store.prove("n")["writes_refused"]
        assert store.set_state(claim, "serving")
        raw.zadd(key, {"": 0})
    assert users(server) == before


def test_a_copy_whose_user_cannot_be_kept_from_writing_does_not_serve_reads(store, claim, server):
    store.set_state(claim, "standby")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "~*:r:*", f"~{store.place.prefix}:store*")
    before = users(server)
    with pytest.raises(CannotProceed, match="cannot be served read-only here, the proof failed"):
        failover.serve_reads(store, claim)
    with store.reader() as reader:
        assert reader.namespace("n").state == "standby"
    assert users(server) == before


def test_a_server_that_was_killed_while_writing_came_back_gives_the_user_everything(tmp_path):
    with ValkeyServer(durable=True) as own:
        store = new_valkey(own)
        store.create_namespace("n")
        claim = store.claim("n", "attempt-1", "operator", new_incident="inc-1")
        before = users(own)
        store.set_state(claim, "reading")
        store._let_in_first(claim, reading=True)
        own.kill()
        own.again()
        assert store.set_state(claim, "serving")
        assert users(own) == before and not store.prove("n")["writes_refused"]
        store.close()


def test_big_records_that_are_served_read_only_are_listed_by_an_application(store, claim, server):
    write(store, "n", {f"k{n}": bytes(400_000) for n in range(3)})
    store.set_state(claim, "reading")
    application = open_store(server.application(store.place.prefix))
    assert keys_of(application, "n") == ["k0", "k1", "k2"]
    application.close()


def test_memory_as_the_applications_user_meets_the_fence_and_other_namespaces_do_not(store, claim, server):
    application = open_store(server.application(store.place.prefix))
    write(application, "n", {"a": b"1"})
    store.fence(claim)
    with pytest.raises(NamespaceQuarantined, match="incident inc-1"):
        write(application, "n", {"a": b"2"})
    with application.reader() as reader:
        assert reader.namespace("n").state == "quarantined"
        assert reader.get_many("n", ["a"]) == {}
    write(application, "m", {"a": b"1"})
    write(application, "made in the meantime", {"a": b"1"})
    application.append_log([(0, 5, "n", "refused", "a", None, None, None, None, "r", None, b"")])
    application.close()
    assert keys_of(store, "n") == ["a"]
    with store.reader() as reader:
        assert [e.operation for batch in reader.log("n") for e in batch] == ["write", "fence", "refused"]


def test_two_quarantines_of_one_user_end_in_any_order(store, claim, server):
    before = users(server)
    store.create_namespace(AWKWARD)
    other = store.claim(AWKWARD, "attempt-1", "op", new_incident="i")
    for first, last in ((claim, other), (other, claim)):
        store.fence(claim)
        store.fence(other)
        store.unfence(first)
        assert not store.prove(first.namespace)["writes_refused"]
        assert store.prove(last.namespace)["writes_refused"]
        store.unfence(last)
        assert users(server) == before


def test_two_stores_on_one_server_share_a_user(store, claim, server):
    before = users(server)
    second = new_valkey(server)
    second.create_namespace("n")
    other = second.claim("n", "attempt-1", "op", new_incident="i")
    for first, last in (((store, claim), (second, other)), ((second, other), (store, claim))):
        store.fence(claim)
        second.fence(other)
        assert (store.prove("n")["writes_refused"], second.prove("n")["writes_refused"]) == (True, True)
        assert structure(store) == structure(second) == []
        first[0].unfence(first[1])
        assert not first[0].prove("n")["writes_refused"]
        assert last[0].prove("n")["writes_refused"]
        assert structure(store) == structure(second) == []
        last[0].unfence(last[1])
        assert not last[0].prove("n")["reads_refused"]
        with server.client(APPLICATION) as client:
            for key in ("", "x", store.names.store, store.names.fenced("m"), second.names.fenced("m"), "zzz"):
                client.get(key + "elsewhere")
        if users(server) != before:  # it means the same; the patterns stay divided
            with server.client() as client:
                client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "~*")
    assert users(server) == before
    second.close()


def test_rights_that_were_given_during_the_quarantine_stay(store, claim, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", f"~{store.place.prefix}:*")
        store.fence(claim)
        client.execute_command("ACL", "SETUSER", APPLICATION, "~more:*", ">another password")
        store.unfence(claim)
        assert client.acl_getuser(APPLICATION)["keys"] == [f"~{store.place.prefix}:*", "~more:*"]
        client.execute_command("ACL", "SETUSER", APPLICATION, "<another password")


def test_a_fence_that_a_restart_of_the_server_took_away_is_raised_again(store, claim, server):
    store.fence(claim)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "~*")
    assert not store.prove("n")["writes_refused"]
    assert structure(store) == [
        f"the fence around 'n' is down: the server's user {APPLICATION} may use those keys again"
    ]
    assert (store.fence(claim), store.fence(claim)) == (True, False)
    assert store.prove("n")["writes_refused"]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, f"~{store.place.prefix}:*", "~more:*")
    assert store.repair_structure() == [f"took 'n' from the server's user {APPLICATION} again"]
    assert store.repair_structure() == structure(store) == []
    with server.client(APPLICATION) as client:
        client.get("more:x")
    store.unfence(claim)


def test_a_release_that_ended_when_it_had_let_the_users_in_is_finished_or_taken_back(store, claim, server):
    write(store, "n", {"a": b"1"})
    store.fence(claim)
    store._let_in_first(claim)  # here the operator was killed
    with store.reader() as reader:
        assert reader.namespace("n").state == "quarantined"
    assert [line for line in structure(store) if "is down" in line]
    assert store.repair_structure() and structure(store) == []
    assert store.prove("n")["writes_refused"]
    store._let_in_first(claim)
    before = users(server)
    assert store.unfence(claim)
    assert users(server) == before and structure(store) == []
    write(store, "n", {"a": b"2"})


def test_an_operator_without_rights_to_users_fences_memory_and_says_what_is_open(store, claim, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">limited", "~*", "+@all", "-acl")
    limited = same(store, server, user="limited", password="limited")
    assert limited.fence(claim)
    proof = limited.prove("n")
    assert not proof["writes_refused"]
    assert "raw commands: not tried" in "".join(proof["detail"])
    assert "raw clients of any user of the server" in proof["not_fenced"]
    assert limited.unfence(claim)
    limited.close()
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", "limited")


def test_what_is_not_fenced_is_named(store, claim, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "reporting", "on", "nopass", f"%R~{store.place.prefix}:*", "+@read")
        client.execute_command("ACL", "SETUSER", "away", "off", "nopass", "~*", "+@all")
        try:
            store.fence(claim)
            text = "\n".join(store.prove("n")["not_fenced"])
        finally:
            client.execute_command("ACL", "DELUSER", "reporting", "away")
    assert "user reporting: it may read\n" in text
    assert "away" not in text
    assert "user memops, the operator's own" in text
    assert "no ACL file" in text
    store.unfence(claim)


def test_a_pattern_that_cannot_be_divided_fails_the_proof(store, claim, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", f"~{store.place.prefix}:*:r:*")
    store.fence(claim)
    proof = store.prove("n")
    assert not proof["writes_refused"]
    assert f"raw ZADD as user {APPLICATION}: accepted" in proof["detail"]
    store.unfence(claim)


def test_without_an_applications_user_memory_alone_is_proven(store, claim, server):
    operator = same(store, server, application_user=None)
    assert "fence-writes" in store.capabilities()
    assert not {"fence-writes", "fence-raw-reads"} & operator.capabilities()
    operator.fence(claim)
    proof = operator.prove("n")
    assert proof["writes_refused"]
    assert proof["reads_refused"]
    assert any(f"user {APPLICATION}: it may write, delete, read" in line for line in proof["not_fenced"])
    operator.unfence(claim)
    operator.close()


def test_an_operator_who_is_the_applications_user_or_may_not_change_users_proves_nothing(store, claim, server):
    own = same(store, server, application_user=store.place.user)
    own.fence(claim)
    assert "it is the operator's own user" in "".join(own.prove("n")["detail"])
    assert not own.prove("n")["writes_refused"]
    own.unfence(claim)
    own.close()
    missing = same(store, server, application_user="nobody")
    missing.fence(claim)
    assert not missing.prove("n")["writes_refused"]
    missing.unfence(claim)
    missing.close()


def test_the_real_login_is_tried_where_it_is_known(store, claim, server, tmp_path):
    secret = tmp_path / "password"
    secret.write_text(server.passwords[APPLICATION] + "\n")
    known = same(store, server, application_password_file=str(secret))
    lines = [f"{verb} on a connection of user {APPLICATION}: " for verb in ("ZADD", "ZCARD")]
    assert {line + "accepted" for line in lines} <= set(known.prove("n")["detail"])
    known.fence(claim)
    assert {line + "refused" for line in lines} <= set(known.prove("n")["detail"])
    known.unfence(claim)
    known.set_state(claim, "reading")
    proof = known.prove("n")
    assert {lines[0] + "refused", lines[1] + "accepted"} <= set(proof["detail"])
    assert proof["writes_refused"] and proof["reads_accepted"]
    known.set_state(claim, "serving")
    known.close()


def test_a_user_with_one_namespace_alone_can_work(store, claim, server):
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", APPLICATION, "resetkeys", "resetchannels", "nocommands", *RIGHTS.split(),
            *application_keys(store.place.prefix, AWKWARD),
        )  # fmt: skip
    application = open_store(server.application(store.place.prefix))
    rows = write(application, AWKWARD, {"a": b"1"})
    assert all_rows(application, AWKWARD) == rows
    write(application, AWKWARD, {"big": bytes(40 << 20)})
    write(application, AWKWARD, {"a": None}, aside="deleted")
    assert keys_of(application, AWKWARD) == ["a", "big"]
    with pytest.raises(StoreUnavailable, match="does not allow user agent to use a key of the store") as caught:
        write(application, "n", {"a": b"1"})
    assert RIGHTS in caught.value.next_step
    application.close()


def test_the_rights_that_messages_name_are_enough_for_an_operator(store, server):
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "operator", "on", ">operator", f"~{store.place.prefix}:*", *RIGHTS.split(),
            *OPERATORS_RIGHTS.split(),
        )  # fmt: skip
    operator = same(store, server, user="operator", password="operator")
    operator.create_namespace("n")
    claim = operator.claim("n", "a", "op", new_incident="i")
    write(operator, "n", {"a": b"1"})
    operator.fence(claim)
    assert operator.prove("n")["writes_refused"]
    assert structure(operator) == operator.repair_structure() == []
    operator.settle()
    operator.unfence(claim)
    assert operator.warnings() == ["the server saves nothing to its disk: a crash or a restart loses the whole store"]
    operator.close()
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", "operator")


@settings(max_examples=60)
@given(
    fenced=st.lists(st.sampled_from(["a", "ab", "b", AWKWARD, "a-b", "%", "ü"]), unique=True, max_size=3),
    others=st.lists(st.sampled_from(["a", "ab", "abc", "b", AWKWARD, "a-b", "a_b", "", "ü", "{"]), unique=True),
    base=st.sampled_from(["~*", "~t:*", "~t:{*", "%R~t:{a*", "~t:{[^b]*", r"~t[^\-x]*", "~[^u]*"]),
    tails=st.lists(st.text("t:{}ab-r1", max_size=4)),
)
def test_all_other_keys_stay(server, fenced, others, base, tails):
    """The server itself says, before and after, which keys the user may read."""
    names = Names("t")
    beginnings = [names.fenced(name) for name in fenced]
    keys = {"t", "t:", "t:{", "t:store", "x", *tails}
    keys |= {names.fenced(name)[:-1] for name in others} | {names.fenced(name) + "r:1" for name in others}
    keys = sorted(keys - {""})
    with server.client() as client:

        def may(*rules):
            client.execute_command("ACL", "SETUSER", "tried", "resetkeys", "on", "+@all", *rules)
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.execute_command("ACL", "DRYRUN", "tried", "GET", key)
            return {key for key, said in zip(keys, pipe.execute()) if said == b"OK"}

        before, after = may(base), may(*without([base], beginnings))
        one_by_one = [base]
        for one in beginnings:
            one_by_one = without(one_by_one, [one])
        assert may(*one_by_one) == after

        def may_write(*rules):
            client.execute_command("ACL", "SETUSER", "tried", "resetkeys", "on", "+@all", *rules)
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.execute_command("ACL", "DRYRUN", "tried", "SET", key, "x")
            return {key for key, said in zip(keys, pipe.execute()) if said == b"OK"}

        writable, read_only = may_write(base), readable([base], beginnings)
        assert may(*read_only) == before
        assert may_write(*read_only) == {k for k in writable if not any(k.startswith(one) for one in beginnings)}
        client.execute_command("ACL", "DELUSER", "tried")
    assert set(one_by_one) == set(without([base], beginnings))
    assert after == {key for key in before if not any(key.startswith(one) for one in beginnings)}


def test_prefixes_do_not_meet(server):
    one, two = new_valkey(server), new_valkey(server)
    write(one, "n", {"a": b"1"})
    with two.reader() as reader:
        assert reader.namespaces() == []
    one.close()
    two.close()
