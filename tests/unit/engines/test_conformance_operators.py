# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What _store.py promises operators, on every engine: the fence, compare-and-set, generations, copies."""
from __future__ import annotations

import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    NamespaceUnknown,
    RepositoryRefused,
    StaleAttempt,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change, Claim, LogEntry
from tests.unit.engines.sqlite_help import all_rows, entries, health, keys_of, row, write


def asides(store, namespace="n", incident=None):
    with store.reader() as reader:
        return [item for batch in reader.aside(namespace, incident) for item in batch]


def log_of(store, namespace="n"):
    with store.reader() as reader:
        return [e for batch in reader.log(namespace) for e in batch]


# --- the fence ------------------------------------------------------------------------------------------------------
def refusals(client, key="a"):
    """{what a raw client tried: whether it was refused}."""
    found = {}
    for name, attempt in client.writes(key).items():
        try:
            attempt()
            found[name] = False
        except client.errors as exc:
            found[name] = client.refusal(exc)
    return found


def test_a_raw_client_that_was_connected_before_meets_the_fence(store, claim, bench):
    store.close()
    store = bench.open()
    rows = write(store, "n", {"a": b"1", "b": b"2"})
    client = bench.raw().client()
    assert client.read() >= 2
    store.fence(claim)
    tried = refusals(client)
    assert tried == dict.fromkeys(tried, True)
    assert all_rows(store, "n") == rows
    if "fence-raw-reads" in store.capabilities():
        assert not client.sees()
    store.change(claim, [Change("a", rows[0][9], rows[0][:8] + (b"2", b"c" * 32))])  # an operator's own work
    tried = refusals(client)
    assert tried == dict.fromkeys(tried, True)
    store.unfence(claim)
    assert client.read() >= 2
    assert not all(refusals(client).values())
    client.close()
    store.close()


def test_fence_and_release_bring_back_exactly_the_former_policy(store, claim, bench):
    for prior_state, prior_ttl in (("serving", None), ("standby", 30.0)):
        bench.raw().policy("n", prior_state, prior_ttl)
        with store.reader() as reader:
            before = reader.namespace("n")
        assert (store.fence(claim), store.fence(claim)) == (True, False)
        with store.reader() as reader:
            now = reader.namespace("n")
        assert (now.state, now.serving_ttl, now.incident) == ("quarantined", 1.0, "inc-1")
        assert (now.prior_state, now.prior_ttl) == (prior_state, prior_ttl)
        assert (store.unfence(claim), store.unfence(claim)) == (True, False)
        with store.reader() as reader:
            assert reader.namespace("n") == before
    assert [e.operation for e in log_of(store)] == ["fence", "release", "fence", "release"]
    assert health(store)["intact"]


def test_a_quarantine_of_a_closed_incident_is_inherited(store, claim):
    store.fence(claim)
    store.close_incident(claim)
    second = store.claim("n", "attempt-2", "op", new_incident="inc-2")
    assert (store.fence(second), store.fence(second)) == (True, False)
    store.unfence(second)
    with store.reader() as reader:
        assert (reader.namespace("n").state, reader.namespace("n").serving_ttl) == ("serving", None)


def test_the_state_that_a_release_brings_back_can_be_set_in_the_quarantine(store, claim):
    assert (store.set_state(claim, "standby"), store.set_state(claim, "standby")) == (True, False)
    store.fence(claim)
    assert (store.set_state(claim, "serving"), store.set_state(claim, "serving")) == (True, False)
    with store.reader() as reader:
        assert reader.namespace("n").state == "quarantined"
    store.unfence(claim)
    write(store, "n", {"a": b"1"})
    with pytest.raises(InvalidInput):
        store.set_state(claim, "quarantined")


@pytest.mark.parametrize("items", [{}, {"a": b"1", "b": b"2"}])
def test_the_proof_is_honest_and_leaves_no_trace(store, claim, bench, items):
    if items:
        write(store, "n", items)
    open_proof = store.prove("n")
    assert not open_proof["writes_refused"]
    assert not open_proof["reads_refused"]
    assert any("accepted" in line for line in open_proof["detail"])
    store.fence(claim)
    proof = store.prove("n")
    assert proof["writes_refused"]
    assert proof["reads_refused"]
    assert not any("accepted" in line for line in proof["detail"])
    assert isinstance(proof["not_fenced"], list)
    bench.raw().break_fence("n")
    assert not store.prove("n")["writes_refused"]
    store.repair_structure()
    assert store.repair_structure() == []
    store.fence(claim)
    assert store.prove("n")["writes_refused"]
    store.unfence(claim)
    assert keys_of(store, "n") == sorted(items)
    with store.reader() as reader:
        assert reader.log_health()["intact"]
        assert reader.structure() == []


def test_the_proof_changes_nothing_at_all(store, claim):
    def everything():
        with store.reader() as reader:
            log = [e for batch in reader.log() for e in batch]
            return log, reader.namespaces(), reader.identity, store.incidents(), store.generations("n")

    before = everything()
    store.prove("n")
    assert everything() == before


# --- compare-and-set ------------------------------------------------------------------------------------------------
def test_change_is_compare_and_set_and_idempotent(store, claim):
    a, b, c = write(store, "n", {"a": b"1", "b": b"2", "c": b"3"})
    other = b"o" * 32
    better = row("n", "a", a[1], a[2], a[4], b"better")
    fresh = row("n", "d", 1, 2, 7, b"new")
    changes = [
        Change("a", a[9], better, "was bad"),
        Change("b", other, row("n", "b", 1, 1, 1)),  # the live row differs
        Change("c", c[9], None, "not wanted"),
        Change("d", None, fresh),
        Change("b", None, row("n", "b", 1, 1, 1)),  # it is there
        Change("e", other, fresh[:0] + row("n", "e", 1, 1, 1)),  # it is not there
        Change("f", other, None),  # away already
    ]
    assert store.change(claim, changes) == ["b", "b", "e"]
    assert all_rows(store, "n") == [better, b, fresh]
    assert asides(store) == [("inc-1", "was bad", a), ("inc-1", "not wanted", c)]
    assert store.change(claim, changes) == ["b", "b", "e"]
    assert len(asides(store)) == 2
    assert (asides(store, incident="inc-2"), asides(store, incident="inc-1")) == ([], asides(store))
    assert health(store)["intact"]


def test_a_damaged_payload_under_an_unchanged_checksum_is_replaced(store, claim, bench):
    good = write(store, "n", {"a": b"1"})[0]
    bench.raw().set("n", "a", payload=b"\xff")
    assert store.change(claim, [Change("a", good[9], good, "flipped")]) == []
    assert all_rows(store, "n") == [good]
    assert asides(store)[0][2][8] == b"\xff"


def test_a_second_change_of_a_key_sees_the_first(store, claim):
    first, second = row("n", "a", 1, 1, 1, b"1"), row("n", "a", 1, 2, 2, b"2")
    assert store.change(claim, [Change("a", None, first), Change("a", first[9], second)]) == []
    assert all_rows(store, "n") == [second]


def test_many_changes_at_once(store, claim):
    rows = [row("n", f"{n:04}", 1, n + 1, 1) for n in range(1000)]
    assert store.change(claim, [Change(r[0], None, r) for r in rows]) == []
    assert store.change(claim, [Change(r[0], r[9], None) for r in rows[::2]]) == []
    assert all_rows(store, "n") == rows[1::2]
    assert store.identity().sequence == 1000  # the counters do not fall behind the rows
    assert write(store, "n", {"x": b"1"})[0][2] == 1001


def test_an_operators_tombstone_is_logged_with_its_reserved_sequence(store, claim, bench):
    live = write(store, "n", {"a": b"1"})[0]
    epoch, first = store.reserve(claim, 5)
    assert (epoch, first) == (1, 2)
    assert health(store)["missing"] == 0  # what is reserved and not used is not missing
    grave = row("n", "a", epoch, first, live[4], b"", deleted=live[4])
    changes = [Change("a", live[9], grave, "gone bad")]
    assert (store.change(claim, changes), store.change(claim, changes)) == ([], [])
    store.log_operation(claim, entries("n", [grave]))  # a caller that logs it too makes no second entry
    assert [(e.operation, e.sequence, e.digest, e.lock) for e in log_of(store)] == [
        ("write", 1, live[9], 1),
        ("delete", 2, grave[9], 2),
    ]
    assert write(store, "n", {"b": b"1"})[0][2] == 7
    bench.raw().forget("n", 2)
    assert health(store)["missing"] == 1


def test_a_restored_tombstone_makes_no_log_entry(store, claim):
    store.change(claim, [Change("a", None, row("n", "a", 1, 9, 5, b"", deleted=5))])
    assert log_of(store) == []


# --- generations ----------------------------------------------------------------------------------------------------
def test_a_generation_is_filled_switched_and_dropped(store, claim):
    old = write(store, "n", {f"{n}": b"old" for n in range(5)})
    first = store.generations("n")[0]
    new_one = store.begin_generation(claim)
    rows = [row("n", f"{n}", 1, n + 1, 1, b"new") for n in range(3)]
    store.load(claim, new_one, rows)
    store.load(claim, new_one, rows)
    assert all_rows(store, "n") == old
    assert all_rows(store, "n", generation=new_one) == rows
    with pytest.raises(CannotProceed, match="at generation 1, not 9"):
        store.switch(claim, new_one, 9)
    assert (store.switch(claim, new_one, first), store.switch(claim, new_one, first)) == (True, False)
    assert all_rows(store, "n") == rows
    assert store.generations("n") == [first, new_one]
    for active in (lambda: store.load(claim, new_one, rows), lambda: store.drop_generation(claim, new_one)):
        with pytest.raises(CannotProceed, match="is the active one"):
            active()
    assert (store.drop_generation(claim, first), store.drop_generation(claim, first)) == (5, 0)
    assert store.begin_generation(claim) == new_one + 1
    with store.reader() as reader, pytest.raises(NamespaceUnknown):
        reader.count("n", first)


def test_other_namespaces_generations_are_out_of_reach(store, claim):
    write(store, "other", {"a": b"1"})
    foreign, mine = store.generations("other")[0], store.begin_generation(claim)
    calls = [
        lambda: store.load(claim, foreign, [row("n", "a", 1, 1, 1)]),
        lambda: store.switch(claim, foreign, store.generations("n")[0]),
        lambda: store.drop_generation(claim, foreign),
        lambda: store.copy_generation(claim, foreign, mine, after=None, limit=1, excluding=None),
    ]
    for call in calls:
        with pytest.raises(CannotProceed):
            call()
    with pytest.raises(InvalidInput):
        store.change(claim, [], foreign)


@pytest.mark.parametrize("plan", [False, True])
def test_a_generation_is_copied_in_parts(store, claim, tmp_path, plan):
    rows = write(store, "n", dict.fromkeys(["\x00", "a", "a\x00b", "b", "c", "d'\n"], b"x"))
    source, target = store.generations("n")[0], store.begin_generation(claim)
    excluding, left_out = None, set()
    if plan:
        excluding, left_out = str(tmp_path / "plan 1%.db"), {"a\x00b", "d'\n", "absent"}
        con = sqlite3.connect(excluding)
        con.execute("CREATE TABLE plan (key TEXT PRIMARY KEY, verdict TEXT)")
        con.executemany("INSERT INTO plan VALUES (?, 'lost')", [(key,) for key in left_out])
        con.commit()
        con.close()
    after, steps = None, []
    while True:
        after = store.copy_generation(claim, source, target, after=after, limit=4, excluding=excluding)
        if after is None:
            break
        steps.append(after)
    assert steps == ["b", "d'\n"]
    assert all_rows(store, "n", generation=target) == [r for r in rows if r[0] not in left_out]
    with pytest.raises(InvalidInput, match="no plan file"):
        store.copy_generation(claim, source, target, after=None, limit=4, excluding=str(tmp_path / "none.db"))


# --- copies ---------------------------------------------------------------------------------------------------------
def test_a_copy_is_filled_and_promoted(store, claim, bench):
    source = bench.open("primary")
    rows = write(source, "n", {"a": b"1", "b": b"2"})
    with source.reader() as reader:
        log = [e for batch in reader.log("n") for e in batch]
    lineage = source.identity().lineage
    assert (store.adopt_lineage(lineage), store.adopt_lineage(lineage)) == (True, False)
    generation = store.begin_generation(claim)
    store.load(claim, generation, rows)
    store.switch(claim, generation, store.generations("n")[0])
    store.filled_from(claim, "s-1", 1, 40, rows[0][4] + 7, "digest")
    assert (store.identity().epoch, store.identity().sequence) == (1, 40)
    with store.reader() as reader:
        state = reader.namespace("n")
    assert (state.restored_snapshot, state.restored_sequence, state.restored_digest) == ("s-1", 40, "digest")
    foreign = LogEntry(9, 1, "other", "write", "a", 1, 1, b"", 1, "x", None, b"")
    assert (store.import_log(claim, [*log, foreign]), store.import_log(claim, log)) == (2, 0)
    assert [e[1:] for e in log_of(store)] == [e[1:] for e in log]
    assert store.raise_epoch(claim, 4) == 5
    assert [r[1:3] for r in write(store, "n", {"c": b"1"})] == [(5, 41)]
    assert health(store) == {
        "entries": 4, "corrupt": 0, "missing": 0, "first_sequence": 1, "last_sequence": 41, "intact": True,
        "pruned": (5, 40),
    }  # fmt: skip
    with pytest.raises(RepositoryRefused, match="records of its own"):
        store.adopt_lineage("another")
    with pytest.raises(StaleAttempt):
        source.import_log(Claim("n", "inc-1", "attempt-1", 1), log)
    source.close()


def test_entries_are_imported_once_whatever_was_logged_between(store, claim):
    def entries(*sequences):
        return [LogEntry(0, 1, "n", "write", f"k{s:02d}", 1, s, b"d", 1, "x", None, bytes(32)) for s in sequences]

    def imported(*sequences):
        return store.import_log(claim, entries(*sequences))

    assert imported(3, 4, 4) == 2  # into an empty log
    assert imported(5, 6) == 2  # later ones
    assert imported(6, 7) == 1
    assert imported(1, 2, 8) == 3  # earlier ones too
    assert imported(1, 2, 3, 8) == 0
    [row] = write(store, "n", {"other": b"1"})
    assert imported(9, 10) == 2
    taken = LogEntry(0, 1, "n", "write", "other", *row[1:3], b"d", 1, "x", None, bytes(32))
    assert store.import_log(claim, [taken, *entries(11, 10)]) == 1
    assert sorted(e.sequence for e in log_of(store) if e.key.startswith("k")) == list(range(1, 12))


def test_the_proof_uses_the_applications_own_login_where_it_is(store, claim, bench, tmp_path):
    """And does without where the applications run on other hosts."""
    store.fence(claim)
    login = tmp_path / "agent.password"
    for there in (False, True):
        if there:
            login.write_text(str(bench.application().get("password")))
        opened = bench.open(application_password_file=str(login))
        proof = opened.prove("n")
        opened.close()
        assert proof["writes_refused"] and proof["reads_refused"], proof
