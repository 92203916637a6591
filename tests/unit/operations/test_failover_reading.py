# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A secondary that may not take writes serves reads, and is left again with nothing to merge."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, NamespaceReadOnly
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import failover
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.operations.test_rebuild_failover import Pair
from tests.unit.operations.test_rebuild_kills import chosen, copy, instants_of, killed


def served_read_only(folder, bench=None):
    """A pair whose home is isolated: what the secondary held then, and what its promotion said."""
    pair = Pair(folder, bench)
    with pair.home.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(20)})
        memory.write_many(OTHER, {"o": 1})
    pair.warm()
    pair.home.step("isolate", attempt())
    return pair


def open_incidents(site):
    with site.open() as store:
        return [one.incident for one in store.incidents(NS) if one.state == "open"]


@pytest.fixture
def pair(tmp_path, bench):
    return served_read_only(tmp_path / "site", bench)


def test_reads_are_served_writes_refused_and_nothing_is_left_behind(pair):
    epoch = pair.epoch(pair.away)
    rehearsed = pair.take_over("reading", check=True)
    assert rehearsed["changed"] and not rehearsed["performed"] and pair.away.state() == "standby"
    first = pair.take_over("reading")
    assert first["performed"] and first["changed"] and first["fit"] and first["accepts_reads"]
    assert first["accepts_writes"] is False and pair.away.state() == "reading"
    again = pair.take_over("reading", attempt(takeover=pair.run.attempt))
    assert again["performed"] and not again["changed"] and again["fit"] and again["accepts_reads"]
    assert again["accepts_writes"] is False and again["lag_seconds"] == first["lag_seconds"]
    assert pair.epoch(pair.away) == epoch
    assert pair.away.served() == {f"k{n}": n for n in range(20)}
    with pair.away.memory() as memory:
        with pytest.raises(NamespaceReadOnly, match="served read-only"):
            memory.write(NS, "k1", 2)
        with pytest.raises(NamespaceReadOnly, match="served read-only"):
            memory.delete(NS, "k1")
    with pytest.raises(CannotProceed, match="serves read-only") as caught:
        pair.warm()
    assert "fail back" in caught.value.next_step
    rows = pair.away.rows()
    rehearsed = pair.take_over("standby", check=True)
    assert rehearsed["changed"] and not rehearsed["took_writes"] and pair.away.state() == "reading"
    left = pair.take_over("standby")
    assert left["changed"] and left["took_writes"] is False and pair.away.rows() == rows
    again = pair.take_over("standby")
    assert not again["changed"] and again["took_writes"] is False
    assert pair.away.state() == "standby" and open_incidents(pair.away) == []


def test_a_copy_that_may_take_writes_after_all_does_and_then_there_is_something_to_bring_home(pair):
    pair.take_over("reading")
    promoted = pair.take_over("serving", above_epoch=pair.epoch(pair.home))
    assert promoted["performed"] and promoted["changed"] and promoted["accepts_writes"]
    with pair.away.memory() as memory:
        memory.write(NS, "k1", "away")
    with pytest.raises(CannotProceed, match="takes writes in this copy") as caught:
        pair.take_over("reading")
    assert "failback" in caught.value.next_step and pair.away.state() == "serving"
    assert pair.take_over("standby")["took_writes"] is True


def test_a_copy_that_is_damaged_does_not_serve_reads(pair):
    pair.away.raw.set(NS, "k1", payload=bytes(40))
    refused = pair.take_over("reading")
    assert not refused["fit"] and not refused["performed"] and pair.away.state() == "standby"


def test_a_promotion_that_was_killed_is_finished_by_the_same_call(tmp_path):
    pair = served_read_only(tmp_path / "site")
    copy(pair.away, tmp_path / "rehearsal")
    kinds = instants_of(lambda: Pair(tmp_path / "rehearsal").take_over("reading"))
    points = chosen(kinds)
    assert points
    for number in points:
        copy(pair.away, tmp_path / f"at{number}")
        here = Pair(tmp_path / f"at{number}")
        assert killed(number, lambda here=here: here.take_over("reading"))
        second = attempt(takeover=here.run.attempt)
        done = here.take_over("reading", second)
        assert done["performed"] and done["accepts_reads"] and here.away.state() == "reading"
        assert not here.take_over("reading", second)["changed"]
        left = here.take_over("standby", second)
        assert left["took_writes"] is False and open_incidents(here.away) == []


def test_a_promotion_to_writes_that_was_killed_never_hides_what_was_written_then(tmp_path):
    pair = served_read_only(tmp_path / "site")
    pair.take_over("reading")

    def promote(here):
        return here.take_over("serving", attempt(takeover=pair.run.attempt), above_epoch=here.epoch(here.home))

    copy(pair.away, tmp_path / "rehearsal")
    kinds = instants_of(lambda: promote(Pair(tmp_path / "rehearsal")))
    for number in chosen(kinds):
        copy(pair.away, tmp_path / f"at{number}")
        here = Pair(tmp_path / f"at{number}")
        assert killed(number, lambda here=here: promote(here))
        took = here.away.state() == "serving"
        with here.away.open() as store:
            holder = next(one.attempt for one in store.incidents(NS) if one.state == "open")
        left = here.take_over("standby", attempt(takeover=holder))
        assert left["took_writes"] or not took


def test_who_was_never_served_from_may_have_something(pair):
    assert pair.take_over("standby")["took_writes"] is True
    with pair.away.open() as store:
        assert failover.accepts_writes(store, NS) is False
