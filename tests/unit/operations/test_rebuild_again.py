# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""After a rebuild: the next incident, an undo, a diagnosis that starts over, small damage that is easily overlooked."""

from __future__ import annotations

import glob
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, isolate
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import monitor_step as watching
from tests.unit.operations.runbook import NS, Site, attempt


def filled(site):
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n:02d}": n for n in range(30)})
    site.backup()
    return site


@pytest.fixture
def site(bench, tmp_path):
    return filled(Site(tmp_path / "site", bench=bench))


def test_what_one_incident_settled_is_no_loss_of_the_next(site):
    """A bulk write was undone and two records were lost; the next incident is about one flipped byte."""
    with site.memory() as memory:
        memory.write_many(NS, {"gone": 1, "older": 1})
        site.backup()
        memory.write_many(NS, {"gone2": 2, "older": 2})
    site.unlocked({f"k{n:02d}": "forged" for n in range(10)})
    site.raw.remove(NS, ["gone2", "older"])
    run = attempt()
    first = site.rebuild("soft", run=run)
    assert first["plan"]["lost_keys"] == ["gone2", "older"] and len(first["plan"]["suspect_keys"]) == 10
    site.step("baseline", run)
    site.close_incident()
    served = site.served()
    assert served["older"] == 1
    site.raw.set(NS, "k20", payload=bytes(40))
    second = site.rebuild("soft")
    assert second["plan"]["records"]["repair"] == 1
    assert not second["plan"]["lost_keys"] and not second["plan"]["suspect_keys"]
    assert site.served() == served


def test_a_valid_bulk_write_alone_is_taken_out_of_service(site):
    """Nothing is damaged, so an integrity scan passes; the plan must not be 'none'."""
    site.unlocked({"k01": "forged", "new": "forged"})
    done = site.rebuild("auto")
    assert done["plan"]["strategy"] == "soft" and done["plan"]["suspect_keys"] == ["k01", "new"]
    served = site.served()
    assert served["k01"] == 1 and "new" not in served


def test_nothing_wrong_plans_nothing(site):
    rows = site.rows()
    done = site.rebuild("auto")
    assert done["plan"]["strategy"] == "none" and not done["apply"]["changed"]
    assert site.rows() == rows


def test_a_copy_older_than_a_deletion_does_not_come_back(site):
    with site.memory() as memory:
        memory.delete(NS, "k05")
        memory.write(NS, "k05", "written again")
    site.raw.remove(NS, ["k05"])
    done = site.rebuild("soft")
    assert done["plan"]["lost_keys"] == ["k05"]
    assert "k05" not in site.served()


def test_a_locked_write_inside_a_burst_of_unlocked_ones_stays_good(site):
    site.unlocked({"first": "forged"})
    with site.memory() as memory:
        memory.write_many(NS, {"k07": "locked, in between", "k08": "locked, in between"})
    site.backup()
    with site.memory() as memory:
        memory.write(NS, "k08", "locked, later")
    site.unlocked({"k07": "forged", "last": "forged"})
    site.raw.remove(NS, ["k08"])
    done = site.rebuild("soft")
    assert done["plan"]["lost_keys"] == ["k08"]
    served = site.served()
    assert served["k07"] == served["k08"] == "locked, in between"


@pytest.mark.parametrize("change", ["sequence = 999999", "epoch = 9", "operation = 'delete', sequence = 999999"])
def test_a_damaged_log_entry_takes_no_good_record_away(tmp_path, change):
    site = filled(Site(tmp_path / "site"))
    rows = site.rows()
    with site.sql() as con:
        con.execute(f"UPDATE memory_access_log SET {change} WHERE key = 'k09'")
    done = site.rebuild("soft")
    assert done["plan"]["could_not_verify"] and not done["plan"]["lost_keys"]
    assert site.rows() == rows


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_forged_tombstone_over_a_record_that_nobody_has_is_a_loss(site, strategy):
    with site.memory() as memory:
        memory.write(NS, "fresh", 1)
    site.unlocked({"fresh": None, "k03": None}, logged=False, deleted=True)
    done = site.rebuild(strategy)
    assert done["plan"]["lost_keys"] == ["fresh"]
    assert site.served()["k03"] == 3


def test_it_is_counted_of_how_many_lost_ones_an_older_version_serves(site):
    with site.memory() as memory:
        memory.write_many(NS, {"fresh": 1, "k05": "newer"})
    site.raw.remove(NS, ["fresh", "k05"])
    plan = site.rebuild("soft")["plan"]
    assert (plan["lost_keys"], plan["lost_older"]) == (["fresh", "k05"], 1)
    assert site.served()["k05"] == 5


def test_a_broken_chunk_of_the_only_snapshot_costs_that_chunk_alone(tmp_path, bench):
    site = Site(tmp_path / "big", bench=bench)
    values = {f"k{n:04d}": os.urandom(800) for n in range(2000)}
    with site.memory() as memory:
        memory.write_many(NS, values)
    site.backup()
    (pack,) = glob.glob(os.path.join(site.folder, "repository", "snapshots", "*", "*", "packs", "*.pack"))
    with open(pack, "r+b") as stream:
        stream.seek(os.path.getsize(pack) // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    site.raw.remove(NS, [key for key in values if key.endswith("5")])
    done = site.rebuild("soft")
    records = done["plan"]["records"]
    assert records["repair"] + records["lost"] == 200 and 0 < records["lost"] < 100
    assert any("Pack" in why for why in done["diagnose"]["passed_over"])
    assert site.served() == {key: value for key, value in values.items() if key not in done["plan"]["lost_keys"]}


def test_undo_is_refused_once_the_rebuilt_namespace_was_written_to(site):
    site.raw.set(NS, "k20", payload=bytes(40))
    run = attempt()
    site.rebuild("hard", run=run)
    with site.memory() as memory:
        memory.write(NS, "after", 1)
    generation = site.generation()
    for _quarantined in (False, True):
        with site.open() as store, pytest.raises(CannotProceed, match="written to after") as caught:
            apply.undo(store=store, namespace=NS, run=run)
        site.step("isolate", run)
    assert caught.value.next_step and site.generation() == generation
    with site.open() as store:
        isolate.release(store=store, store_params=site.store, namespace=NS, run=run, force=True)
    assert site.served()["after"] == 1


def test_an_undone_rebuild_can_be_carried_out_again(site):
    site.raw.set(NS, "k20", payload=bytes(40))
    site.raw.remove(NS, ["k21"])
    with site.memory() as memory:
        memory.write(NS, "lost", 1)
    site.raw.remove(NS, ["lost"])
    run = attempt()
    site.rebuild("hard", until="validate", run=run)
    rebuilt = site.rows()
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=run)["changed"]
        assert not apply.undo(store=store, namespace=NS, run=run)["changed"]
    with pytest.raises(CannotProceed):
        site.step("release", run)
    for name in ("apply", "validate", "release"):
        site.step(name, run, **({"force": True} if name == "release" else {}))
    assert site.rows() == rebuilt


def test_a_diagnosis_that_starts_over_does_not_mix_with_what_the_former_one_began(site, monkeypatch):
    site.raw.set(NS, "k20", payload=bytes(40))
    run = attempt()
    site.rebuild("hard", until="plan", run=run)

    def stopped(self, target):
        raise CannotProceed("Stopped for the test.", "go on")

    with monkeypatch.context() as patch, pytest.raises(CannotProceed, match="for the test"):
        patch.setattr(apply.Applier, "_load_repairs", stopped)
        site.step("apply", run)
    site.raw.set(NS, "k11", payload=bytes(40))
    assert site.step("diagnose", run, again=True)["draft"]["records"]["repair"] == 2
    for name in ("plan", "apply", "validate", "release"):
        options = {"plan": {"strategy": "hard"}, "release": {"force": True}}.get(name, {})
        site.step(name, run, **options)
    assert site.served() == {f"k{n:02d}": n for n in range(30)}
    with site.open() as store:
        assert len(store.generations(NS)) == 2


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_damage_that_comes_after_the_apply_is_repaired_by_diagnosing_again(site, strategy):
    site.raw.set(NS, "k20", payload=bytes(40))
    run = attempt()
    site.rebuild(strategy, until="validate", run=run)
    site.raw.set(NS, "k02", payload=bytes(40))
    assert site.step("validate", run)["verdict"] == "fail"
    assert site.step("diagnose", run, again=True)["draft"]["records"]["repair"] == 1
    site.step("plan", run, strategy=strategy)
    assert site.step("apply", run)["changed"]
    assert not site.step("apply", run)["changed"]
    assert site.step("validate", run)["integrity"]["verdict"] == "pass"
    site.step("release", run, force=True)
    assert site.served() == {f"k{n:02d}": n for n in range(30)}


def test_a_long_plan_finds_its_copies_in_another_process(site, monkeypatch):
    monkeypatch.setattr(apply, "BATCH", 4)
    for number in range(3, 25, 2):
        site.raw.set(NS, f"k{number:02d}", payload=bytes(40))
    done = site.rebuild("hard")
    assert done["apply"]["applied"] == 11
    assert site.served() == {f"k{n:02d}": n for n in range(30)}


def test_undo_of_a_released_namespace_is_refused(site):
    site.raw.set(NS, "k20", payload=bytes(40))
    run = attempt()
    site.rebuild("hard", run=run)
    generation = site.generation()
    with site.open() as store, pytest.raises(CannotProceed, match="not quarantined"):
        apply.undo(store=store, namespace=NS, run=run)
    assert site.generation() == generation


def test_a_second_release_is_watched_anew(site):
    """Without reads the first watch has no data; the second one must not end at the first one's deadline."""
    site.raw.set(NS, "k20", payload=bytes(40))
    run = attempt()
    site.rebuild("soft", run=run)

    def watch():
        with site.open() as store:
            return watching.watch(
                store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, run=run,
                seconds=1.0, interval=0.2,
            )  # fmt: skip

    first = watch()
    assert first["verdict"] == "could-not-verify"
    again = watch()
    assert (again["verdict"], again["deadline"]) == ("could-not-verify", first["deadline"])  # over is over
    site.step("isolate", run)
    site.step("release", run, force=True)
    second = watch()
    assert second["deadline"] > first["deadline"] and second["started"] > first["ended"]
