# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What other programs do to the keys of a Valkey store: nothing crashes, everything is found, what can be is mended."""
from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import (
    END,
    Envelopes,
    key_bytes,
    key_text,
    one_key,
    written,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    StoreDamaged,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from tests.unit.engines.sqlite_help import KEYS, all_rows, entries, health, keys_of, row, structure, write
from tests.unit.engines.valkey_help import new_valkey, same

keys = st.one_of(st.sampled_from(KEYS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))


@pytest.fixture
def store(valkey_server):
    opened = new_valkey(valkey_server)
    yield opened
    opened.close()


def records(store, generation=1):
    return store.names.records("n", generation)


# --- bytes ----------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(keys, st.binary(max_size=5)), max_size=8))
def test_members_stand_in_the_order_of_their_keys(pairs):
    members = sorted((key_bytes(key) + END + tail, key) for key, tail in pairs)
    assert [key for _member, key in members] == sorted((key for key, _tail in pairs), key=str.encode)
    for member, key in members:
        low, high = one_key(key)
        assert low[1:] <= member < high[1:]
        assert all(not low[1:] <= other < high[1:] for other, another in members if another != key)
        assert key_text(member[: member.find(END)]) == key


@given(key=keys, key_id=st.text(max_size=3).filter(lambda t: t.encode("utf-8", "ignore").decode() == t),
       numbers=st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4), payload=st.binary(), checksum=st.binary(),
       times=st.tuples(*[st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))] * 2))  # fmt: skip
def test_a_record_comes_out_of_its_envelope_as_it_went_in(key, key_id, numbers, payload, checksum, times):
    record = (key, *numbers, *times, key_id, payload, checksum)
    envelopes = Envelopes()
    assert envelopes.row(envelopes.member(record)) == record
    assert envelopes.rows([envelopes.member(record)]) == [record]


@given(key=keys, body=st.binary(max_size=60))
def test_any_bytes_are_a_row_or_nothing(key, body):
    envelopes = Envelopes()
    for member in (key_bytes(key) + END + body, body, b"\xff" + END + body, END + body):
        one = envelopes.row(member)
        assert envelopes.rows([member]) == ([] if one is None else [one])
        if one is not None:
            assert len(one) == 10
            assert not RecordCodec("n").intact(one)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_namespace_is_harmless_in_patterns_and_in_key_names(name):
    assert not set(written(name)) & set("*?[]{}\\ \0^:")


def test_a_record_that_no_column_could_hold_is_refused(store):
    with pytest.raises(InvalidInput, match="does not take this record: OverflowError"):
        with store.writing("n", 1) as w:
            rows = [("k", 2**64, *row("n", "k", 1, 1, 1)[2:])]
            w.put(rows, entries("n", rows))
    assert write(store, "n", {"k": b"1"})[0][2] == 1


# --- records --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", [b"", b"\x99", b"\xc1", b"\x90", b"text", b"\x99" + b"\xc0" * 9, b"\x93\x01\x02\x03"])
def test_a_damaged_envelope_is_a_damaged_row_that_can_be_replaced(store, claim, raw, body):
    good = write(store, "n", {"a": b"1", "b": b"2", "c": b"3"})
    raw.zremrangebylex(records(store), *one_key("b"))
    raw.zadd(records(store), {key_bytes("b") + END + body: 0})
    rows = all_rows(store, "n")
    assert [r[0] for r in rows] == ["a", "b", "c"]
    assert all_rows(store, "n", descending=True) == rows[::-1]
    assert not RecordCodec("n").intact(rows[1])
    with store.reader() as reader:
        assert reader.get_many("n", ["b"]) == {"b": rows[1]}
    assert store.reseal(claim, [("k2", b"p", b"c" * 32, "b", good[1][9])]) == ["b"]
    assert store.change(claim, [Change("b", rows[1][9], good[1], "damaged")]) == []
    assert all_rows(store, "n") == good
    with store.reader() as reader:
        assert [item for batch in reader.aside("n") for item in batch] == [("inc-1", "damaged", rows[1])]


def test_members_that_belong_to_no_key_are_found_and_set_aside(store, claim, raw):
    good = write(store, "n", dict.fromkeys("abc", b"1"))
    raw.zadd(records(store), {b"no end": 0, b"\xff\xfe" + END + b"x": 0, END + b"x": 0})
    assert all_rows(store, "n") == good
    with store.reader() as reader:
        assert reader.boundaries("n", 2)
    assert structure(store) == ["generation 1 of namespace 'n': 3 members belong to no key"]
    assert store.repair_structure() == [
        "set 3 members of generation 1 of namespace 'n' aside that belonged to no key or to one that has another"
    ]
    assert structure(store) == []
    assert store.repair_structure() == []
    with store.reader() as reader:
        assert sorted(item[:2] for batch in reader.aside("n") for item in batch) == [
            ("structure", "the member belongs to no key")
        ] * 3
        assert reader.count("n") == 3


def test_a_key_with_two_members_counts_once(store, claim, raw):
    good = write(store, "n", dict.fromkeys("abc", b"1"))
    raw.zadd(records(store), {store.envelopes.member(row("n", "b", 9, 9, 9, b"forged")): 0})
    for batch in (1, 2, 100):
        rows = all_rows(store, "n", batch=batch)
        assert [r[0] for r in rows] == ["a", "b", "c"]
        assert all_rows(store, "n", batch=batch, descending=True) == rows[::-1]
    with store.reader() as reader:
        assert reader.get_many("n", ["b"]) == {"b": rows[1]}
    assert structure(store) == ["generation 1 of namespace 'n': 1 member belongs to a key that has another one"]
    store.repair_structure()
    assert structure(store) == []
    assert store.change(claim, [Change("b", all_rows(store, "n")[1][9], good[1])]) == []
    assert all_rows(store, "n") == good


def test_scores_that_put_members_out_of_order_are_mended(store, raw):
    good = write(store, "n", dict.fromkeys("abc", b"1"))
    raw.zadd(records(store), {store.envelopes.member(good[0]): 5, store.envelopes.member(good[1]): -5})
    assert structure(store) == [
        "generation 1 of namespace 'n': 2 members have a score, so out of order"
    ]
    assert store.repair_structure() == ["put 2 members of generation 1 of namespace 'n' in order"]
    assert all_rows(store, "n") == good


def test_records_that_are_gone_altogether_are_found(store, raw):
    write(store, "n", dict.fromkeys("abc", b"1"))
    raw.delete(records(store))
    with store.reader() as reader:
        assert [w.key for batch in reader.last_writes("n") for w in batch] == ["a", "b", "c"]
    assert structure(store) == [
        "generation 1 of namespace 'n': its records are gone: the server dropped them, or another program deleted them"
    ]
    assert store.repair_structure() == [
        "made generation 1 of namespace 'n' again; its records have to come from a snapshot"
    ]
    assert structure(store) == []


def test_the_set_of_records_that_expire_is_mended(store, raw):
    write(store, "n", {"a": b"1", "b": b"1"}, expires=10)
    write(store, "n", {"c": b"1"})
    raw.zrem(store.names.expiry("n", 1), "a")
    raw.zadd(store.names.expiry("n", 1), {"b": 99, "c": 5, "absent": 5})
    assert structure(store) == [
        "generation 1 of namespace 'n': 2 records are missing from the set of those that expire"
    ]
    store.repair_structure()
    assert structure(store) == []
    assert store.sweep("n", 10) == 2
    assert keys_of(store, "n") == ["c"]


# --- the log --------------------------------------------------------------------------------------------------------
def test_entries_that_vanish_or_change_are_noticed(store, raw):
    write(store, "n", {"a": b"1", "b": b"1"})
    write(store, "n", {"a": b"2"})
    raw.xdel(store.names.log("n"), "2-0")
    found = health(store)
    assert (found["missing"], found["corrupt"], found["entries"], found["intact"]) == (1, 0, 2, False)
    raw.xadd(store.names.log("n"), {"e": b"nonsense"}, id="9-0")
    found = health(store)
    assert (found["missing"], found["corrupt"], found["entries"]) == (1, 1, 3)
    assert structure(store) == ["the index of the log of namespace 'n' lacks 0 entries and has 1 that belong to none"]
    store.repair_structure()
    assert structure(store) == []


def test_the_index_of_the_log_is_rebuilt(store, raw):
    write(store, "n", {"a": b"1", "b": b"1"})
    write(store, "n", {"a": b"2"})
    with store.reader() as reader:
        before = list(reader.last_writes("n"))
    index = store.names.writes("n")
    raw.delete(index)
    raw.zadd(index, {b"junk": 0, b"a" + END + bytes(24): 0})
    assert structure(store) == ["the index of the log of namespace 'n' lacks 3 entries and has 2 that belong to none"]
    assert store.repair_structure() == ["mended the index of the log of namespace 'n'"]
    assert structure(store) == []
    with store.reader() as reader:
        assert list(reader.last_writes("n")) == before


# --- control rows ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff"])
def test_damaged_control_rows_are_said(store, claim, raw, text):
    raw.hset(store.names.namespaces, "n", text)
    with store.reader() as reader:
        with pytest.raises(StoreDamaged, match="control row of namespace 'n'"):
            reader.namespace("n")
        assert reader.structure() == ["the control row of namespace 'n' is damaged"]
    with pytest.raises(StoreDamaged):
        write(store, "n", {"a": b"1"})
    write(store, "m", {"a": b"1"})
    raw.hset(store.names.incidents, "n inc-1", text)
    with pytest.raises(StoreDamaged, match="row of an incident"):
        store.fence(claim)


def test_a_raw_write_between_look_and_change_is_seen(store, claim, raw, monkeypatch):
    good = write(store, "n", {"a": b"1"})[0]
    forged = row("n", "a", 1, 1, 1, b"forged")
    live, turns = store._live, []

    def meddle(*args):
        found = live(*args)
        if not turns:
            turns.append(1)
            raw.zremrangebylex(records(store), *one_key("a"))
            raw.zadd(records(store), {store.envelopes.member(forged): 0})
        return found

    monkeypatch.setattr(store, "_live", meddle)
    assert store.change(claim, [Change("a", good[9], row("n", "a", 1, 2, 2, b"wanted"))]) == ["a"]
    assert all_rows(store, "n") == [forged]


def test_big_records_among_small_ones_are_read_in_bounded_parts(store):
    write(store, "n", {f"s{n:04}": b"x" for n in range(300)})
    write(store, "n", {f"b{n:02}": bytes(5 << 20) for n in range(6)})
    for down in (False, True):
        with store.reader() as reader:
            batches = list(reader.scan("n", descending=down))
        wanted = sorted([f"s{n:04}" for n in range(300)] + [f"b{n:02}" for n in range(6)], reverse=down)
        assert [r[0] for batch in batches for r in batch] == wanted
        assert max(sum(len(r[8]) for r in batch) for batch in batches) <= 13 << 20


def test_writes_during_the_check_are_no_findings(store, valkey_server):
    write(store, "n", {f"{n:04}": b"x" for n in range(3000)}, expires=10**17)
    other, stop = same(store, valkey_server), threading.Event()

    def write_on():
        n = 0
        while not stop.is_set():
            n += 1
            write(other, "n", {f"{n % 3000:04}": b"y", f"0{n % 3000:04}": b"z", f"{(7 * n) % 3000:04}": None})

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _turn in range(5):
            assert structure(store) == []
    finally:
        stop.set()
        writer.join(300)
    assert structure(store) == []
    other.close()


def test_new_seals_leave_what_lies_between_as_it_is(store, claim, raw):
    good = write(store, "n", {f"{n:03}": b"1" for n in range(60)})
    raw.zadd(records(store), {b"030" + END + b"junk": 0, store.envelopes.member(row("n", "040", 9, 9, 9, b"twin")): 0})
    first = {r[0]: r for r in all_rows(store, "n")}
    wanted = [("k2", b"new", b"c" * 32, r[0], r[9]) for r in good if r[0] not in ("010", "020")]
    refused = {key for key in ("030", "040") if first[key][9] != {r[0]: r[9] for r in good}[key]}
    assert set(store.reseal(claim, wanted)) == refused
    after = {r[0]: r for r in all_rows(store, "n")}
    assert after["010"] == first["010"]
    assert after["020"] == first["020"]
    for key in refused:
        assert after[key] == first[key]
    assert after["005"] == (*first["005"][:7], "k2", b"new", b"c" * 32)
    again = [("k3", b"newer", b"d" * 32, key, b"c" * 32) for key in sorted(after) if after[key][9] == b"c" * 32]
    assert store.reseal(claim, again) == []
    assert {r[9] for r in all_rows(store, "n")} >= {b"d" * 32}


def test_what_the_server_refuses_to_tell_is_no_finding(store, raw, valkey_server):
    write(store, "n", {"a": b"x"})
    raw.execute_command("ACL", "SETUSER", "limited", "on", ">limited", "~*", "+@all", "-zmscore")
    limited = same(store, valkey_server, user="limited", password="limited")
    try:
        with limited.reader() as reader, pytest.raises(StoreUnavailable, match="does not allow user limited"):
            reader.structure()
    finally:
        limited.close()
        raw.execute_command("ACL", "DELUSER", "limited")
