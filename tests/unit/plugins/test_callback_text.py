# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback runbook prints of a name that a tenant chose for terminals."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.callback import runbook


@pytest.mark.parametrize("text", ["\x1b[2Jx", "\x1b]0;title\x07x", "a\rb", "\x9b31m", "\u202eb", "a\tb"])
def test_a_terminal_is_told_nothing_to_obey(capsys: pytest.CaptureFixture[str], text: str) -> None:
    callback = runbook.CallbackModule()
    callback._say("host", [f"namespace {text} serves. Next: run {text}"])
    printed = capsys.readouterr().out
    assert "namespace" in printed and "    Next: run " in printed
    assert all(char.isprintable() for char in printed.replace("\n", ""))
