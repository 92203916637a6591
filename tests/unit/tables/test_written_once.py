# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows that LangGraph inserts and never changes have no time of a change, and need none: whoever changed one was not
it."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import written_once
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import NEEDED, Window
from tests.unit.operations.runbook import NAME, NS, attempt
from tests.unit.tables.keys_help import keyed

LAYOUT = "langgraph_checkpoint"
STEPS = ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release")
WRITES = {"sqlite": ("writes", "value"), "postgresql": ("checkpoint_writes", "blob")}


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request, tmp_path, processes, postgresql_server):
    one = keyed(tmp_path, processes[LAYOUT], LAYOUT, request.param, postgresql_server)
    for word in ("one", "two", "three"):
        one.app.say(NS, [word])
    one.backup()
    yield one
    one.end()


def swap(site, table, column, where):
    """Two values change places: each is whole, and the framework reads them."""
    (one, first), (two, second) = site.sql(
        f"SELECT {'ctid::text' if site.engine == 'postgresql' else 'rowid'}, {column} FROM {table} "
        f"WHERE thread_id = '{NS}' AND {where} ORDER BY {column} LIMIT 2"
    )
    mark, place = ("%s", "ctid::text") if site.engine == "postgresql" else ("?", "rowid")
    assert first != second
    site.sql(f"UPDATE {table} SET {column} = CASE {place} WHEN {mark} THEN {mark} ELSE {mark} END "
             f"WHERE {place} IN ({mark}, {mark})", one, second, first, one, two)  # fmt: skip


def rebuilt(site):
    run = attempt()
    return {name: site.step(name, run, **({"window": Window()} if name == "diagnose" else {})) for name in STEPS}


def test_what_the_framework_never_changes_is_repaired_without_a_window(site):
    before, told = site.rows(NS), site.app.history(NS)
    swap(site, *WRITES[site.engine], "channel = 'words'")
    damaged = 2
    if site.engine == "postgresql":
        swap(site, "checkpoint_blobs", "blob", "channel = 'words'")
        last = "(SELECT max(version) FROM checkpoint_blobs WHERE channel = 'words')"
        other = f"channel = 'count' AND version = {last}"
        site.sql(f"UPDATE checkpoint_blobs SET blob = %s WHERE {other}", b"\xde\xad\xbe\xef")
        damaged += 2
    changed = {key for key, row in site.rows(NS).items() if row != before[key]}
    assert len(changed) >= damaged
    site.app.say(NS, ["four"])
    with_new = set(site.rows(NS))
    done = rebuilt(site)
    assert done["diagnose"]["findings"]["silent-change"] == len(changed)
    assert done["plan"]["records"]["repair"] == len(changed) and done["plan"]["records"].get("changed", 0) == 0
    assert sum(cell["damaged"] for cell in done["diagnose"]["damage_map"]) == len(changed)
    after = site.rows(NS)
    assert set(after) == with_new and {key: after[key] for key in before} == before
    assert [one for one in site.app.history(NS) if one in told] == told


@pytest.mark.parametrize("site", ["postgresql"], indirect=True)
def test_the_value_of_a_channel_that_a_checkpoint_needs_was_lost_and_not_deleted(site):
    before, told = site.rows(NS), site.app.history(NS)
    site.sql("DELETE FROM checkpoint_blobs WHERE channel = 'words' AND version = (SELECT version FROM checkpoint_blobs "
             "WHERE channel = 'words' ORDER BY version OFFSET 1 LIMIT 1)")  # fmt: skip
    newest = "(SELECT max(checkpoint_id) FROM checkpoints)"
    site.sql("DELETE FROM checkpoint_blobs b USING checkpoints c WHERE b.channel = 'words' "
             "AND b.version = c.checkpoint -> 'channel_versions' ->> 'words' "
             f"AND c.checkpoint_id = {newest}")  # fmt: skip
    site.sql(f"DELETE FROM checkpoints WHERE checkpoint_id = {newest}")  # as an application prunes what it had
    gone = sorted(before.keys() - site.rows(NS).keys())
    done = rebuilt(site)
    (back,) = done["plan"]["listed"]["repair"]
    assert back.startswith("blob/%-/words/") and done["plan"]["listed"]["repair"] == {back: NEEDED}
    assert done["diagnose"]["findings"] == {"absent": 1}
    assert done["plan"]["absent_keys"] == [key for key in gone if key != back]
    assert site.app.history(NS) == told[1:]


def test_such_a_record_comes_back_by_its_name_alone(site):
    before = site.rows(NS)
    swap(site, *WRITES[site.engine], "channel = 'words'")
    changed = sorted(key for key, row in site.rows(NS).items() if row != before[key])
    run = attempt()
    found = restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS, keys=changed,
        attempt=run.attempt, owner=run.owner,
    )  # fmt: skip
    assert found["restored"] == len(changed) == 2 and site.rows(NS) == before


def test_what_resumes_a_graph_may_be_replaced():
    once = written_once(LAYOUT)
    assert once("write/%-/1f/2a/0000000000000000000") and once("blob/%-/words/2.0.5")
    assert not once("write/%-/1f/2a/-0000000000000000004") and not once("checkpoint/%-/1f")
    assert not written_once("native")("blob/x") and not written_once("custom")("write/0000000000000000000")
