# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions do on the controller alone: misspelt variables, the list of lost keys."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.action import memory, report


def test_a_misspelt_variable_is_refused_and_a_strange_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: t.List[str] = []
    monkeypatch.setattr(memory.display, "warning", told.append)
    action = object.__new__(memory.ActionModule)
    assert action._misspelt({"memory_strategy": "hard", "memory_step": "plan", "own": 1}) is None and not told
    assert action._misspelt({"memory_into": "x"}) is None
    assert told == ["memory_into is no variable of this collection and has no effect."]
    refused = action._misspelt({"memory_stratgy": "hard"})
    assert refused is not None and refused["failed"] and not refused["changed"]
    assert refused["msg"] == "There is no variable memory_stratgy. Next: did you mean memory_strategy?"


@pytest.mark.parametrize("fetched", [False, True], ids=["written here", "fetched by the role"])
def test_lost_keys_are_not_for_everybody(tmp_path: pathlib.Path, fetched: bool) -> None:
    path = tmp_path / "lost_keys.jsonl"
    before = os.umask(0)
    try:
        if fetched:
            path.write_text('{"key": "a"}\n')
        plan = {"records": {"lost": 1}, "lost_keys": ["a"], "lost_total": 1}
        report._list_lost(str(tmp_path), [{"name": "plan", "result": plan}])
    finally:
        os.umask(before)
    assert path.read_text() == '{"key": "a"}\n'
    assert path.stat().st_mode & 0o777 == 0o640
