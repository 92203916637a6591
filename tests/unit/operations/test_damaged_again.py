# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A namespace that is damaged again after its release, while the incident is still open: the first damage tells nothing
of the second."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite import SqliteStore
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, incident, monitor_step
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, STEPS, Site, attempt

VALUES = {f"k{n:02d}": n for n in range(30)}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.read_many(NS, list(VALUES))
    site.backup()
    return site


def rebuilt(site, strategy):
    """All but released. The run that did it."""
    site.raw.set(NS, "k03", payload=bytes(40))
    run = attempt()
    for step in STEPS[:-1]:
        site.step(step, run, **({"strategy": strategy} if step == "plan" else {}))
    return run


def released(site, strategy):
    """Rebuilt and released; its watch is not over. The run that did it."""
    run = rebuilt(site, strategy)
    site.step("release", run)
    assert site.served() == VALUES
    return run


def test_what_is_damaged_after_the_release_is_repaired_in_the_same_incident(site):
    run = released(site, "hard")
    site.raw.remove(NS, ["k05", "k06"])
    site.step("isolate", run)
    with pytest.raises(CannotProceed, match="validation"):
        site.step("release", run)
    done = {step: site.step(step, run) for step in STEPS[:-1]}
    assert done["diagnose"]["findings"] == {"absent": 2} and done["validate"]["verdict"] == "pass"
    assert not any(site.step(step, run)["changed"] for step in STEPS[:-1])
    site.step("release", run)
    assert site.served() == VALUES
    forensic = [one for one in Repository.open(site.repository).snapshots(NAME) if one.purpose == "forensic"]
    assert sorted(one.namespaces[NS]["records"] for one in forensic) == [29, 31]


def test_the_verdict_of_a_watch_is_none_of_a_later_release(site):
    """The watch passed and was killed before it closed the incident; what was damaged then is watched anew."""
    run = released(site, "soft")
    with site.open() as store:
        claim = incident.claim(store, NS, run)
        at = site.facts()["released_at"]
        store.note(claim, watch_released=at, watch_until=at, monitored={"verdict": "pass"})

    def watch():
        with site.open() as store:
            return monitor_step.watch(
                store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, run=run,
                check=True,
            )  # fmt: skip

    assert watch()["verdict"] == "pass"
    site.raw.remove(NS, ["k05"])
    for step in STEPS:
        site.step(step, run)
    assert watch()["verdict"] == "could-not-verify"


def test_a_diagnosis_from_before_the_release_repairs_nothing(site):
    run = released(site, "soft")
    site.step("isolate", run)
    with site.open() as store:
        apply.undo(store=store, store_params=site.store, namespace=NS, run=run)
    site.step("forensic", run)
    with pytest.raises(CannotProceed, match="released since it was diagnosed"):
        site.step("apply", run)
    for step in STEPS[2:]:
        site.step(step, run)
    assert site.served() == VALUES


def test_a_rehearsal_after_a_release_that_was_forced_goes_through(site):
    site.raw.set(NS, "k03", payload=bytes(40))
    run = attempt()
    site.rebuild(until="plan", run=run)
    site.step("release", run, force=True)
    rows = site.rows()
    assert site.step("apply", run, check=True)["changed"] and site.rows() == rows
    site.step("isolate", run)
    with pytest.raises(CannotProceed, match="no published snapshot"):
        site.step("apply", run, check=True)


def test_a_write_whose_log_entry_is_gone_is_not_undone_either(site):
    run = released(site, "hard")
    with site.memory() as memory:
        memory.write(NS, "new", 1)
    with site.sql() as con:
        con.execute("DELETE FROM memory_access_log WHERE key = 'new'")
    site.step("isolate", run)
    with site.open() as store, pytest.raises(CannotProceed, match="written to after its release"):
        apply.undo(store=store, store_params=site.store, namespace=NS, run=run)
    assert "new" in site.rows()


def undone(site, run):
    with site.open() as store:
        return apply.undo(store=store, store_params=site.store, namespace=NS, run=run)


@pytest.fixture
def lost(monkeypatch):
    """lost("fence", act): the store does that, and nobody hears of it."""

    def lose(name, act):
        does = getattr(SqliteStore, name)

        def unheard(store, claim):
            does(store, claim)
            raise StoreUnavailable("The connection was lost.", "run the same command again")

        with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
            patch.setattr(SqliteStore, name, unheard)
            act()

    return lose


@pytest.mark.parametrize("again", ["release", "isolate"])
def test_after_a_release_that_nobody_heard_of_no_write_is_undone(site, lost, again):
    run = rebuilt(site, "hard")
    lost("unfence", lambda: site.step("release", run))
    with site.memory() as memory:
        memory.write(NS, "after", 1)
    assert site.step(again, run)["changed"] and not site.step(again, run)["changed"]
    facts = site.facts()
    assert facts["released_at"] and "releasing" not in facts
    if again == "release":
        assert facts["released_at"] > facts["fenced_at"]  # so it is watched
        site.step("isolate", run)
    with pytest.raises(CannotProceed, match="written to after its release"):
        undone(site, run)
    with pytest.raises(CannotProceed, match="as it was released since"):
        site.step("release", run)


def test_a_false_alarm_whose_release_nobody_heard_of_is_closed_by_the_same_command(site, lost):
    run = attempt()
    site.step("isolate", run)
    lost("unfence", lambda: site.step("release", run))
    assert site.step("release", run)["changed"] and not site.step("release", run)["changed"]
    with site.open() as store:
        assert store.incidents(NS)[0].state == "closed"


def test_no_release_makes_an_undo_forget_the_writes_after_an_earlier_one(site):
    run = released(site, "hard")
    with site.memory() as memory:
        memory.write(NS, "after", 1)
    for _turn in range(2):
        site.step("isolate", run)
        with pytest.raises(CannotProceed, match="written to after its release"):
            undone(site, run)
        site.step("release", run, force=True)


def test_a_second_fence_that_nobody_heard_of_tells_its_own_time(site, lost):
    run = released(site, "hard")
    first = site.facts()
    with site.memory() as memory:
        memory.write(NS, "after", 1)
    lost("fence", lambda: site.step("isolate", run))
    site.step("isolate", run)
    facts = site.facts()
    assert facts["fenced_at"] > facts["released_at"] and facts["fenced_sequence"] > first["fenced_sequence"]
