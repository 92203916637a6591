# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The layout keyspace on a real server: another application's keys, of every type, and what is refused."""
from __future__ import annotations

import pathlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, ResponseError

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_cluster_records import ClusterNames
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_dump import (
    canonical,
    crc64,
    refuse_module,
    sound,
    whole,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_pattern import (
    Pattern,
    raw_of,
    text_of,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_reader import row_of
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_slot_map import tags
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
    NamespaceUnknown,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import ALL_CAPABILITIES
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.keyspace_help import KeyspaceSite

NS = "agent-7"


@pytest.fixture
def site(tmp_path, valkey_server):
    one = KeyspaceSite(tmp_path, valkey_server)
    yield one
    one.wipe()


@pytest.fixture
def store(site):
    site.fill()
    opened = open_store(site.store)
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    return store.claim(NS, "attempt-1", "operator", new_incident="inc-1")


def rows_of(store, generation=None, **options):
    with store.reader() as reader:
        return [row for batch in reader.scan(NS, generation=generation, **options) for row in batch]


# --- names ----------------------------------------------------------------------------------------------------------
@given(st.binary(max_size=12) | st.text(alphabet="a\0\uf700\uf7ff:*é", max_size=6).map(str.encode))
def test_every_name_comes_back_as_the_same_bytes(raw):
    text = text_of(raw)
    assert text and raw_of(text) == raw
    text.encode()


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (None, "is not set"), ("mem:*", "exactly once"), ("{namespace}:{namespace}:*", "exactly once"),
        ("mem:{namespace}", "exactly one \\*"), ("mem:{namespace}:*:*", "exactly one \\*"),
        ("*:{namespace}:x", "must come behind"), ("mem:{namespace}*", "something between"),
        ("m?m:{namespace}:*", "no other wildcards"), ("mem {namespace}:*", "no space"),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_meant_is_refused(valkey_server, pattern, why):
    with pytest.raises(InvalidInput, match=why) as caught:
        open_store(valkey_server.store("x", layout="keyspace", pattern=pattern))
    assert "mem:{namespace}:*" in caught.value.next_step


def test_whose_key_it_is():
    pattern = Pattern("app:{namespace}:m:*:end", "memops")
    assert pattern.namespace_of(b"app:n:m:key:end") == "n" and pattern.name_of("n", b"app:n:m:key:end") == "key"
    assert pattern.key("n", "key") == b"app:n:m:key:end"
    for other in (b"app:n:m:key", b"app::m:key:end", b"ap:n:m:key:end", b"app:n:m:end", b"app:\xff:m:x:end"):
        assert pattern.namespace_of(other) is None
    for name in ("a:m:b", ""):
        with pytest.raises(InvalidInput, match="has no namespace"):
            pattern.check(name)
    whole = Pattern("{namespace}:*", "memops")
    assert whole.namespace_of(b"memops:store:x") is None
    with pytest.raises(InvalidInput, match="collection itself"):
        whole.check("memops")


def test_an_engine_that_has_no_such_keys_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot run the layout keyspace"):
        open_store({"engine": "sqlite", "layout": "keyspace", "path": str(tmp_path / "m.db")})


def test_another_pattern_or_layout_on_the_same_control_keys_is_refused(site, store, claim):
    with pytest.raises(InvalidInput, match="was used with the pattern"):
        open_store({**site.store, "pattern": "other:{namespace}:*"})
    with pytest.raises(InvalidInput, match="has the layout keyspace"):
        open_store({**site.store, "layout": "native"})


def test_the_documented_table_of_capabilities_is_that_of_the_code(site):
    path = pathlib.Path(__file__).parents[3] / "docs" / "layouts.md"
    table = path.read_text(encoding="utf-8").partition("| capability | keyspace | so |")[2].partition("\n\n")[0]
    said = {}
    for line in table.splitlines()[2:]:
        names, has, _so = (cell.strip() for cell in line.strip("|").split("|"))
        said.update((name, has != "no") for name in names.split(", "))
    store = open_store(site.store)
    assert said == {name: name in store.capabilities() for name in ALL_CAPABILITIES}
    store.close()


# --- reading --------------------------------------------------------------------------------------------------------
def test_all_records_come_in_order_whatever_the_page_and_the_direction(site, store):
    rows = rows_of(store)
    keys = [row[0] for row in rows]
    assert keys == sorted(keys, key=str.encode) and len(keys) == len(site.dumps())
    codec = RecordCodec(NS)
    assert all(codec.intact(row) and row[6] is None and row[7] == "" for row in rows)
    assert {row[0]: row[5] for row in rows if row[5]} == {"ends": 4e15, "big hash": 4e15}
    for batch in (1, 2, 7, len(rows), 1000):
        assert rows_of(store, batch=batch) == rows
        assert rows_of(store, batch=batch, descending=True) == rows[::-1]
        assert rows_of(store, batch=batch, after=keys[3], until=keys[9]) == rows[4:10]
    with store.reader() as reader:
        assert reader.get_many(NS, [keys[0], "nobody", "\ud800"]) == {keys[0]: rows[0]}
        assert [one.name for one in reader.namespaces()] == [NS] and reader.count(NS) == len(rows)
        with pytest.raises(NamespaceUnknown):
            reader.namespace("nobody")
    assert not list(site.root.scan_iter(f"ops{site.token}:*"))  # nothing was written by reading


def test_a_value_has_the_same_digest_wherever_its_members_lie(site, store):
    site.app.sadd(site.key("other way"), *(f"member {n}" for n in random.sample(range(400), 400)))
    site.app.hset(site.key("other hash"), mapping={f"field {n}": "text " * 20 for n in random.sample(range(300), 300)})
    site.app.copy(site.key("hash with ends"), site.key("other ends"))
    by_key = {row[0]: row[8] for row in rows_of(store)}
    for one, other in (("set", "other way"), ("big hash", "other hash"), ("hash with ends", "other ends")):
        assert by_key[one] == by_key[other]
    assert site.dumps()[site.key("set")][0] != by_key["set"] or site.dumps()[site.key("other way")][0] != by_key["set"]


def test_a_dump_that_is_not_whole_is_a_damaged_record():
    value = b"\0\x05value\x50\0"
    good = value + crc64(value).to_bytes(8, "little")
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA  # as the server's own self-test has it
    assert sound(good) and canonical(good) == good
    for place in range(len(good)):
        bent = bytearray(good)
        bent[place] ^= 4
        assert not sound(bytes(bent))
    assert not sound(b"") and not sound(good[:-1])
    codec = RecordCodec(NS)
    assert codec.intact(row_of(codec, "key", good, None, True))
    assert not codec.intact(row_of(codec, "key", good[:-1], None, False))
    for kind in (6, 7):
        with pytest.raises(CapabilityMissing, match="type of a module"):
            refuse_module(bytes([kind]) + good[1:], "key")


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=200), st.integers(1, 3))
def test_values_side_by_side_are_judged_as_each_alone(values, every):
    dumps = [value + crc64(value).to_bytes(8, "little") for value in values * 3]
    dumps = [dump if n % every else dump[:-1] + bytes([dump[-1] ^ 1]) for n, dump in enumerate(dumps)]
    assert whole(dumps) == [sound(dump) for dump in dumps]


# --- the fence ------------------------------------------------------------------------------------------------------
def test_the_fence_binds_an_open_connection_and_gives_back_exactly_what_there_was(site, store, claim):
    site.fill("agent-8")
    user = site.root.execute_command("ACL", "GETUSER", "agent")
    site.app.ping()
    assert store.fence(claim) and not store.fence(claim)
    proof = store.prove(NS)
    assert proof["writes_refused"] and proof["reads_refused"]
    for refused in (
        lambda: site.app.get(site.key("number")), lambda: site.app.set(site.key("new"), 1),
        lambda: site.app.delete(site.key("set")), lambda: site.app.rename(site.key("set"), "elsewhere"),
    ):  # fmt: skip
        with pytest.raises(NoPermissionError):
            refused()
    assert site.app.get(site.key("number", "agent-8")) == b"12345"
    with store.reader() as reader:
        assert not reader.moved(NS)
    assert store.unfence(claim) and not store.unfence(claim)
    assert site.root.execute_command("ACL", "GETUSER", "agent") == user
    assert site.app.get(site.key("number")) == b"12345" and not store.prove(NS)["writes_refused"]


def test_a_reader_cannot_vouch_for_what_it_read_while_the_fence_did_not_stand(store, claim):
    with store.reader() as reader:
        reader.namespace(NS)
        store.fence(claim)
        assert reader.moved(NS)
    with store.reader() as reader:
        reader.namespace(NS)
        store.unfence(claim)
        assert reader.moved(NS)


def test_many_namespaces_of_one_user_are_fenced_one_by_one(site, store, claim):
    site.fill("agent-70")
    other = store.claim("agent-70", "attempt-1", "operator", new_incident="inc-2")
    store.fence(claim)
    store.fence(other)
    store.unfence(claim)
    assert site.app.get(site.key("number")) == b"12345"
    with pytest.raises(NoPermissionError):
        site.app.get(site.key("number", "agent-70"))
    store.unfence(other)


def test_a_namespace_that_no_acl_can_name_is_not_half_fenced(site, store):
    site.app.set(site.key("k", "two words"), 1)
    claim = store.claim("two words", "a", "o", new_incident="i")
    with pytest.raises(CapabilityMissing, match="takes no space"):
        store.fence(claim)
    with store.reader() as reader:
        assert reader.namespace("two words").state == "serving"


# --- changing -------------------------------------------------------------------------------------------------------
def test_a_change_is_a_compare_and_set_and_what_it_replaces_lies_aside(site, store, claim):
    rows = {row[0]: row for row in rows_of(store)}
    before = site.values()
    site.app.set(site.key("number"), 6)
    wrong = Change("number", rows["number"][9], rows["ends"], "x")
    assert store.change(claim, [wrong, Change("nobody", b"x" * 32, rows["ends"], "x")]) == ["number", "nobody"]
    gone = [Change(key, rows[key][9], None, "taken") for key in ("set", "stream", "big hash", "list", "ranks")]
    assert store.change(claim, gone) == [] and not site.app.exists(site.key("set"))
    with store.reader() as reader:
        aside = {row[0]: row for batch in reader.aside(NS) for _incident, _reason, row in batch}
    assert aside == {change.key: rows[change.key] for change in gone}
    assert store.change(claim, [Change(key, None, row) for key, row in aside.items()]) == []
    site.app.set(site.key("number"), 12345)
    assert site.values() == before


def test_a_value_that_is_not_whole_never_reaches_the_server(site, store, claim):
    row = rows_of(store)[0]
    bent = (*row[:8], row[8][:-1] + b"\0\0", row[9])
    with pytest.raises(InvalidInput, match="not whole"):
        store.change(claim, [Change("new", None, bent)])
    assert not site.app.exists(site.key("new"))


def test_staged_keys_take_their_places_only_behind_the_fence(site, store, claim):
    rows = rows_of(store)
    before = site.values()
    generation = store.begin_generation(claim)
    store.load(claim, generation, rows[::2])
    assert rows_of(store, generation) == rows[::2] and site.values() == before
    active = next(one for one in store.generations(NS) if one != generation)
    command = f"isolate it first: ansible-playbook memops.agent_memory.isolate -e memory_namespace={NS}"
    with pytest.raises(CannotProceed, match=command):
        store.switch(claim, generation, active)
    store.fence(claim)
    assert store.switch(claim, generation, active) and not store.switch(claim, generation, active)
    assert rows_of(store) == rows[::2] and rows_of(store, active) == rows
    with pytest.raises(CannotProceed, match="is at generation"):
        store.switch(claim, active, active)
    assert store.switch(claim, active, generation)
    assert site.values() == before
    assert store.drop_generation(claim, generation) == len(rows[::2]) and not store.drop_generation(claim, generation)
    assert not site.own()


def test_a_server_that_may_drop_keys_is_said_so_and_takes_no_staged_ones(tmp_path):
    with ValkeyServer("maxmemory 64mb", "maxmemory-policy allkeys-lru") as server:
        site = KeyspaceSite(tmp_path, server)
        site.fill()
        store = open_store(site.store)
        assert any("maxmemory-policy is allkeys-lru" in line for line in store.warnings())
        claim = store.claim(NS, "a", "o", new_incident="i")
        with pytest.raises(CannotProceed, match="maxmemory-policy"):
            store.begin_generation(claim)
        store.close()


def test_a_full_server_is_left_as_it_was(tmp_path):
    with ValkeyServer("maxmemory 12mb") as server:
        site = KeyspaceSite(tmp_path, server)
        site.fill()
        site.app.set(site.key("big"), random.randbytes(300 << 10))
        store = open_store(site.store)
        rows = {row[0]: row for row in rows_of(store)}
        claim = store.claim(NS, "a", "o", new_incident="i")
        with pytest.raises(ResponseError):
            for number in range(20):
                site.app.set(f"other {number}", random.randbytes(1 << 20))
        before = site.values()
        changes = [Change(f"copy {n}", None, (f"copy {n}", *rows["big"][1:])) for n in range(20)]
        with pytest.raises(StoreUnavailable, match="is full"):
            store.change(claim, changes)
        assert site.values() == before
        store.close()


# --- on a Cluster ---------------------------------------------------------------------------------------------------
def test_every_slot_has_a_text_of_its_own():
    assert [key_slot(f"{{{tag}}}{{x}}".encode()) for tag in tags()] == list(range(16384))


@given(
    st.binary(max_size=8) | st.text(alphabet="{}a:*\0é", max_size=8).map(str.encode),
    st.sampled_from(["a", "b{c}", "{}", "}{"]),
)
def test_a_staged_key_lies_in_the_slot_of_its_place_whatever_its_name(raw, namespace):
    for pattern in ("mem:{namespace}:*", "{{namespace}}:*", "{namespace}:*:{end}"):
        names = ClusterNames("{memops}", Pattern(pattern, "{memops}"))
        text = text_of(raw)
        place, staged = names.pattern.key(namespace, text), names.staged(namespace, 7, text)
        assert key_slot(place) == key_slot(staged)
        assert names.staged_text(namespace, 7, staged) == text
        assert names.pattern.namespace_of(staged) is None and names.pattern.namespace_of(place) == namespace
