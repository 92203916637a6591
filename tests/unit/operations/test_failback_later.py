# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator does at home before and after the secondary's writes come there takes none of them away."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite import SqliteStore
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, incident, isolate
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.operations.test_rebuild_failover import Pair


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path / "site")


@pytest.fixture
def unheard(monkeypatch):
    """unheard("fence", act): the store does that, and nobody hears of it."""

    def lose(name, act):
        does = getattr(SqliteStore, name)

        def lost(*given):
            does(*given)
            raise StoreUnavailable("The connection was lost.", "run the same command again")

        with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
            patch.setattr(SqliteStore, name, lost)
            act()

    return lose


def damaged_and_served_away(pair):
    """A home with a damaged record and a missing one, isolated; the secondary serves."""
    with pair.home.memory() as memory:
        memory.write_many(NS, {f"k{n:02d}": n for n in range(20)})
    pair.warm()
    with pair.home.memory() as memory:
        memory.write(NS, "newest", 1)  # no snapshot has it
    pair.home.raw.set(NS, "k03", payload=bytes(40))
    pair.home.raw.remove(NS, ["k04", "newest"])
    run = attempt()
    for step in ("isolate", "forensic"):
        pair.home.step(step, run)
    return run, pair.fail_over()


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_an_undo_takes_no_write_of_the_secondary_away(pair, strategy):
    run, promoted = damaged_and_served_away(pair)
    with pair.away.memory() as memory:
        memory.write_many(NS, {"k03": "away", "k04": "away", "only away": 1})
    for step in ("diagnose", "plan", "apply"):
        pair.home.step(step, run, **({"strategy": strategy, "accept_loss": True} if step == "plan" else {}))
    pair.take_over("standby")
    pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
    merged = pair.home.rows()
    with pair.home.open() as store, pytest.raises(CannotProceed, match="secondary"):
        apply.undo(store=store, store_params=pair.home.store, namespace=NS, run=run)
    assert pair.home.rows() == merged


def test_what_a_tombstone_of_a_later_epoch_beats_is_a_conflict_and_kept(pair):
    """Another namespace's failback raises the epoch at home, before the rebuild there marks what it lost."""
    run, promoted = damaged_and_served_away(pair)
    with pair.away.memory() as memory:
        memory.write(NS, "newest", "away")
    with pair.home.open() as store:
        store.create_namespace(OTHER)
        store.raise_epoch(incident.claim(store, OTHER, attempt()), promoted["epoch"])
    for step in ("diagnose", "plan", "apply"):
        pair.home.step(step, run, **({"accept_loss": True} if step == "plan" else {}))
    assert pair.home.rows()["newest"][1] > promoted["epoch"]
    pair.take_over("standby")
    delta = pair.snapshot_of_secondary()
    result = pair.come_home(delta, promoted["epoch"], run)
    assert result["conflict_keys"] == ["newest"]
    assert [pair.home.value_of(row) for row in pair.home.aside()["newest"] if row[6] is None] == ["away"]
    again = pair.come_home(delta, promoted["epoch"], run)
    assert not again["changed"] and len(pair.home.aside()["newest"]) == 1


@pytest.mark.parametrize("logged", [True, False])
def test_what_a_damaged_secondary_cannot_give_keeps_the_home_quarantined_and_is_listed(pair, logged):
    run, promoted = damaged_and_served_away(pair)
    for step in ("diagnose", "plan", "apply"):
        pair.home.step(step, run, **({"accept_loss": True} if step == "plan" else {}))
    with pair.away.memory() as memory:
        memory.write_many(NS, {"k03": "away", "k04": "away", "k05": "away", "only away": 1})
    if logged:
        pair.away.raw.set(NS, "k03", payload=bytes(40))
        pair.away.raw.set(NS, "k05", epoch=1)
    pair.away.raw.remove(NS, ["only away"])
    if not logged:
        with pair.away.sql() as con:
            con.execute("DELETE FROM memory_access_log WHERE key = 'only away'")
    stood = pair.take_over("standby")
    delta = pair.snapshot_of_secondary()
    assert stood["log_intact"] is logged and pair.take_over("standby")["log_intact"] is logged
    options = {"delta": delta, "since_epoch": promoted["epoch"], "run": run, "log_intact": stood["log_intact"]}
    for _turn in range(2):
        with pytest.raises(CannotProceed, match="'k03', 'k05', 'only away'" if logged else "has gaps") as caught:
            pair.come_home(**options)
    assert "memory_accept_loss=true" in caught.value.next_step
    with pair.home.open() as store, pytest.raises(CannotProceed):  # nobody judged what came home
        isolate.release(store=store, store_params=pair.home.store, namespace=NS, run=run)
    done = pair.come_home(**options, accept_loss=True)
    assert done["lost_keys"] == (["k03", "k05", "only away"] if logged else [])
    assert done["lost"] == len(done["lost_keys"])
    assert pair.home.value_of(pair.home.rows()["k04"]) == "away"


def test_what_the_secondary_deleted_is_not_taken_for_lost(pair):
    run, promoted = damaged_and_served_away(pair)
    for step in ("diagnose", "plan", "apply"):
        pair.home.step(step, run, **({"accept_loss": True} if step == "plan" else {}))
    with pair.away.memory() as memory:
        memory.write_many(NS, {"k05": "away", "hard": 1, "soft": 2})
        memory.delete(NS, "hard", soft=False)
        memory.delete(NS, "soft")
        memory.delete(NS, "k06", soft=False)
    assert pair.take_over("standby")["log_intact"]
    assert pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)["lost"] == 0


def test_a_promotion_that_nobody_heard_of_keeps_what_the_secondary_takes(pair, unheard):
    with pair.home.memory() as memory:
        memory.write(NS, "k", "home")
    pair.warm()
    pair.home.step("isolate", attempt())
    unheard("set_state", pair.fail_over)
    assert pair.fail_over()["accepts_writes"]
    with pair.away.memory() as memory:
        memory.write(NS, "k", "away")
    assert pair.take_over("standby")["epoch"] == pair.epoch(pair.away)
    with pytest.raises(CannotProceed, match="refilling it would take its writes away"):
        pair.bring()


def test_a_copy_that_stands_by_and_nobody_heard_of_it_is_filled_again(pair, unheard):
    with pair.home.memory() as memory:
        memory.write(NS, "k", "home")
    pair.warm()
    run = attempt()
    pair.home.step("isolate", run)
    promoted = pair.fail_over()
    with pair.away.memory() as memory:
        memory.write(NS, "k", "away")
    unheard("set_state", lambda: pair.take_over("standby"))
    assert pair.take_over("standby")["changed"] and not pair.take_over("standby")["changed"]
    delta = pair.snapshot_of_secondary()
    unheard("import_log", lambda: pair.come_home(delta, promoted["epoch"], run))
    merged = pair.come_home(delta, promoted["epoch"], run)
    assert merged["first_write_at"] and pair.home.facts()["first_write_at"] == merged["first_write_at"]
    pair.home.step("release", run, force=True)
    assert pair.warm()["changed"]


def test_what_came_home_is_repaired_from_the_backup_that_the_secondary_took(pair):
    with pair.home.memory() as memory:
        memory.write(NS, "k", "home")
    pair.warm()
    run = attempt()
    pair.home.step("isolate", run)
    pair.fail_over()
    with pair.away.memory() as memory:
        memory.write(NS, "k", "away")
    pair.away.backup()
    epoch = pair.take_over("standby")["epoch"]
    pair.come_home(pair.snapshot_of_secondary(), epoch, run)
    pair.home.raw.set(NS, "k", payload=bytes(40))
    assert pair.home.rebuild("soft", run=run)["diagnose"]["passed_over"] == []
    assert pair.home.value_of(pair.home.rows()["k"]) == "away"
