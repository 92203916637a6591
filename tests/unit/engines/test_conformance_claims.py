# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What _store.py promises about claims, on every engine: who holds an incident, for how long, who takes it over."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    LeaseHeld,
    NamespaceUnknown,
    StaleAttempt,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from tests.unit.engines.sqlite_help import row, structure


def test_a_second_live_attempt_is_told_who_and_since_when(store, claim):
    assert store.claim("n", "attempt-1", "operator", new_incident="x") == claim
    with pytest.raises(LeaseHeld, match=r"worked on by operator \(attempt attempt-1\) since 20\d\d-.*T.*Z") as caught:
        store.claim("n", "attempt-2", "someone", new_incident="inc-2")
    assert caught.value.holder["attempt"] == "attempt-1"
    assert str(caught.value.holder["until"]) > str(caught.value.holder["since"])
    store.renew(claim)


def test_a_dead_attempt_is_taken_over_and_may_do_nothing_any_more(store, claim):
    dead, now = claim, store.clock()
    store.clock = lambda: now + 61_000_000
    newer = store.claim("n", "attempt-2", "op", new_incident="x")
    assert (newer.incident, newer.resumed, newer.token > dead.token) == ("inc-1", True, True)
    generation = store.begin_generation(newer)
    forbidden = [
        lambda: store.renew(dead),
        lambda: store.incident(dead),
        lambda: store.note(dead, a=1),
        lambda: store.end_lease(dead),
        lambda: store.close_incident(dead),
        lambda: store.fence(dead),
        lambda: store.unfence(dead),
        lambda: store.set_state(dead, "standby"),
        lambda: store.change(dead, [Change("a", None, row("n", "a", 1, 1, 1))]),
        lambda: store.reseal(dead, [("k2", b"p", b"c", "a", b"x")]),
        lambda: store.reserve(dead, 1),
        lambda: store.log_operation(dead, []),
        lambda: store.begin_generation(dead),
        lambda: store.load(dead, generation, [row("n", "a", 1, 1, 1)]),
        lambda: store.copy_generation(dead, 1, generation, after=None, limit=1, excluding=None),
        lambda: store.switch(dead, generation, 1),
        lambda: store.drop_generation(dead, generation),
        lambda: store.filled_from(dead, "s", 1, 1, 1, "d"),
        lambda: store.raise_epoch(dead, 5),
        lambda: store.import_log(dead, []),
    ]
    with store.reader() as reader:
        before = (reader.namespaces(), reader.identity, store.incidents())
    for forbid in forbidden:
        with pytest.raises(StaleAttempt, match="attempt-1 no longer holds the incident inc-1"):
            forbid()
    with store.reader() as reader:
        assert (reader.namespaces(), reader.identity, store.incidents()) == before
    assert structure(store) == []


def test_takeover_names_the_dead_attempt(store, claim):
    with pytest.raises(LeaseHeld):
        store.claim("n", "attempt-2", "op", new_incident="x", takeover="attempt-0")
    assert store.claim("n", "attempt-2", "op", new_incident="x", takeover="attempt-1").resumed


def test_a_lease_given_back_frees_the_incident(store, claim):
    store.end_lease(claim)
    with pytest.raises(StaleAttempt, match="belongs to nobody"):
        store.fence(claim)
    again = store.claim("n", "attempt-1", "op", new_incident="x")
    assert (again.incident, again.resumed) == ("inc-1", True)


def test_a_lease_from_a_clock_that_was_ahead_ends_after_ten_leases(store):
    store.create_namespace("n")
    real = store.clock()
    store.clock = lambda: real + 10**15
    store.claim("n", "a1", "op", new_incident="i", lease=60)
    store.clock = lambda: real
    with pytest.raises(LeaseHeld):
        store.claim("n", "a2", "op", new_incident="i")
    assert store.incidents("n")[0].lease_until == real + 600_000_000
    store.clock = lambda: real + 600_000_001
    assert store.claim("n", "a2", "op", new_incident="i").resumed


def test_incidents_open_and_close(store, claim):
    with pytest.raises(NamespaceUnknown):
        store.claim("absent", "a", "op", new_incident="i")
    with pytest.raises(CannotProceed, match="open incident inc-1, not inc-2"):
        store.claim("n", "attempt-1", "operator", incident="inc-2", new_incident="x")
    store.note(claim, snapshot="s-1", undo=4)
    store.note(claim, undo=None, more=[1])
    assert store.incident(claim).facts == {"snapshot": "s-1", "more": [1]}
    store.close_incident(claim)
    store.close_incident(claim)
    with pytest.raises(CannotProceed, match=r"inc-1 .* is closed"):
        store.claim("n", "attempt-1", "operator", incident="inc-1", new_incident="x")
    second = store.claim("n", "attempt-2", "op", new_incident="inc-2")
    assert not second.resumed
    assert [(i.incident, i.state) for i in store.incidents()] == [("inc-2", "open"), ("inc-1", "closed")]
    assert store.incidents("other") == []
