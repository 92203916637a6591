# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve from the secondary and come home: no acknowledged write is dropped in silence, and epochs only grow."""

from __future__ import annotations

import os
import random

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    failover_step,
    restore_step,
    snapshot,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import move, open_route
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt
from tests.unit.operations.test_rebuild_kills import chosen, copy, instants_of, killed


class Pair:
    """A home and its secondary: one keyring, one repository, one route file."""

    def __init__(self, folder, bench=None):
        self.home = Site(folder, bench=bench)
        self.away = Site(folder, bench=bench, name="secondary")
        self.route = os.path.join(self.home.folder, "route.json")
        self.run = attempt()  # that of the play that works on the secondary

    def warm(self, run=None):
        taken = self.home.backup()
        if taken["suspect"]:  # applications that delete much look like damage; here nobody else does
            Repository.open(self.home.repository).accept(NAME, taken["snapshot"], self.home.ring(), "tests")
        return self.bring(run)

    def bring(self, run=None):
        """The newest good snapshot to the secondary."""
        return restore_step.bring_back(
            store_params=self.away.store, repository=Repository.open(self.home.repository), keyring=self.home.ring(),
            name=NAME, run=run or attempt(), namespaces=[NS], create=True, as_secondary=True,
        )  # fmt: skip

    def epoch(self, site):
        with site.open() as store:
            return store.identity().epoch

    def take_over(self, state, run=None, **options):
        with self.away.open() as store:
            return failover_step.take_over(
                store=store, store_params=self.away.store, namespace=NS, open_keyring=self.away.ring,
                run=run or self.run, state=state, **options,
            )  # fmt: skip

    def fail_over(self):
        home_epoch = self.epoch(self.home)
        promoted = self.take_over("serving", above_epoch=home_epoch)
        move(open_route({"path": self.route, "default": self.home.store}, NS, target=self.away.store))
        return promoted

    def snapshot_of_secondary(self):
        return snapshot.create(
            store_params=self.away.store, repository=self.home.repository, keyring=self.home.ring(), name=NAME,
            purpose="failback", namespaces=[NS],
        )["snapshot"]  # fmt: skip

    def come_home(self, delta, since_epoch, run, **options):
        with self.home.open() as store:
            return failover_step.come_home(
                store=store, store_params=self.home.store, namespace=NS, **self.home.places(), snapshot=delta,
                since_epoch=since_epoch, run=run, **options,
            )  # fmt: skip

    def release_home(self, run):
        with self.home.open() as store:
            from ansible_collections.memops.agent_memory.plugins.module_utils._operations import isolate

            away = failover_step.routed_away(self.route, NS, self.home.store)
            return isolate.release(
                store=store, store_params=self.home.store, namespace=NS, run=run, route_away=away, force=True
            )


@pytest.fixture
def pair(tmp_path, bench):
    return Pair(tmp_path / "site", bench)


def written_in_three_places(pair):
    """Writes before the secondary was filled, at home after it, and on the secondary; what each wrote last."""
    rng = random.Random(random.randrange(1 << 32))
    values = {f"k{n:02d}": {"at": "start", "n": n} for n in range(20)}
    with pair.home.memory() as memory:
        memory.write_many(NS, values)
        memory.write_many(OTHER, {"o": 1})
    pair.warm()
    at_home = {key: {"at": "home", "key": key} for key in [*rng.sample(sorted(values), 8), "only home"]}
    with pair.home.memory() as memory:
        memory.write_many(NS, at_home)
        memory.delete(NS, "k00")
        at_home["k00"] = None
    run = attempt()
    pair.home.step("isolate", run)
    promoted = pair.fail_over()
    assert promoted["performed"] and promoted["fit"] and promoted["accepts_writes"] is True
    away = {key: {"at": "away", "key": key} for key in [*rng.sample(sorted(values), 8), "only away", "k00"]}
    with pair.away.memory() as memory:
        memory.write_many(NS, away)
        memory.delete(NS, "k01")
        away["k01"] = None
    return run, promoted, values, at_home, away


def test_every_acknowledged_write_comes_home_or_is_listed_as_a_conflict(pair):
    run, promoted, values, at_home, away = written_in_three_places(pair)
    elsewhere = pair.home.untouched()
    with pytest.raises(NamespaceQuarantined), pair.home.memory() as memory:
        memory.write(NS, "k05", "no")
    with pytest.raises(CannotProceed, match="two homes") as caught:
        pair.release_home(run)
    assert "failback" in caught.value.next_step and pair.home.state() == "quarantined"
    pair.take_over("standby")
    with pytest.raises(NamespaceQuarantined), pair.away.memory() as memory:
        memory.write(NS, "k05", "no")
    delta = pair.snapshot_of_secondary()
    first = pair.come_home(delta, promoted["epoch"], run)
    assert first["merged"] == len(away) and first["changed"]
    expected = {**values, **at_home, **away}
    expected = {key: value for key, value in expected.items() if value is not None}
    conflicts = sorted(set(at_home) & set(away))
    assert conflicts and sorted(first["conflict_keys"]) == conflicts and first["conflicts"] == len(conflicts)
    aside = pair.home.aside()
    for key in conflicts:
        former = aside[key][-1]
        assert former[6] is not None if at_home[key] is None else pair.home.value_of(former) == at_home[key]
    rows, epoch = pair.home.rows(), pair.epoch(pair.home)
    with pair.home.open() as store, store.reader() as reader:
        logged = {write.key: (write.epoch, write.sequence) for batch in reader.last_writes(NS) for write in batch}
    assert all(logged[key] == rows[key][1:3] for key in away), "the evidence of the secondary's writes stayed there"
    assert epoch > promoted["epoch"]
    second = pair.come_home(delta, promoted["epoch"], run)
    assert second["merged"] == 0 and not second["changed"] and pair.epoch(pair.home) == epoch
    assert pair.home.rows() == rows
    move(open_route({"path": pair.route}, NS))
    assert pair.release_home(run)["changed"]
    assert pair.home.served() == expected
    assert pair.home.untouched()[0] == elsewhere[0]
    with pair.home.memory() as memory:
        memory.write(NS, "next", 1)
    newest = pair.home.rows()["next"]
    assert newest[1] == epoch and (newest[1], newest[2]) > max((r[1], r[2]) for r in rows.values())
    with pair.home.open() as store, store.reader() as reader:
        assert reader.log_health()["intact"]


def test_a_delete_on_the_secondary_of_what_it_never_had_deletes_nothing(pair):
    with pair.home.memory() as memory:
        memory.write(NS, "old", 1)
    pair.warm()
    with pair.home.memory() as memory:
        memory.write(NS, "after the backup", 2)
    run = attempt()
    pair.home.step("isolate", run)
    promoted = pair.fail_over()
    with pair.away.memory() as memory:
        assert memory.delete(NS, "after the backup") is False and memory.delete(NS, "old") is True
    pair.take_over("standby")
    pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
    move(open_route({"path": pair.route}, NS))
    pair.release_home(run)
    assert pair.home.served() == {"after the backup": 2}


def test_what_was_damaged_at_home_meanwhile_does_not_stop_the_merge(pair):
    run, promoted, _values, _at_home, away = written_in_three_places(pair)
    key = sorted(away)[3]
    pair.home.raw.set(NS, key, epoch=77, payload=b"\0")
    pair.take_over("standby")
    result = pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
    assert result["merged"] == len(away)
    assert pair.home.value_of(pair.home.rows()[key]) == away[key]


def test_a_secondary_that_is_damaged_empty_or_old_is_not_promoted(pair):
    with pair.home.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(5)})
    pair.warm()
    assert not pair.take_over("serving", rpo=0.0)["fit"]
    pair.away.raw.set(NS, "k1", payload=bytes(40))
    refused = pair.take_over("serving")
    assert not refused["fit"] and not refused["performed"] and "does not verify" in refused["reason"]
    assert pair.away.state() == "standby"


def test_epochs_grow_with_every_promotion(pair):
    with pair.home.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(5)})
    seen = [pair.epoch(pair.home)]
    for turn in range(3):
        pair.warm()
        run = attempt()
        pair.home.step("isolate", run)
        promoted = pair.fail_over()
        seen.append(promoted["epoch"])
        with pair.away.memory() as memory:
            memory.write(NS, f"turn{turn}", turn)
        pair.take_over("standby")
        pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
        seen.append(pair.epoch(pair.home))
        move(open_route({"path": pair.route}, NS))
        pair.release_home(run)
        for site in (pair.home, pair.away):
            with site.open() as store:
                if any(one.state == "open" for one in store.incidents(NS)):
                    site.close_incident()
    assert seen == sorted(set(seen))
    assert {f"turn{n}" for n in range(3)} <= set(pair.home.served())


def test_a_backup_does_not_refill_a_secondary_whose_writes_are_not_home_yet(pair):
    run, promoted, _values, _at_home, _away = written_in_three_places(pair)
    pair.take_over("standby")
    before = pair.away.rows()
    with pytest.raises(CannotProceed, match="take its writes away") as caught:
        pair.warm()
    assert "failback" in caught.value.next_step
    assert pair.away.rows() == before
    pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
    move(open_route({"path": pair.route}, NS))
    pair.release_home(run)
    assert pair.warm()["changed"]
    assert pair.away.served() == pair.home.served()


def test_where_all_backups_since_a_failback_are_suspect_their_acceptance_is_named(pair):
    with pair.home.memory() as memory:
        for number in range(40):
            memory.write(NS, f"many{number}", number)
    run, promoted, _values, _at_home, _away = written_in_three_places(pair)
    pair.take_over("standby")
    pair.come_home(pair.snapshot_of_secondary(), promoted["epoch"], run)
    move(open_route({"path": pair.route}, NS))
    pair.release_home(run)
    with pair.home.memory() as memory:
        for number in range(40):
            memory.delete(NS, f"many{number}")
    suspect = pair.home.backup()
    assert suspect["suspect"]
    with pytest.raises(CannotProceed, match="take its writes away") as caught:
        pair.bring()
    assert f"memops.agent_memory.accept -e memory_snapshot={suspect['snapshot']}" in caught.value.next_step
    assert pair.warm()["changed"] and pair.away.served() == pair.home.served()


def test_a_merge_that_was_killed_is_finished_by_the_same_call(tmp_path):
    pair = Pair(tmp_path / "site")
    run, promoted, _values, _at_home, away = written_in_three_places(pair)
    pair.take_over("standby")
    delta = pair.snapshot_of_secondary()
    copy(pair.home, tmp_path / "rehearsal")
    rehearsal = Pair(tmp_path / "rehearsal")
    kinds = instants_of(lambda: rehearsal.come_home(delta, promoted["epoch"], run))
    for number in chosen(kinds):
        copy(pair.home, tmp_path / f"at{number}")
        here = Pair(tmp_path / f"at{number}")
        assert killed(number, lambda here=here: here.come_home(delta, promoted["epoch"], run))
        here.come_home(delta, promoted["epoch"], attempt(takeover=run.attempt))
        again = here.come_home(delta, promoted["epoch"], attempt(takeover=_holder(here.home)))
        assert not again["changed"]
        assert here.home.rows().keys() == rehearsal.home.rows().keys()
        for key, value in away.items():
            row = here.home.rows()[key]
            assert row[6] is not None if value is None else here.home.value_of(row) == value
        assert here.epoch(here.home) > promoted["epoch"]


def _holder(site):
    with site.open() as store:
        return next(one.attempt for one in store.incidents(NS) if one.state == "open")
