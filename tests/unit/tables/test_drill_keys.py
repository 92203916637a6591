# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A drill with the application's own keys: what it opens, what it rotates in its copy, what makes it fail."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import drill, drill_application
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME
from tests.unit.tables.keys_help import NEW, OLD, TABLES, WRONG, keyed

EVERY = sorted(TABLES)


@pytest.fixture
def site(request, tmp_path, processes, postgresql_server):
    layout, engine = request.param
    one = keyed(tmp_path, processes[layout], layout, engine, postgresql_server)
    one.say("ann")
    one.say("plain", key=None)
    yield one
    one.end()


def drilled(site, *keys):
    site.use(*keys)
    return drill.drill(
        repository=Repository.open(site.repository), keyring_params=site.keyring, name=NAME, scratch=site.folder,
        tables=site.store.get("tables"), application=drill_application.keys_in(site.store),
    )  # fmt: skip


@pytest.mark.parametrize("site", EVERY, ids="-".join, indirect=True)
def test_every_value_opens_and_takes_another_key(site):
    site.backup()
    rows = site.dumped()
    found = drilled(site, NEW, OLD)  # a former key counts, too
    assert found["verdict"] == "pass" and not found["reasons"], found
    assert found["opened"] == found["rotated"] >= 3 and "rotate" in found["phases"]
    assert "no rotation" not in " ".join(found["not_rehearsed"])
    assert site.dumped() == rows and OLD not in json.dumps(found)

    wrong = drilled(site, WRONG)
    assert (wrong["verdict"], wrong["opened"]) == ("fail", 0)
    assert {name: one["verdict"] for name, one in wrong["namespaces"].items()} == {"ann": "fail", "plain": "pass"}
    told = f"ann: {found['opened']} values that the application encrypted with a key that is not given"
    assert told in wrong["reasons"][0]

    silent = drilled(site)  # nobody gave a key: said, and not judged
    assert silent["verdict"] == "pass" and "rotated" not in silent
    assert f"encrypted {found['opened']} of the values, and no key of it is given" in " ".join(silent["not_rehearsed"])


@pytest.mark.parametrize("site", [("openai_agents", "sqlite")], ids=["sessions"], indirect=True)
def test_a_value_that_no_key_opens_fails_the_drill(site):
    row, value = site.sealed("ann")[1]
    site.damage("ann", row, value)
    site.backup()
    found = drilled(site, OLD)
    told = "ann: 1 value that the application encrypted with a key that is not given, or damaged, first message/"
    assert found["verdict"] == "fail" and told in found["reasons"][0] and found["opened"] == 2


@pytest.mark.parametrize("site", [("openai_agents", "sqlite")], ids=["sessions"], indirect=True)
def test_a_rotation_that_would_stop_fails_the_drill(site):
    """An envelope with two payloads: the SDK reads the second one, the rotation replaces the first."""
    row, value = site.sealed("ann")[1]
    token = json.dumps(json.loads(value)["payload"])
    twice = value.replace('"payload"', '"payload": "", "payload"')
    assert token in twice
    site.sql("UPDATE agent_messages SET message_data = ? WHERE rowid = ?", twice, row)
    assert len(site.told("ann")) == 3
    site.backup()
    found = drilled(site, OLD)
    assert found["verdict"] == "fail" and found["opened"] == 3, found
    assert "the rotation of the application's key stops" in found["reasons"][0]
