# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An alert that repeats itself finds the fence standing, whoever works behind it, unless it no longer holds."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, LeaseHeld
from tests.unit.operations.runbook import NS, Site, attempt


def test_a_quarantine_that_holds_is_left_to_whoever_works_on_it(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write(NS, "a", 1)
    first = site.step("isolate", attempt(), again=False)
    assert first["changed"] and "detail" not in first
    with site.open() as store:
        before = store.incidents()
    second = site.step("isolate", attempt(), again=False)
    assert not second["changed"] and second["incident"] == first["incident"]
    assert second["detail"] == f"quarantined already, in the incident {first['incident']}"
    assert second["fenced_at"] == first["fenced_at"] and second["proof"]["writes_refused"]
    with site.open() as store:
        assert store.incidents() == before
    with pytest.raises(LeaseHeld):
        site.step("isolate", attempt())


def test_a_fence_that_is_gone_is_not_taken_for_one_that_stands(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write(NS, "a", 1)
    run = attempt()
    site.step("isolate", run)
    with contextlib.closing(sqlite3.connect(site.path, isolation_level=None)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
    again = site.step("isolate", run, again=False)
    assert again["changed"] and again["proof"]["writes_refused"] and "detail" not in again


def test_a_false_alarm_is_released_as_it_is_and_a_failed_validation_is_not(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write(NS, "a", 1)
    run = attempt()
    site.step("isolate", run)
    assert site.step("release", run)["changed"] and site.state() == "serving"
    run = attempt()
    site.step("isolate", run)
    site.raw.flip(NS, "a")
    assert site.step("validate", run)["verdict"] == "fail"
    with pytest.raises(CannotProceed, match="validation of agent-7 failed"):
        site.step("release", run)
    assert site.state() == "quarantined"
    assert site.step("release", run, force=True)["changed"]
