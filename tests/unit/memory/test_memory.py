# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application does with Memory on a healthy store of every engine."""
from __future__ import annotations

import datetime
import math
import re

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    InvalidInput,
    KeyUnavailable,
    Memory,
    MemoryOpsError,
    StoreUnavailable,
)
from tests.unit.memory.conftest import Place


@pytest.fixture
def place(tmp_path, bench):
    return Place(tmp_path, bench=bench)


def operations(memory, namespace="a"):
    return [(line["operation"], line["key"]) for line in memory.get_access_logs(namespace)]


def test_write_read_delete(memory):
    assert memory.read("a", "k") is None
    first = memory.write("a", "k", {"x": [1, None, "ä"]}, reason="learned")
    assert memory.read("a", "k") == {"x": [1, None, "ä"]}
    assert memory.write("a", "k", b"\0raw") == first + 1
    assert memory.read("a", "k") == b"\0raw"
    assert memory.read("b", "k", default="none") == "none"
    assert memory.delete("a", "k", reason="forget")
    assert not memory.delete("a", "k")
    assert not memory.delete("never", "k")
    assert memory.read("a", "k", default=5) == 5
    assert sorted(operations(memory)) == sorted(  # a buffered read may stand behind the write that followed it
        [("miss", "k"), ("write", "k"), ("hit", "k"), ("write", "k"), ("hit", "k"), ("delete", "k"), ("miss", "k")]
    )


def test_log_lines(memory, place):
    sequence = memory.write("a", "k", 1, reason="why")
    memory.read("a", "k")
    write, hit = memory.get_access_logs("a")
    assert (write["sequence"], write["reason"], write["operation"]) == (sequence, "why", "write")
    assert write["lock"] is not None
    assert write["digest"] == hit["digest"] == place.rows()[0][9].hex()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", write["at"])
    assert re.fullmatch(r"[^:]+:\d+:.+", write["actor"])
    for since in (hit["at"], datetime.datetime.fromisoformat(hit["at"].replace("Z", "+00:00"))):
        assert list(memory.get_access_logs("a", since=since)) == [hit]
    assert list(memory.get_access_logs("a", since=place.clock.now / 1e6 + 10)) == []
    assert list(memory.get_access_logs("other")) == []
    for bad in ("yesterday", datetime.datetime(2026, 1, 1), math.inf, True, "2026-01-01T00:00:00"):
        with pytest.raises(InvalidInput, match="since"):
            list(memory.get_access_logs("a", since=bad))


def test_own_actor(place):
    with place.memory(actor="planner") as memory:
        memory.write("a", "k", 1)
        assert [line["actor"] for line in memory.get_access_logs("a")] == ["planner"]


def test_soft_delete_keeps_the_row_aside_hard_does_not(memory, place):
    memory.write("a", "soft", "1")
    memory.write("a", "hard", "2")
    memory.delete("a", "soft", soft=True, reason="outdated")
    memory.delete("a", "hard", soft=False)
    store = open_store(place.home)
    with store.reader() as reader:
        kept = [item for batch in reader.aside("a") for item in batch]
        rows = reader.get_many("a", ["soft", "hard"])
    store.close()
    assert [(incident, reason, row[0]) for incident, reason, row in kept] == [("", "outdated", "soft")]
    assert all(row[6] is not None and len(row[8]) == 28 for row in rows.values())  # tombstones that seal nothing


ODD_KEYS = ["a/b/../c", "new\nline", "nul\0inside", "\0", " ", "ключ", "𝕏" * 1000, "é" * (1 << 19), "%_'\"\\", "\uffff"]


@pytest.mark.parametrize("key", ODD_KEYS, ids=[str(n) for n in range(len(ODD_KEYS))])
def test_odd_keys(memory, key):
    memory.write("a", key, key)
    assert memory.read("a", key) == key
    assert list(memory.list_keys("a")) == [key]
    assert list(memory.list_keys("a", prefix=key)) == [key]
    assert memory.delete("a", key)
    assert list(memory.list_keys("a")) == []


@pytest.mark.parametrize("value", [b"", "", None, [], {}, 0, 1.5, True])
def test_odd_values(memory, value):
    memory.write("a", "k", value)
    assert memory.read("a", "k", default="absent") == value
    assert memory.read_many("a", ["k", "none", "k"]) == {"k": value}


def test_a_big_value(memory):
    """Made here: as a parameter it would lie in the memory of every process of the tests, and each of its forks."""
    test_odd_values(memory, b"x" * (64 << 20))


@pytest.mark.parametrize(
    "act",
    [
        lambda m: m.write("a", "", 1),
        lambda m: m.write("", "k", 1),
        lambda m: m.write("a", None, 1),
        lambda m: m.write("a", "\ud800", 1),
        lambda m: m.write("a", "k" * (5 << 20), 1),
        lambda m: m.write("a" * 600, "k", 1),
        lambda m: m.write("a", "k", object()),
        lambda m: m.write("a", "k", math.nan),
        lambda m: m.write("a", "k", 1, ttl=0),
        lambda m: m.write("a", "k", 1, ttl=math.inf),
        lambda m: m.write("a", "k", 1, ttl=10**400),
        lambda m: m.write("a", "k", 1, ttl=True),
        lambda m: m.write("a", "k", 1, reason=7),
        lambda m: m.write("a", "k", 1, reason="\ud800"),
        lambda m: m.write("a", "\0memops/canary", 1),
        lambda m: m.read("a", "\0memops/canary"),
        lambda m: m.delete("a", "\0memops/canary"),
        lambda m: m.write_many("a", [("k", 1), ("", 1)]),
        lambda m: m.set_ttl("a", -1),
        lambda m: m.search("a", " "),
        lambda m: m.search("a", "x", limit=0),
        lambda m: list(m.list_keys("a", prefix=7)),
        lambda m: m.lock("a", wait=-1),
        lambda m: m.lock("a", lease=0),
    ],
)
def test_bad_input_changes_nothing(memory, act, place):
    with pytest.raises(InvalidInput) as caught:
        act(memory)
    assert caught.value.next_step
    assert place.rows() == []


def test_bad_construction(place, tmp_path):
    for options in ({"store": None}, {"route": "/r", "store": {}}, {"keyring": None}, {"keyring": {}}, {"actor": ""}):
        with pytest.raises(InvalidInput):
            Memory(**{"store": place.store, "keyring": place.keyring, **options})
    with pytest.raises(StoreUnavailable):
        place.memory(create=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


def test_records_never_get_a_new_keyring(place):
    with place.memory() as memory:
        memory.write("a", "k", 1)
    keyring = place.folder / "keyring.json"
    kept = keyring.read_bytes()
    keyring.unlink()
    with pytest.raises(KeyUnavailable, match="no keyring file"):
        place.memory()
    assert not keyring.exists()
    keyring.write_bytes(kept)
    with place.memory() as memory:
        assert memory.read("a", "k") == 1


def test_write_many(memory, place):
    assert memory.write_many("a", ((f"k{n:05}", n) for n in range(2500)), reason="import") == 2500
    assert list(memory.list_keys("a")) == [f"k{n:05}" for n in range(2500)]
    assert memory.read_many("a", [f"k{n:05}" for n in range(2500)]) == {f"k{n:05}": n for n in range(2500)}
    assert memory.write_many("a", {}) == 0
    assert memory.write_many("a", [("twice", 1), ("twice", 2)]) == 1
    assert memory.read("a", "twice") == 2
    store = open_store(place.home)
    with store.reader() as reader:
        health = reader.log_health()
    store.close()
    assert health["intact"]
    assert (health["first_sequence"], health["last_sequence"]) == (1, 2501)  # no sequence without an entry


def test_prefix(memory):
    memory.write_many("a", dict.fromkeys(["a", "a/", "a/1", "a/2", "a0", "b", "A/"], 1))
    assert list(memory.list_keys("a", "a/")) == ["a/", "a/1", "a/2"]
    assert list(memory.list_keys("a", "a/9")) == []
    assert list(memory.list_keys("a", "")) == sorted(["a", "a/", "a/1", "a/2", "a0", "b", "A/"])


def test_ttl(memory, place):
    assert memory.ttl("a") is None
    memory.write("a", "for ever", 1)
    assert memory.set_ttl("a", 60)
    assert not memory.set_ttl("a", 60)
    assert memory.set_ttl("new", 5)
    assert memory.ttl("new") == 5
    memory.write("a", "short", 1)
    memory.write("a", "own", 1, ttl=600)
    assert list(memory.list_keys("a")) == ["for ever", "own", "short"]
    place.clock.turn(61)
    assert list(memory.list_keys("a")) == ["for ever", "own"]
    assert memory.read("a", "short") is None
    assert ("expired", "short") in operations(memory)
    assert not memory.delete("a", "short")  # expiry is no deletion, and leaves nothing to delete
    place.clock.turn(-7200)  # a clock that jumps back brings nothing to harm
    memory.write("a", "after the jump", 1)
    assert memory.read("a", "after the jump") == 1
    with pytest.raises(InvalidInput):
        memory.set_ttl("a", "60")


def test_created_survives_overwriting_but_not_deletion(memory, place):
    memory.write("a", "k", 1)
    born = place.rows()[0][3]
    place.clock.turn(5)
    memory.write("a", "k", 2)
    created, updated = place.rows()[0][3:5]
    assert created == born < updated
    memory.delete("a", "k")
    memory.write("a", "k", 3)
    assert place.rows()[0][3] > updated


def test_search(memory):
    memory.write_many(
        "a",
        {
            "colour/1": "Her favourite colour is green.",
            "colour/2": {"note": "colour of the car", "value": "blue"},
            "food": b"favourite dish: Risotto",
            "gone": "favourite colour",
        },
    )
    memory.delete("a", "gone")
    found = memory.search("a", "Favourite  colour")
    assert [key for key, _score, _value in found] == ["colour/1", "colour/2", "food"]
    assert found[0][1] > 1 > found[1][1]
    assert found[1][2] == {"note": "colour of the car", "value": "blue"}
    assert memory.search("a", "risotto", limit=1) == [("food", 1.5, b"favourite dish: Risotto")]
    assert memory.search("a", "zebra") == memory.search("nowhere", "zebra") == []


def test_rotate_keys(place):
    memory = place.memory(store=place.home)  # an operator's right where the store can tell
    memory.write_many("a", {f"k{n}": n for n in range(50)})
    memory.write("b", "k", 1)
    memory.rotate_keys("a")
    assert len({row[7] for row in place.rows()}) == 2
    memory.rotate_keys()
    assert len({row[7] for row in place.rows()}) == 1
    assert memory.read_many("a", memory.list_keys("a")) == {f"k{n}": n for n in range(50)}
    memory.write("a", "new", 1)
    memory.close()
    assert len({row[7] for row in place.rows()}) == 1


def test_closed_memory_says_so(place):
    memory = place.memory()
    memory.write("a", "k", 1)
    memory.close()
    memory.close()
    for act in (lambda: memory.read("a", "k"), lambda: memory.write("a", "k", 1), lambda: list(memory.list_keys("a"))):
        with pytest.raises(MemoryOpsError, match="closed"):
            act()


def test_reads_reach_the_log_by_size_by_age_and_at_close(place):
    def logged():
        return place.logged("miss")

    memory = place.memory(buffer_seconds=1000, buffer_size=10)
    for _turn in range(9):
        memory.read("a", "k")
    assert logged() == 0
    memory.read("a", "k")
    assert logged() == 10
    memory.read("a", "k")
    memory.close()
    assert logged() == 11
    with place.memory(buffer_seconds=0) as memory:
        memory.read("a", "k")
        assert logged() == 12


def test_a_log_that_takes_nothing_breaks_no_read_and_the_buffer_stays_small(place, monkeypatch):
    memory = place.memory(buffer_seconds=0, buffer_size=2)
    memory.write("a", "k", 1)
    broken = type(open_store(place.home))

    def refuse(*_args):
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(broken, "append_log", refuse)
    assert [memory.read("a", "k") for _turn in range(100)] == [1] * 100
    assert memory.dropped_entries == 60
    monkeypatch.undo()
    assert memory.flush() == 40
    memory.close()
    assert memory.dropped_entries == 60
