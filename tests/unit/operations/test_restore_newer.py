# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A restore of whole namespaces that serve takes nothing out of service that was written after the snapshot, unless
that is what was asked for."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore_step, restore_work
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, Site, attempt

VALUES = {f"k{n}": {"v": n} for n in range(10)}


def restored(site, run=None, **options):
    return restore_step.bring_back(
        store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(), name=NAME,
        run=run or attempt(), **options,
    )  # fmt: skip


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    with one.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many("other", VALUES)
    one.backup()
    return one


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("namespaces", [None, [NS], ["other", NS]])
def test_what_was_written_or_deleted_since_stays_in_service(site, namespaces, check):
    site.raw.remove("other", ["k3"])
    with site.memory() as memory:
        memory.write(NS, "k1", "newer")
        memory.write(NS, "only now", 1)
        memory.delete(NS, "k2")
    before = site.rows(), site.rows("other")
    with pytest.raises(CannotProceed) as refused:
        restored(site, namespaces=namespaces, check=check)
    assert f"in '{NS}' 3 records" in refused.value.message and "memory_pattern" in refused.value.next_step
    assert "memory_force=true" in refused.value.next_step
    assert (site.rows(), site.rows("other")) == before
    with site.open() as store:
        assert not [one for one in store.incidents() if one.state == "open"]


def test_by_force_it_goes_back_and_the_second_time_nothing_changes(site):
    with site.memory() as memory:
        memory.write(NS, "k1", "newer")
    assert restored(site, overwrite=True)["changed"]
    assert site.served() == VALUES
    assert not restored(site, overwrite=True)["changed"] and not restored(site)["changed"]


def test_what_is_gone_or_damaged_comes_back_without_force(site):
    site.raw.remove(NS, ["k3"])
    site.raw.set(NS, "k4", payload=bytes(40))
    with site.memory() as memory:
        memory.write("other", "k1", "newer")  # of a namespace that is not restored
    assert restored(site, namespaces=[NS])["changed"]
    assert site.served() == VALUES


def test_an_incident_that_shut_the_namespace_off_is_no_hindrance(site):
    with site.memory() as memory:
        memory.write(NS, "k1", "newer")
    run = attempt()
    run = dataclasses.replace(run, incident=site.step("isolate", run)["incident"])
    assert restored(site, run, namespaces=[NS])["changed"]


def test_what_is_written_until_the_writers_wait_stays_in_service(bench, tmp_path, monkeypatch):
    """On every engine: the last write before the restore has the write lock comes after the first look."""
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
    site.backup()
    site.raw.remove(NS, ["k3"])
    lock = restore_work.Work.lock

    def locked_behind_a_write(work):
        with site.memory() as memory:
            memory.write(NS, "k1", "newer")
        return lock(work)

    with monkeypatch.context() as patched:
        patched.setattr(restore_work.Work, "lock", locked_behind_a_write)
        with pytest.raises(CannotProceed) as refused:
            restored(site, namespaces=[NS])
    assert refused.value.message.startswith(f"'{NS}' is not restored: ") and "1 record" in refused.value.message
    assert site.served()["k1"] == "newer"
    with site.memory() as memory:
        memory.write(NS, "k2", "after")  # nobody is kept waiting
    with site.open() as store:
        assert not [one for one in store.incidents() if one.state == "open"] and len(store.generations(NS)) == 1
    assert restored(site, namespaces=[NS], overwrite=True)["changed"]
    assert site.served() == VALUES
