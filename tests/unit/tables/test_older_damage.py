# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a rebuild says where it would pass over something: records that were chosen and are damaged since before the
newest snapshot, and more that is absent than may be lost."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, attempt

from .test_sqlite_langgraph import damage, rebuild, site

__all__ = ["site"]


def test_what_is_chosen_and_as_in_the_newest_snapshot_is_said_to_be_older_damage(site):
    site.backup()
    before, onset = site.records(), now_us()
    damage(site)
    site.backup()
    keys = frozenset({"k00001", "k00002"})  # changed, and gone
    done = rebuild(site, Window(keys=keys))
    site.close_incident()
    assert not done["plan"]["records"]["repair"]
    said = f"2 chosen keys as in the newest good snapshot, {done['plan']['newest_snapshot']}, and not repaired: "
    assert done["plan"]["warnings"][0].startswith(f"{said}'k00001', 'k00002'. ")
    assert "memory_since" in done["plan"]["warnings"][0]
    assert rebuild(site, Window(pattern="k*"))["plan"]["as_saved"] > 2
    site.close_incident()
    done = rebuild(site, Window(keys=keys, onset=onset))
    assert not done["plan"]["warnings"] and {key: site.records()[key] for key in keys} == {k: before[k] for k in keys}


def test_more_that_is_absent_than_may_be_lost_stays_quarantined_until_somebody_says_what_it_is(site):
    before = site.records()
    site.backup()
    site.sql("DELETE FROM store WHERE prefix = ? AND key > 'k00010'", NS)
    run = attempt()
    for name in ("isolate", "forensic", "diagnose"):
        site.step(name, run)
    plan = site.step("plan", run)
    away = plan["records"]["absent"]
    assert away > 10 and plan["escalate"] and not plan["records"]["repair"]
    assert plan["escalate_reason"].startswith(f"{away} of {len(before)} records (")
    with pytest.raises(CannotProceed, match="escalated"):
        site.step("release", run)
    assert not site.step("plan", run, absent="keep")["escalate"]
    assert not site.step("plan", run, accept_loss=True)["escalate"]
    assert not site.step("plan", run, absent="restore")["escalate"]
    for name in ("apply", "validate", "release"):
        site.step(name, run)
    assert site.records() == before
