# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on another application's keys in Valkey; that application is a plain client and is never changed."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.support.application_plays import ApplicationPlays, next_second
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.keyspace_help import Agent, KeyspaceSite

NAMESPACE = "agent-7"


@pytest.fixture
def keys(tmp_path: pathlib.Path, valkey_server: ValkeyServer) -> t.Iterator[t.Any]:
    one = KeyspaceSite(tmp_path, valkey_server)
    one.fill(NAMESPACE, 100)
    one.fill("agent-8", 20)
    yield one
    one.wipe()


def test_backup_damage_check_rebuild_and_again(keys: t.Any, tmp_path: pathlib.Path) -> None:
    plays = ApplicationPlays(tmp_path, keys, keys.server)
    before, sibling = keys.values(NAMESPACE), keys.dumps("agent-8")
    plays.told("backup", changed=True)
    since = next_second()
    keys.app.delete(keys.key("set"), keys.key("s00003"))
    keys.app.set(keys.key("list"), "garbage")
    damaged = keys.values(NAMESPACE)
    window = {"memory_namespace": NAMESPACE, "memory_since": since, "memory_absent": "restore"}
    checked = plays.told("rebuild", "--check", "--diff", changed=True, **window)
    assert "to repair: 3" in checked.text
    assert keys.values(NAMESPACE) == damaged
    with Agent(keys, "agent-9") as neighbour:
        plays.told("rebuild", changed=True, **window)
    assert neighbour.written and not neighbour.refused and not neighbour.wrong and not neighbour.other
    assert keys.values(NAMESPACE) == before and keys.dumps("agent-8") == sibling
    assert "Nothing to rebuild" in plays.told("rebuild", changed=False, **window).text
    report = plays.report()
    assert (report["verdict"], report["state"]) == ("pass", "closed"), report
    assert report["records"]["lost"] == 0 and report["records"]["recovered"] == 3
