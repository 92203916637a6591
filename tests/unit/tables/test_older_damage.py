# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Who names records that are damaged since before the newest snapshot is told so, and how they are repaired."""
from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window

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
