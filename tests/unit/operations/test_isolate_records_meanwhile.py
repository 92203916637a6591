# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A rebuild, a restore and a rotation while single records are out of service: none is lost, none comes back by it."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._model import is_isolated
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    restore,
    rotate,
)
from tests.unit.operations.isolate_help import CHOSEN, VALUES, filled, isolate, release, scan, told
from tests.unit.operations.runbook import NAME, NS, OTHER, STEPS, attempt


@pytest.fixture
def site(bench, tmp_path):
    return filled(tmp_path / "site", bench)


def damaged_and_lost(site, run):
    """What a rebuild would do about the namespace."""
    site.step("isolate", run)
    site.step("forensic", run)
    site.step("diagnose", run)
    planned = site.step("plan", run, accept_loss=True)
    return {name: n for name, n in planned["records"].items() if n and name not in ("expected", "good_before")}


@pytest.mark.parametrize("backup", [False, True])
def test_a_rebuild_meanwhile_neither_misses_nor_brings_back_what_is_isolated(site, backup):
    site.backup()
    site.raw.flip(NS, CHOSEN[0])
    before = site.rows()
    isolate(site, pattern="user/01*")
    if backup:
        assert not site.backup()["suspect"]
    site.raw.flip(NS, "user/001")
    run = attempt()
    assert damaged_and_lost(site, run) == {"damaged": 1, "repair": 1}
    for name in STEPS[4:]:
        site.step(name, run, **({"force": True} if name == "release" else {}))
    with site.memory() as memory:
        assert memory.read(NS, "user/001") == {"n": 1}
        assert memory.read_many(NS, CHOSEN) == {}
    site.close_incident()
    assert told(site) == 10
    assert release(site)["released"] == 10
    assert {key: site.rows()[key] for key in CHOSEN} == {key: before[key] for key in CHOSEN}


def test_a_hard_rebuild_carries_isolated_records_along(site):
    site.backup()
    before = site.rows()
    isolate(site, keys=CHOSEN[:3])
    for n in range(20, 29):
        site.raw.flip(NS, f"user/{n:03d}")
    run = attempt()
    for name in STEPS:
        more = {"strategy": "hard"} if name == "plan" else {"force": True} if name == "release" else {}
        site.step(name, run, **more)
    site.close_incident()
    assert told(site) == 3
    assert release(site)["released"] == 3
    assert {k: site.rows()[k] for k in VALUES} == {k: before[k] for k in VALUES}


def test_a_damaged_tombstone_does_not_bring_the_record_back(site):
    site.backup()
    before = site.rows()
    isolate(site, keys=CHOSEN[:3])
    site.raw.flip(NS, CHOSEN[0])
    site.raw.remove(NS, [CHOSEN[1]])
    run = attempt()
    assert damaged_and_lost(site, run) == {"damaged": 1, "expired": 1}
    for name in STEPS[4:]:
        site.step(name, run, **({"force": True} if name == "release" else {}))
    with site.memory() as memory:
        assert memory.read_many(NS, CHOSEN[:3]) == {}
    site.close_incident()
    assert release(site)["released"] == 3
    assert {k: site.rows()[k] for k in VALUES} == {k: before[k] for k in VALUES}


def test_restore_brings_a_named_record_back_from_a_snapshot_that_has_it(site):
    older = site.backup()["snapshot"]
    before = site.rows()
    isolate(site, keys=CHOSEN[:2])
    newer = site.backup()["snapshot"]

    def restored(snapshot, keys):
        return restore.restore(
            store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS,
            snapshot_id=snapshot, keys=keys,
        )  # fmt: skip

    assert newer != older
    with pytest.raises(errors.CannotProceed, match="1 of the 1 keys"):
        restored(newer, CHOSEN[:1])
    assert site.rows()[CHOSEN[0]][6] is not None
    assert restored(older, CHOSEN[:1])["restored"] == 1
    assert site.rows()[CHOSEN[0]] == before[CHOSEN[0]]
    assert (release(site)["record_keys"], site.rows()) == ([CHOSEN[1]], before)


def test_after_the_return_a_rebuild_trusts_the_record_though_only_the_tombstone_is_in_the_newest_snapshot(site):
    site.backup()
    isolate(site, keys=CHOSEN)
    site.backup()
    with site.open() as store:
        identity = store.identity()
        store.prune_log(1 << 60, (identity.epoch, identity.sequence))
    assert told(site) == 10
    release(site)
    site.raw.flip(NS, CHOSEN[0])  # the older snapshot has it
    site.raw.flip(NS, "user/001")
    assert damaged_and_lost(site, attempt()) == {"damaged": 2, "repair": 2}


def test_rotation_meanwhile_keeps_the_record_key_that_an_isolated_record_names(site):
    before = site.rows()
    isolate(site, keys=CHOSEN)
    former = site.ring().active_id
    done = rotate.rotate(store_params=site.store, keyring=site.ring(), namespace=[NS, OTHER], force=True, retire=True)
    assert done["changed"] and former in site.ring().ids()
    assert is_isolated(site.rows()[CHOSEN[0]])
    assert release(site)["released"] == 10
    assert {k: site.rows()[k] for k in CHOSEN} == {k: before[k] for k in CHOSEN}
    assert scan(site)["verdict"] == "pass"
    with site.memory() as memory:
        assert memory.read_many(NS, CHOSEN) == {key: VALUES[key] for key in CHOSEN}
    assert site.backup()["suspect"] is False
