# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rotate_keys on checkpoints that LangGraph encrypts, with the framework in a process of its own."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.support.application_plays import ApplicationPlays
from tests.support.framework_process import FrameworkProcess
from tests.unit.operations.runbook import NAME
from tests.unit.tables.keys_help import NEW, OLD, keyed

THREADS = ("ann", "bob")


@pytest.fixture
def site(tmp_path: pathlib.Path) -> t.Iterator[t.Any]:
    with FrameworkProcess("checkpoint_application.py") as app:
        one = keyed(tmp_path, app, "langgraph_checkpoint", "sqlite")
        one.use(OLD)
        for thread in THREADS:
            one.say(thread)
        yield one
        one.end()


def test_a_dry_run_and_a_rotation(site: t.Any, tmp_path: pathlib.Path) -> None:
    plays = ApplicationPlays(tmp_path, site)
    new = tmp_path / "new.key"
    new.write_text(NEW + "\n", encoding="utf-8")
    before, rows = {thread: site.told(thread) for thread in THREADS}, site.dumped()
    checked = plays.told("rotate_keys", "--check", changed=True, memory_new_application_key_file=str(new))
    assert "Check mode, nothing was changed; Would encrypt" in checked.text and site.dumped() == rows
    done = plays.told("rotate_keys", changed=True, memory_new_application_key=NEW)  # as Ansible Vault gives it
    assert "values have the application's new key" in done.text
    assert {thread: site.told(thread, NEW) for thread in THREADS} == before
    assert not any(key in outcome.text for key in (OLD, NEW) for outcome in (checked, done))
    site.backup()  # the inventory has the former key still: what comes back would be of no use to the application
    drilled = plays.told("drill", changed=False, status=2, memory_cluster=NAME)
    assert "values that the application encrypted with a key that is not given" in drilled.text
