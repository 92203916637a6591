# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Control rows of a Valkey store that are gone or do not lead to a namespace's records any more."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceDamaged, StoreDamaged
from tests.unit.engines.control_help import filled, led_back, refused
from tests.unit.engines.sqlite_help import all_rows, write
from tests.unit.engines.valkey_help import new_valkey, same


@pytest.fixture
def store(valkey_server):
    opened = filled(new_valkey(valkey_server))
    yield opened
    opened.close()


@pytest.fixture
def change(store, raw):
    def change(**fields):
        space = {**json.loads(raw.hget(store.names.namespaces, "n")), **fields}
        raw.hset(store.names.namespaces, "n", json.dumps({k: v for k, v in space.items() if v != "away"}))

    return change


ELSEWHERE = "names generation {}, which it does not have"
DAMAGE = {
    "of another namespace": ({"generation": 2}, ELSEWHERE.format(2)),
    "of none": ({"generation": 9}, ELSEWHERE.format(9)),
    "of none, consistently": ({"generation": 9, "generations": [9]}, ELSEWHERE.format(9)),
    "no number": ({"generation": "one"}, "is damaged"),
    "no list": ({"generations": {}}, "is damaged"),
    "no generations": ({"generations": "away"}, "is damaged"),
    "a lock that is no number": ({"lock_number": None}, "is damaged"),
    "a ttl that is no number": ({"ttl": "1h"}, "is damaged"),
    "a state": ({"state": "serv"}, "has the state 'serv', which there is not"),
    "no state": ({"state": None}, "is damaged"),
    "a quarantine": (
        {"state": "quarantined"}, "has lost the state from before its quarantine (None stands there)"
    ),
}  # fmt: skip


def refused_altogether(store, why):
    """Nor is anything set in such a row, or read by it at a point."""
    refused(store, why)
    for attempt in (lambda: store.create_namespace("n"), lambda: store.set_ttl("n", 5.0)):
        with pytest.raises(NamespaceDamaged):
            attempt()
    with store.keeping(), store.point() as point, store.reader(point) as reader:
        assert len(list(reader.scan("m"))) == 1
        for ask in (reader.namespaces, lambda: reader.namespace("n")):
            with pytest.raises(NamespaceDamaged):
                ask()


@pytest.mark.parametrize("what", DAMAGE)
def test_nothing_is_read_or_written_by_such_a_row_and_the_repair_leads_it_back(store, change, what):
    before, (fields, why) = all_rows(store, "n"), DAMAGE[what]
    change(**fields)
    refused_altogether(store, why)
    led_back(store, before, serving="state" not in fields)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"state": "serving", "generation": 1', b"\xff"])
def test_a_row_that_was_cut_short(store, raw, text):
    before = all_rows(store, "n")
    raw.hset(store.names.namespaces, "n", text)
    refused_altogether(store, "is damaged")
    led_back(store, before, serving=False)


def test_a_row_that_is_gone_and_one_of_which_nothing_was_noted_beside(store, raw, change):
    before = all_rows(store, "n")
    raw.hdel(store.names.namespaces, "n")
    refused_altogether(store, "is gone, its records are there")
    led_back(store, before, serving=False)
    write(store, "n", {"a": b"1"})
    before = all_rows(store, "n")
    raw.hdel(store.names.generations, "n")  # as a version before this one left it
    change(noted="away", generation=9)
    refused_altogether(store, "names generation 9, which it does not have")
    led_back(store, before, serving=True)


def test_after_a_rebuild_it_is_the_new_generation_that_comes_back(store, raw):
    claim = store.claim("n", "a", "o", new_incident="i")
    new = store.begin_generation(claim)
    store.load(claim, new, all_rows(store, "n")[:1])  # the fewer records, and the older ones
    store.switch(claim, new, 1)
    raw.hdel(store.names.namespaces, "n")
    assert store.lead_back() == ["made the control row of namespace 'n' again; it is quarantined, as it may have been"]
    with store.reader() as reader:
        assert reader.namespace("n").generation == new
    assert (store.generations("n"), len(all_rows(store, "n"))) == ([1, new], 1)


def test_the_write_lock_and_the_largest_record_are_known_again(store, raw):
    write(store, "n", {"big": bytes(90_000)})
    raw.hset(store.names.namespaces, "n", b"{}")
    store.lead_back()
    space = json.loads(raw.hget(store.names.namespaces, "n"))
    assert (space["lock_number"], space["largest"] > 90_000) == (2, True)


def test_records_that_are_gone_as_a_whole_are_not_read_as_none(store, raw):
    raw.delete(store.names.records("n", 1))
    with store.reader() as reader:
        for ask in (lambda: reader.get_many("n", ["a"]), lambda: list(reader.scan("n"))):
            with pytest.raises(StoreDamaged, match=r"The records of namespace 'n' are gone \(generation 1\)") as caught:
                ask()
        assert caught.value.next_step == "ansible-playbook memops.agent_memory.rebuild -e memory_namespace=n"
    store.repair_structure()
    assert all_rows(store, "n") == []


@pytest.mark.parametrize("value", [None, b"", b"x", b"\xff", b"-1"])
@pytest.mark.parametrize("field", ["epoch", "commits"])
def test_counters_that_are_lost_begin_no_new_count(store, raw, valkey_server, field, value):
    if value is None:
        raw.hdel(store.names.store, field)
    else:
        raw.hset(store.names.store, field, value)
    for ask in (store.identity, lambda: write(store, "n", {"a": b"3"}), lambda: same(store, valkey_server)):
        with pytest.raises(StoreDamaged, match="has lost its identity") as caught:
            ask()
        assert "disaster_recovery -e '{\"memory_dr_store\"" in caught.value.next_step


def test_a_snapshot_asks_at_once_which_of_many_namespaces_moved(store, raw, monkeypatch):
    names = [f"n{n}" for n in range(40)]
    for name in names:
        write(store, name, {"a": b"1"})

    def asked(reader):
        calls, ask = [], reader._wire.ask
        with monkeypatch.context() as patch:
            patch.setattr(reader._wire, "ask", lambda commands: calls.append(1) or ask(commands))
            found = reader.moved_among(names)
        assert found == [name for name in names if reader.moved(name)]
        return len(calls), found

    with store.keeping():
        with store.point() as point:
            kept = store.reader(point)
        with store.reader() as plain, kept:
            write(store, "n7", {"a": b"2"})
            assert asked(kept) == (1, [])  # writers keep what they change
            assert asked(plain) == (1, ["n7"])
            raw.hset(store.names.namespaces, "n9", b"{}")
            assert asked(plain) == (1, ["n7", "n9"])
