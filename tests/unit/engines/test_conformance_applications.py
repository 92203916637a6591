# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What _store.py promises applications, on every engine: writing, locks, the log, expiry."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    NamespaceLocked,
    NamespaceQuarantined,
    NamespaceUnknown,
)
from tests.unit.engines.sqlite_help import KEYS, all_rows, entries, health, keys_of, row, structure, write


def test_rows_come_back_as_they_were_written_in_key_order(store):
    rows = write(store, "n", {key: key.encode() for key in reversed(KEYS)})
    assert all_rows(store, "n") == sorted(rows, key=lambda r: r[0].encode())
    assert all_rows(store, "n", descending=True) == sorted(rows, key=lambda r: r[0].encode(), reverse=True)
    with store.reader() as reader:
        assert reader.count("n") == len(KEYS)
        assert reader.get_many("n", [*KEYS, "absent", "\udc80"]) == {r[0]: r for r in rows}
        assert [w.key for batch in reader.last_writes("n") for w in batch] == KEYS
        assert reader.structure() == []


@pytest.mark.parametrize("after", [None, *KEYS])
def test_ranges_are_open_below_and_closed_above(store, after):
    write(store, "n", dict.fromkeys(KEYS, b"x"))
    for until in (None, *KEYS):
        wanted = [k for k in KEYS if (after is None or k > after) and (until is None or k <= until)]
        assert keys_of(store, "n", after=after, until=until, batch=2) == wanted
        assert keys_of(store, "n", after=after, until=until, batch=3, descending=True) == wanted[::-1]
        with store.reader() as reader:
            assert [w.key for b in reader.last_writes("n", after, until, batch=2) for w in b] == wanted


def test_a_key_of_a_megabyte_and_a_payload_of_64_mib(store):
    key, payload = "\U0001f9e0" * 262_144, bytes(64 << 20)
    write(store, "n", {key: b"small", key + "x": b"small"})
    write(store, "n", {"big": payload, "bigger": b"x"})
    with store.reader() as reader:
        found = [(r[0], len(r[8])) for batch in reader.scan("n") for r in batch]
        assert found == [("big", 64 << 20), ("bigger", 1), (key, 5), (key + "x", 5)]
        assert list(reader.get_many("n", [key])) == [key]
    assert keys_of(store, "n", after=key) == [key + "x"]


def test_a_batch_is_cut_at_some_8_mib(store):
    write(store, "n", {f"{n:02}": bytes(1 << 20) for n in range(20)})
    with store.reader() as reader:
        sizes = [len(batch) for batch in reader.scan("n")]
        assert sum(sizes) == 20
        assert max(sizes) <= 10


def test_sequences_are_gapless_and_unused_ones_are_not_given_out(store):
    with store.writing("n", 10) as w:
        assert (w.first_sequence, w.lock) == (1, 1)
        rows = [row("n", "a", w.epoch, 1, w.at)]
        w.put(rows, entries("n", rows, w.lock))
    with store.writing("n", 1) as w:
        assert (w.first_sequence, w.lock) == (2, 2)
    assert store.identity().sequence == 1
    assert health(store) == {
        "entries": 1, "corrupt": 0, "missing": 0, "first_sequence": 1, "last_sequence": 1, "intact": True,
        "pruned": (1, 0),
    }  # fmt: skip


def test_a_sequence_that_was_not_reserved_is_refused_and_nothing_is_written(store):
    with pytest.raises(InvalidInput, match="outside of its 1"):
        with store.writing("n", 1) as w:
            rows = [row("n", "a", w.epoch, 2, w.at)]
            w.put(rows, entries("n", rows))
    with store.reader() as reader:
        assert reader.namespaces() == []


def test_an_exception_in_the_body_rolls_back(store):
    write(store, "n", {"a": b"1"})
    before = all_rows(store, "n")
    with pytest.raises(ZeroDivisionError):
        with store.writing("n", 1) as w:
            rows = [row("n", "a", w.epoch, w.first_sequence, w.at, b"2")]
            w.put(rows, entries("n", rows))
            raise ZeroDivisionError
    assert all_rows(store, "n") == before
    assert write(store, "n", {"a": b"3"})[0][2] == 2


def test_time_never_goes_back(store):
    store.clock = lambda: 2_000
    assert write(store, "n", {"a": b"1"})[0][3] == 2_000
    store.clock = lambda: 1_000
    assert write(store, "n", {"b": b"1"})[0][3] == 2_000
    store.clock = lambda: 3_000
    assert write(store, "n", {"b": b"1"})[0][3] == 3_000


def test_current_shows_live_rows_and_the_writes_own(store):
    rows = write(store, "n", {"a": b"1", "b": None})
    with store.writing("n", 1) as w:
        assert w.current(["a", "b", "c"]) == {"a": rows[0], "b": rows[1]}


def test_a_soft_delete_keeps_the_former_row_until_the_log_is_pruned(store):
    former = write(store, "n", {"a": b"1", "b": b"2"})
    write(store, "n", {"a": None, "new": None}, aside="deleted")
    with store.reader() as reader:
        assert list(reader.aside("n", "")) == [[("", "deleted", former[0])]]
        assert list(reader.aside("other")) == []
    store.prune_log(0, (1, 1))
    with store.reader() as reader:
        assert list(reader.aside("n")) == []
    assert health(store)["missing"] == 0


def test_the_lock_keeps_others_out_until_it_is_given_back(store, bench):
    other = bench.open()
    number = store.lock("n", "host:7:planner", wait=1, lease=60)
    with pytest.raises(NamespaceLocked, match=r"locked by host:7:planner since 20\d\d-.*Z, until 20\d\d-"):
        write(other, "n", {"a": b"1"}, wait=0.05)
    with pytest.raises(NamespaceLocked):
        other.lock("n", "host:8:x", wait=0, lease=60)
    write(other, "elsewhere", {"a": b"1"}, wait=0)
    rows = write(store, "n", {"a": b"1"})
    assert store.lock("n", "host:7:planner", wait=0, lease=60) == number
    with store.reader() as reader:
        assert [(e.key, e.lock) for batch in reader.log("n") for e in batch] == [("a", number)]
    store.unlock("n", number)
    store.unlock("n", number)
    assert write(other, "n", {"a": b"2"}, wait=0)[0][2] == rows[0][2] + 1
    other.close()


def test_a_lease_that_ran_out_does_not_block_and_its_holder_learns_of_the_writes_in_between(store, bench):
    other = bench.open()
    store.lock("n", "a", wait=0, lease=1)
    later = store.clock() + 2_000_000
    store.clock = other.clock = lambda: later
    write(store, "n", {"a": b"1"}, wait=0)  # nobody came in between
    write(other, "n", {"a": b"2"}, wait=0)
    with pytest.raises(NamespaceLocked, match="ran out and others have written since"):
        write(store, "n", {"a": b"3"}, wait=0)
    write(store, "n", {"a": b"3"}, wait=0)
    other.close()


def test_a_lock_from_a_clock_that_was_ahead_ends_after_ten_leases(store, bench):
    other = bench.open()
    real = store.clock()
    store.clock = lambda: real + 10**15
    store.lock("n", "a", wait=0, lease=2)
    other.clock = lambda: real
    with pytest.raises(NamespaceLocked):
        write(other, "n", {"a": b"1"}, wait=0)
    other.clock = lambda: real + 20_000_001
    write(other, "n", {"a": b"1"}, wait=0)
    other.close()


def test_standby_and_quarantined_namespaces_take_no_writes(store, claim):
    assert store.create_namespace("copy", state="standby")
    assert not store.create_namespace("copy")
    with pytest.raises(InvalidInput):
        store.create_namespace("x", state="quarantined")
    with pytest.raises(NamespaceQuarantined, match="standby"):
        write(store, "copy", {"a": b"1"})
    store.fence(claim)
    for attempt in (lambda: write(store, "n", {"a": b"1"}), lambda: store.lock("n", "a", 0, 1)):
        with pytest.raises(NamespaceQuarantined, match="incident inc-1"):
            attempt()
    write(store, "other", {"a": b"1"})
    store.append_log([(0, 5, "n", "miss", "a", None, None, None, None, "reader", None, b"")])
    with store.reader() as reader:
        assert [e.operation for batch in reader.log("n") for e in batch] == ["fence", "miss"]
        assert reader.log_health()["intact"]


def test_ttl_and_sweep(store, claim):
    assert (store.set_ttl("n", 5.0), store.set_ttl("n", 5.0)) == (True, False)
    with pytest.raises(NamespaceUnknown):
        store.set_ttl("absent", 1.0)
    with store.writing("n", 1) as w:
        assert w.ttl == 5.0
    write(store, "n", {"a": b"1", "b": b"1", "c": b"1"}, expires=10)
    write(store, "n", {"gone": None}, expires=10)
    write(store, "n", {"later": b"1"}, expires=11)
    write(store, "n", {"ever": b"1"})
    store.fence(claim)
    assert store.sweep("n", 10) == 0
    store.unfence(claim)
    assert [store.sweep("n", now, limit=2) for now in (9, 10, 10, 10)] == [0, 2, 1, 0]
    assert keys_of(store, "n") == ["ever", "gone", "later"]
    assert health(store)["intact"]
    assert structure(store) == []


def test_last_writes_name_the_newest_and_health_finds_what_is_gone_or_changed(store, bench):
    write(store, "n", {"a": b"1", "b": b"1"})
    write(store, "n", {"a": b"2"})
    rows = write(store, "n", {"b": None})
    write(store, "m", {"a": b"other"})
    with store.reader() as reader:
        found = [(w.key, w.sequence, w.operation) for batch in reader.last_writes("n", batch=1) for w in batch]
        assert found == [("a", 3, "write"), ("b", 4, "delete")]
        assert [w.digest for batch in reader.last_writes("n", after="a") for w in batch] == [rows[0][9]]
    bench.raw().forget("n", 3)
    bench.raw().forge("n", 1)
    found = health(store)
    assert (found["missing"], found["corrupt"], found["entries"], found["intact"]) == (1, 1, 4, False)


def test_pruning_moves_the_floor_and_never_reuses_an_id(store, bench):
    for n in range(6):
        write(store, "n", {f"k{n}": b"1"})
        store.append_log([(0, 5, "n", "hit", f"k{n}", None, None, None, None, "r", None, b"")])
    assert store.prune_log(7, (1, 2)) == 5  # hits 2, 4, 6 and writes 1, 2
    found = health(store)
    assert (found["entries"], found["missing"], found["first_sequence"]) == (7, 0, 3)
    bench.raw().forget("n", 4)
    assert health(store)["missing"] == 1
    assert store.prune_log(10**6, (1, 10**6)) == 6
    write(store, "n", {"k": b"1"})
    with store.reader() as reader:
        assert [e.id for batch in reader.log() for e in batch] == [13]
        assert reader.log_health()["intact"]
    assert store.prune_log(0, (0, 0)) == 0


@pytest.mark.parametrize("pruned", [False, True])
def test_counters_that_went_back_give_nothing_out_twice(store, bench, claim, pruned):
    """What a lost write of the counters' page leaves, or a restore of that table alone. Were a place in the order given
    out again, the newest version of a memory would count as older than that in a snapshot, and be replaced by it."""
    write(store, "n", {f"k{n}": b"1" for n in range(6)})
    if pruned:
        store.prune_log(10**6, (1, 6))
    bench.raw().take_sequences(-4)
    (row,) = write(store, "n", {"k5": b"2"})
    assert row[1:3] == (1, 7)
    bench.raw().take_sequences(-4)
    assert store.reserve(claim, 2) == (1, 8)
    assert write(store, "n", {"k0": b"2"})[0][1:3] == (1, 10)
    assert health(store)["intact"]
    assert structure(store) == []


def test_counters_that_went_back_are_told_of_and_set_right(store, bench):
    write(store, "n", {f"k{n}": b"1" for n in range(6)})
    bench.raw().take_sequences(-4)
    if bench.engine == "valkey":  # what was given out lies beside the counters: they are read as what they should be
        assert (structure(store), store.identity().sequence) == ([], 6)
        return
    assert structure(store) == ["the store's counters stand at 1.2, behind 1.6, which was given out"]
    assert store.repair_structure() == ["set the store's counters to 1.6"]
    assert (structure(store), store.identity().sequence) == ([], 6)


def test_the_log_streams_from_an_id(store):
    write(store, "n", {f"{n}": b"1" for n in range(5)})
    with store.reader() as reader:
        assert [[e.id for e in batch] for batch in reader.log(after_id=1, batch=3)] == [[2, 3, 4], [5]]


def test_boundaries_cut_into_even_ranges(store, claim, bench):
    def even(total, parts, slack):
        """Strictly ascending cuts, each as near to its place as its engine can tell."""
        with store.reader() as reader:
            cut = [int(key) for key in reader.boundaries("n", parts)]
        assert len(cut) == parts - 1
        assert cut == sorted(set(cut))
        assert [abs(n - total * (i + 1) // parts) <= slack for i, n in enumerate(cut)] == [True] * (parts - 1)

    write(store, "n", {f"{n:04}": b"x" for n in range(1000)})
    even(1000, 4, 50)
    with store.reader() as reader:
        assert reader.boundaries("n", 1) == []
    generation = store.begin_generation(claim)
    even(1000, 4, 50)
    store.load(claim, generation, [row("n", f"{n:06}", 1, n + 1, 1, b"") for n in range(100_000)])
    store.switch(claim, generation, store.generations("n")[0])
    even(100_000, 3, 3000)
    write(store, "tiny", {"only": b"x"})
    with store.reader() as reader:
        assert reader.boundaries("tiny", 4) in ([], ["only"])


def test_tombstones_go_while_they_lie_there_as_they_were_read(store, claim, bench):
    rows = {row[0]: row for row in write(store, "n", dict.fromkeys(("live", "again", *KEYS), b"1"))}
    rows = {row[0]: row for row in write(store, "n", dict.fromkeys(("again", "flipped", *KEYS)))}
    (later,) = write(store, "n", {"again": b"2"})
    bench.raw().set("n", "flipped", checksum=bytes(32))
    assert store.drop_tombstones("n", []) == 0
    other = bench.open()  # a reader sees them until it is closed, or that the namespace has moved
    with other.reader() as reader:
        assert store.drop_tombstones("n", list(rows.values())) == len(KEYS)
        assert len(reader.get_many("n", KEYS)) == len(KEYS) or reader.moved("n")
    other.close()
    assert keys_of(store, "n") == ["again", "flipped", "live"]
    assert store.drop_tombstones("n", list(rows.values())) == 0
    with store.reader() as reader:
        assert reader.get_many("n", ["again"]) == {"again": later} and reader.count("n") == 3
        newest = {w.key: w.operation for batch in reader.last_writes("n") for w in batch}
        assert {newest[key] for key in KEYS} == {"delete"}  # the log still says so
    assert health(store)["intact"] and structure(store) == []
    write(store, "n", {"live": None})
    gone = all_rows(store, "n", after="flipped")
    store.fence(claim)
    with pytest.raises(NamespaceQuarantined):
        store.drop_tombstones("n", gone)
    store.unfence(claim)
    assert store.drop_tombstones("n", gone) == 1
