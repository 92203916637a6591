# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A namespace without an access log that passed lately: damage that only a snapshot shows is no "nothing to do"."""

from __future__ import annotations

import types

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, preflight
from tests.unit.operations.runbook import NS, attempt
from tests.unit.tables.sqlite_help import TablesSite


class CustomSite(TablesSite):
    layout = "custom"


def released(tmp_path):
    """Rebuilt; only the watch is left."""
    one = CustomSite(tmp_path, types.SimpleNamespace(open=lambda path: None))
    one.store["tables"] = [
        {"name": "memories", "namespace": {"columns": ["agent"]}, "key": ["id"],
         "updated": {"column": "changed", "form": "seconds"}}
    ]  # fmt: skip
    one.sql(
        "CREATE TABLE memories (agent TEXT NOT NULL, id TEXT NOT NULL, text TEXT, changed INT, PRIMARY KEY (agent, id))"
    )
    for number in range(20):
        one.sql("INSERT INTO memories VALUES (?, ?, 'a text', 1700000000)", NS, f"k{number}")
    one.backup()
    one.sql("UPDATE memories SET text = 'garbage' WHERE id = 'k3'")
    one.rebuild()
    return one


@pytest.fixture
def site(tmp_path):
    one = released(tmp_path)
    with one.open() as store:  # its watch is over, too
        opened = next(state for state in store.incidents(NS) if state.state == "open")
        claim = incident.claim(store, NS, incident.Run(opened.attempt, "the test"))
        store.note(claim, monitored={"verdict": "pass"})
        store.close_incident(claim)
    one.backup()
    return one


def look(site):
    with site.open() as store:
        held = next((one.attempt for one in store.incidents(NS) if one.state == "open"), None)
        return preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=attempt(takeover=held), **site.places()
        )  # fmt: skip


def test_what_is_as_it_was_has_nothing_to_do(site):
    site.sql("UPDATE memories SET text = 'new', changed = 1900000000 WHERE id = 'k5'")  # by the application
    found = look(site)
    assert found["nothing_to_do"] and not found["warnings"]


def test_damage_that_came_since_is_rebuilt(site):
    site.sql("UPDATE memories SET text = 'garbage' WHERE id = 'k4'")
    assert not look(site)["nothing_to_do"]


def test_damage_that_came_while_the_watch_is_left_is_rebuilt_at_once(tmp_path):
    site = released(tmp_path)
    site.sql("UPDATE memories SET text = 'new', changed = 1900000000 WHERE id = 'k5'")  # by the application
    site.sql("DELETE FROM memories WHERE id = 'k6'")
    assert look(site)["watching"]
    site.sql("UPDATE memories SET text = 'garbage' WHERE id = 'k4'")
    found = look(site)
    assert not found["watching"] and "there is new damage" in found["warnings"][-1]


def test_what_is_gone_since_is_told(site):
    """It may have been deleted by rights: nothing is rebuilt for that alone, and nobody is told that all is well."""
    site.sql("DELETE FROM memories WHERE id IN ('k6', 'k7')")
    found = look(site)
    (said,) = found["warnings"]
    assert found["nothing_to_do"] and said.startswith("2 keys of the last good snapshot are not there any more")
    assert "'k6', 'k7'" in said and "memory_absent=restore" in said


def test_what_nobody_can_compare_is_rebuilt(site):
    site.repository = {"url": site.repository["url"] + "/gone"}
    assert not look(site)["nothing_to_do"]
