# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints in a SQLite file, beside what test_sqlite_sessions.py asks of every framework."""
from __future__ import annotations

import datetime
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME
from tests.unit.tables.sqlite_help import TablesSite

KEY = "k" * 32
THREADS = {"plain/1": None, "secret %": KEY}


class CheckpointSite(TablesSite):
    layout, tables = "langgraph_checkpoint", ("checkpoints", "writes")


@pytest.fixture
def site(tmp_path, processes):
    app = processes["langgraph_checkpoint"]
    one = CheckpointSite(tmp_path, app)
    for thread, key in THREADS.items():
        app.say(thread, ["one", "two"], key)
    yield one
    app.close()


def told(site):
    return {thread: site.app.history(thread, key) for thread, key in THREADS.items()}


def test_a_record_has_the_time_that_the_framework_tells(site):
    for thread, key in THREADS.items():
        rows = site.rows(thread)
        for _values, _next, _metadata, at, config, _tasks in site.app.history(thread, key):
            row = rows[f"checkpoint/%-/{config['configurable']['checkpoint_id']}"]
            seconds = datetime.datetime.fromisoformat(at).timestamp()
            assert abs(row[3] / 1e6 - seconds) < 0.01 and row[4] == row[3]


def test_an_identifier_of_the_application_itself_is_no_damage(site):
    first = "thread_id = 'plain/1' AND parent_checkpoint_id IS NULL"
    site.sql(f"UPDATE checkpoints SET checkpoint_id = 'mine' WHERE {first}")
    row = site.rows("plain/1")["checkpoint/%-/mine"]
    assert row[3] == 0 and row[9]


def test_a_checkpoint_whose_parent_is_not_there_is_told(site):
    with site.open() as store:
        assert not [line for line in store.warnings() if "parent" in line]
    site.sql("DELETE FROM checkpoints WHERE checkpoint_id = (SELECT max(parent_checkpoint_id) FROM checkpoints "
             "WHERE thread_id = 'plain/1')")  # fmt: skip
    with site.open() as store:
        (line,) = [line for line in store.warnings() if "parent" in line]
    assert line.startswith("thread 'plain/1' has 1 checkpoint whose parent is not there")
    assert "a rebuild brings it back from the newest good snapshot that has it" in line


def test_a_lost_file_comes_back(site):
    before, rows = told(site), {thread: site.rows(thread) for thread in THREADS}
    site.backup()
    repository = Repository.open(site.repository)
    newest = repository.snapshots(NAME)[0].id
    found = verify.verify(repository=repository, keyring=site.ring(), name=NAME, snapshot_id=newest, depth="restored")
    assert found["verdict"] == "pass"
    site.app.close()
    os.unlink(site.path)
    site.app.open(site.path)
    for thread in THREADS:
        restore.restore(
            store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=thread,
            create=True,
        )  # fmt: skip
    assert told(site) == before and {thread: site.rows(thread) for thread in THREADS} == rows
    site.app.say("secret %", ["more"], KEY)
    assert len(site.app.history("secret %", KEY)) > len(before["secret %"])
