# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on LangGraph's own store in PostgreSQL: after a rebuild the framework says what it said."""

from __future__ import annotations


import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.tables.tables_help import LangGraph


@pytest.fixture
def site(tmp_path, postgresql_server):
    one = LangGraph(tmp_path, postgresql_server)
    yield one
    one.wipe()


def damage(site):
    """Values are garbage, some are gone, one came that nobody knows, and an expiry is another."""
    site.put(NS, {"fact 00001": {"text": "garbage"}, "a/b": {"text": "wrong"}, "made": {"text": "by the damage"}})
    site.app.ask("delete", namespace=[NS], keys=["fact 00002", "100%", ""])
    site.app.ask("delete", namespace=[NS, "notes"], keys=["note 3"])
    site.sql("UPDATE store SET expires_at = now() + '1 h', updated_at = now() WHERE prefix = %s AND key = 'short'", NS)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_after_a_rebuild_the_framework_says_what_it_said_before(site, strategy):
    site.fill()
    site.fill(OTHER, 5)
    before, dump, sibling, catalogue = site.view(), site.dump_of(), site.dump_of(OTHER), site.catalogue()
    site.backup()
    started = now_us()
    damage(site)
    assert site.view() != before
    done = site.rebuild(NS, Window(onset=started), strategy)
    assert site.view() == before
    assert (site.dump_of(), site.dump_of(OTHER)) == (dump, sibling)
    assert site.catalogue() == catalogue
    assert done["plan"]["suspect_keys"] == ["made"]
    assert done["validate"]["verdict"] == "pass"
