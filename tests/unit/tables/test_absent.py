# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A row that is gone from a store without tombstones: lost in the damage, or deleted by the application before it."""

from __future__ import annotations

import types

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_file import UNSURE
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, attempt
from tests.unit.tables.sqlite_help import TablesSite


class CustomSite(TablesSite):
    layout = "custom"


@pytest.fixture
def site(tmp_path):
    one = CustomSite(tmp_path, types.SimpleNamespace(open=lambda path: None))
    one.store["tables"] = [{"name": "memories", "namespace": {"columns": ["agent"]}, "key": ["id"]}]
    one.sql("CREATE TABLE memories (agent TEXT NOT NULL, id TEXT NOT NULL, text TEXT, PRIMARY KEY (agent, id))")
    for key in ("deleted", "lost", "kept"):
        one.sql("INSERT INTO memories VALUES (?, ?, ?)", NS, key, f"the text of {key}")
    one.backup()
    return one


def planned(site, window, absent="auto"):
    site.step("diagnose", attempt(), check=True, window=window)
    return site.step("plan", attempt(), check=True, window=window, absent=absent)


def test_what_may_have_been_deleted_before_the_damage_comes_back_as_could_not_verify(site):
    """Nothing tells a deletion from a loss, unless a snapshot saw the row after the damage had begun."""
    site.sql("DELETE FROM memories WHERE id = 'deleted'")
    onset = now_us()
    site.backup()
    site.sql("DELETE FROM memories WHERE id = 'lost'")
    plan = planned(site, Window(onset=onset))
    assert plan["listed"]["repair"] == {"deleted": UNSURE, "lost": "absent"}
    (doubt,) = plan["could_not_verify"]
    assert doubt.startswith("1 record put back, though the application may have deleted")
    assert doubt.index("memory_absent=keep") < doubt.index(
        "'deleted'"
    )  # of a long list the end is cut off, not the way out
    assert planned(site, Window(onset=onset, keys=frozenset(("deleted",))))["could_not_verify"] == []
    for absent, repaired in (("restore", 2), ("keep", 0)):
        plan = planned(site, Window(onset=onset), absent)
        assert (plan["records"]["repair"], plan["could_not_verify"]) == (repaired, [])


def test_without_a_snapshot_since_all_that_is_gone_is_in_doubt_and_comes_back(site):
    before = site.sql("SELECT * FROM memories ORDER BY id")
    site.sql("DELETE FROM memories WHERE id <> 'kept'")
    run, window = attempt(), Window(onset=now_us())
    done = {}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[name] = site.step(name, run, **({"window": window} if name == "diagnose" else {}))
    assert done["diagnose"]["findings"]["absent"] == 2
    assert done["plan"]["could_not_verify"][0].startswith("2 records put back")
    assert done["validate"]["verdict"] == "pass"
    assert site.sql("SELECT * FROM memories ORDER BY id") == before
