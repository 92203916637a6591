# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A namespace that is damaged again after its release, while the incident is still open: the first damage tells nothing
of the second."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply
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


def released(site, strategy):
    """Rebuilt and released; its watch is not over. The run that did it."""
    site.raw.set(NS, "k03", payload=bytes(40))
    run = attempt()
    for step in STEPS:
        site.step(step, run, **({"strategy": strategy} if step == "plan" else {}))
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
