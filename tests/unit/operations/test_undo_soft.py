# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A soft rebuild is taken back: what it replaced is again what it was, bit for bit, and the same plan can be carried
out once more."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, isolate, undo_soft
from tests.unit.operations.runbook import NS, Site, attempt


@pytest.fixture
def site(bench, tmp_path):
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n:02d}": n for n in range(30)})
    site.backup()
    for key in ("k03", "k04", "k20"):
        site.raw.set(NS, key, payload=bytes(40))
    site.raw.remove(NS, ["k21"])
    return site


def undo(site, run, **more):
    with site.open() as store:
        return apply.undo(store=store, store_params=site.store, namespace=NS, run=run, **more)


def test_every_record_is_what_it_was_and_the_plan_can_be_carried_out_again(site):
    before, run = site.rows(), attempt()
    site.rebuild("soft", until="validate", run=run)
    rebuilt = site.rows()
    told = undo(site, run, check=True)
    assert told["changed"] and site.rows() == rebuilt
    done = undo(site, run)
    assert done["records"] == told["records"] == {"back": 3, "removed": 1, "left": 0}
    assert site.rows() == before
    assert not undo(site, run)["changed"] and not undo(site, run, check=True)["changed"]
    with pytest.raises(CannotProceed):
        site.step("release", run)
    assert site.step("apply", run)["changed"]
    assert site.rows() == rebuilt
    assert undo(site, run)["records"]["back"] == 3 and site.rows() == before
    for name in ("apply", "validate", "release"):
        site.step(name, run, **({"force": True} if name == "release" else {}))
    assert site.served() == {f"k{n:02d}": n for n in range(30)}


def test_what_is_logged_as_deleted_stays_deleted_and_is_listed(site):
    with site.memory() as memory:
        memory.write(NS, "lost", 1)
    site.raw.set(NS, "lost", payload=bytes(40))
    run = attempt()
    site.rebuild("soft", until="apply", run=run)
    marked = site.rows()["lost"]
    done = undo(site, run)
    assert (done["records"]["left"], done["left_keys"]) == (1, ["lost"])
    assert done["changed"] and not undo(site, run)["changed"]
    assert site.rows()["lost"] == marked and site.aside()["lost"][0][8] == bytes(40)


def test_what_is_too_damaged_to_be_written_stays_repaired_and_is_listed(tmp_path):
    """Text that is no UTF-8, and a version that would move the store's counters."""
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(4)})
    site.backup()
    with site.sql() as con:
        con.execute("UPDATE memory_records SET payload = CAST(x'ff00ff' AS TEXT) WHERE key = 'k1'")
        con.execute("UPDATE memory_records SET sequence = 1 << 60 WHERE key = 'k2'")
    site.raw.set(NS, "k3", payload=bytes(40))
    run = attempt()
    site.rebuild("soft", until="apply", run=run)
    done = undo(site, run)
    assert done["records"] == {"back": 1, "removed": 0, "left": 2} and done["left_keys"] == ["k1", "k2"]
    with site.open() as store:
        assert store.identity().sequence < 100


def test_cut_short_it_releases_nothing_and_the_same_command_ends_it(site, monkeypatch):
    before, run = site.rows(), attempt()
    site.rebuild("soft", until="validate", run=run)
    with monkeypatch.context() as patch, pytest.raises(CannotProceed, match="for the test"):
        change = undo_soft._change

        def once(store, claim, namespace, wanted):
            if None in wanted.values():
                raise CannotProceed("Stopped for the test.", "go on")
            return change(store, claim, namespace, wanted)

        patch.setattr(undo_soft, "_change", once)
        undo(site, run)
    with pytest.raises(CannotProceed):
        site.step("release", run)
    assert undo(site, run)["records"] == {"back": 0, "removed": 1, "left": 0}
    assert site.rows() == before


def test_after_its_release_writes_are_not_taken_away(site):
    run = attempt()
    site.rebuild("soft", run=run)
    with pytest.raises(CannotProceed, match="undo would serve the damaged records"):
        undo(site, run)
    with site.memory() as memory:
        memory.write(NS, "after", 1)
    site.step("isolate", run)
    with pytest.raises(CannotProceed, match="written to after"):
        undo(site, run)
    with site.open() as store:
        isolate.release(store=store, store_params=site.store, namespace=NS, run=run, force=True)
    assert site.served()["after"] == 1
