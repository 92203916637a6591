# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on the file of LangGraph's SqliteStore; the framework goes on writing and reading in a process of its
own, and is never changed."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from tests.support.application_plays import ApplicationPlays, next_second
from tests.support.framework_process import FrameworkProcess
from tests.unit.tables.sqlite_help import LanggraphSite

NAMESPACE = "agent-7"


@pytest.fixture
def tables(tmp_path: pathlib.Path) -> t.Iterator[t.Any]:
    with FrameworkProcess("langgraph_application.py") as app:
        one = LanggraphSite(tmp_path, app)
        one.fill(NAMESPACE, 150)
        one.fill("agent-8", 20)
        yield one


def killed_in_apply(plays: ApplicationPlays, tables: t.Any, **window: t.Any) -> None:
    """While this test writes to the file, the step that is to apply waits for its turn."""
    writer = tables.database()

    def holds(noted: str) -> bool:
        if writer.in_transaction and noted != "apply intent":
            writer.execute("ROLLBACK")
            time.sleep(0.005)  # others have a turn now and then: apply notes in the store that it begins
        if noted in ("plan result", "apply intent") and not writer.in_transaction:
            writer.execute("BEGIN IMMEDIATE")
        return bool(writer.in_transaction)

    killed = plays.killed_in_apply(holds, **window)
    writer.close()
    assert killed.status == 2 and tables.state(NAMESPACE) == "quarantined", killed.text[-6000:]


def test_backup_damage_check_rebuild_and_again(tables: t.Any, tmp_path: pathlib.Path) -> None:
    plays = ApplicationPlays(tmp_path, tables)
    before, sibling = tables.records(NAMESPACE), tables.records("agent-8")
    plays.told("backup", changed=True)
    since = next_second()
    tables.app.delete([NAMESPACE], "k00003", "big")
    tables.app.put([NAMESPACE], "k00001", {"text": "garbage"})
    damaged = tables.dump(("store", "store_vectors"))
    window = {"memory_namespace": NAMESPACE, "memory_since": since, "memory_absent": "restore"}
    checked = plays.told("rebuild", "--check", "--diff", changed=True, **window)
    assert "to repair: 3" in checked.text
    assert tables.dump(("store", "store_vectors")) == damaged
    tables.app.begin(["agent-9"])
    killed_in_apply(plays, tables, **window)
    plays.told("rebuild", changed=True, **window)
    neighbour = tables.app.stop(["agent-9"])
    assert neighbour["written"] and not (neighbour["refused"] or neighbour["wrong"] or neighbour["other"])
    assert tables.records(NAMESPACE) == before and tables.records("agent-8") == sibling
    assert "Nothing to rebuild" in plays.told("rebuild", changed=False, **window).text
    report = plays.report()
    assert (report["verdict"], report["state"]) == ("pass", "closed"), report
    assert report["records"]["lost"] == 0 and report["records"]["recovered"] == 3
