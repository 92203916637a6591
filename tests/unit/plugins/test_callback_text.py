# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback runbook prints: a name that a tenant chose for terminals, and a rehearsal as its table says it."""

from __future__ import annotations

import typing as t

import pytest
from ansible.executor.stats import AggregateStats

from ansible_collections.memops.agent_memory.plugins.callback import runbook
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_happened import would_happen


@pytest.mark.parametrize("text", ["\x1b[2Jx", "\x1b]0;title\x07x", "a\rb", "\x9b31m", "\u202eb", "a\tb"])
def test_a_terminal_is_told_nothing_to_obey(capsys: pytest.CaptureFixture[str], text: str) -> None:
    callback = runbook.CallbackModule()
    callback._say("host", [f"namespace {text} serves. Next: run {text}"])
    printed = capsys.readouterr().out
    assert "namespace" in printed and "    Next: run " in printed
    assert all(char.isprintable() for char in printed.replace("\n", ""))


def test_the_end_names_the_namespaces_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    callback = runbook.CallbackModule()
    stats = AggregateStats()
    for n in range(7):
        step = {"name": "isolate", "namespace": f"agent-{n}", "verdict": "pass", "failed": n != 2, "seconds": 1}
        callback._step("memory-1", step)
        if n in (0, 1, 3):
            stats.increment("failures", "memory-1")
            callback.v2_playbook_on_stats(stats)
        if n in (1, 2):
            callback._step("memory-1", {**step, "name": "validate", "failed": False})
    lines = capsys.readouterr().out.splitlines()
    ends = [line.partition(" on ")[2] for line in lines if line.startswith("Failed after")]
    assert ends == ["memory-1.", "memory-1 (2 of 2 namespaces: agent-0, agent-1).",
                    "memory-1 (3 of 4 namespaces: agent-0, agent-1, agent-3)."]  # fmt: skip
    callback.v2_playbook_on_stats(stats)
    assert "(6 of 7 namespaces: agent-0, agent-1, agent-3, agent-4, agent-5 …)." in capsys.readouterr().out


def test_the_last_column_of_a_table_is_wrapped_below_itself(capsys: pytest.CaptureFixture[str]) -> None:
    callback = runbook.CallbackModule()
    callback._width = 70
    callback._say("host", ["fail              integrity        3 namespaces (a, b, c) were never scrubbed. Next: x"])
    first, *others = capsys.readouterr().out.splitlines()
    column = first.index("3 namespaces")
    assert others[-1] == "    Next: x" and len(others) > 1
    assert all(line.startswith(" " * column) and line[column] != " " for line in others[:-1])


def test_a_rehearsed_step_is_shown_as_the_table_of_the_rehearsal_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    def step(name: str, verdict: str, changed: bool, failed: bool = False) -> dict[str, t.Any]:
        common = {"namespace": "agent-7", "seconds": 1, "detail": "", "result": {}, "check": True}
        return {"name": name, "verdict": verdict, "changed": changed, "failed": failed, **common}

    # what was not rebuilt is judged as it is, and what was not isolated is not released
    steps = [step("isolate", "pass", True), step("apply", "pass", True), step("validate", "fail", False)]
    steps += [step("release", "pass", False), step("monitor", "could-not-verify", True)]
    callback = runbook.CallbackModule()
    for one in steps:
        callback._step("host", one)
    printed = capsys.readouterr().out.splitlines()[1:]  # below the namespace
    for line, (name, changes, said) in zip(printed, would_happen(steps), strict=True):
        assert line.split()[:2] == ["✓", name] and ("*" in line) == changes, line
        assert line.rstrip().endswith(said or " s"), line
    callback._step("host", step("validate", "fail", False, failed=True))  # the store cannot be read, say
    assert capsys.readouterr().out.split()[:2] == ["✗", "validate"]
    # by itself it judges what a real run would
    for verdict, mark in (("fail", "✗"), ("could-not-verify", "?"), ("pass", "✓")):
        callback = runbook.CallbackModule()
        callback._step("host", step("validate", verdict, False))
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == [mark, "validate"]
