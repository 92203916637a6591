# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run a call belongs to, and whether another one is known to be dead."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.action import memory
from ansible_collections.memops.agent_memory.plugins.plugin_utils import _attempt

OTHER = """
from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import attempt
print(attempt())
"""


def test_a_process_that_ended_here_is_dead_and_this_one_lives() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OTHER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert _attempt.alive(done.stdout.strip()) is False
    assert _attempt.alive(_attempt.attempt()) is True


def test_the_jobs_of_a_workflow_are_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWX_HOST", "https://awx.example.com")
    assert _attempt.attempt(7) == "https://awx.example.com/workflow-7"
    assert _attempt.alive("https://awx.example.com/workflow-7") is None
    assert _attempt.attempt(None) == _attempt.attempt()


class Lease:
    """Answers as a module does: refused as often as there are ends of leases left, then done."""

    def __init__(self, *until: str) -> None:
        self.until = list(until)

    def __call__(self, *_: t.Any) -> dict[str, t.Any]:
        if not self.until:
            return {"changed": True}
        return {"failed": True, "error": "lease-held", "msg": "held.", "holder": {"until": self.until.pop(0)}}


@pytest.mark.parametrize(
    ("until", "taken"),
    [((), True), (("10:00", "10:00", "10:00"), True), (("10:00", "10:00", "10:01", "10:01"), False)],
    ids=["free", "of a dead one", "renewed"],
)
def test_a_lease_that_is_renewed_is_refused_and_one_that_is_not_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, until: tuple[str, ...], taken: bool
) -> None:
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(memory.display, "display", lambda _: None)
    action = object.__new__(memory.ActionModule)
    action._watched = Lease(*until)
    result = action._outwait(action._watched(), {}, {})
    assert result.get("changed", False) is taken
