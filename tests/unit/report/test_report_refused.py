# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step that was refused leaves behind, and the command that can succeed after it."""

from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _report_text
from tests.unit.report.report_help import at, build, extra


def test_what_a_refusal_saw_of_the_namespace_is_not_called_unknown() -> None:
    said = "ansible-playbook -i hosts.yml memops.agent_memory.isolate -e memory_namespace=agent-7"
    step = extra("plan", "fail", error="cannot-proceed", next_step=said, standing="serving")
    step["result"].pop("records", None)
    report = build([step], incident=None, namespace="agent-7")
    text = " ".join(_report_text.render(report).split())
    assert (report["state"], report["next_command"]) == ("untouched", said)
    assert "no incident" in text and "the namespace serves as before" in text and "not known" not in text, text
    assert "not known" in _report_text.render(build([{**step, "result": {"error": "cannot-proceed"}}], incident=None))
    watch = extra("monitor", "fail", error="cannot-proceed", standing="quarantined")
    report = build([watch], incident=None, namespace="agent-7")
    text = " ".join(_report_text.render(report).split())
    assert report["state"] == "quarantined" and "neither read nor write it. Next: " in text, text


def test_a_failover_that_fenced_the_home_and_did_not_take_over_says_so() -> None:
    proof = {"writes_refused": True, "reads_refused": True}
    step = extra("failover", "fail", performed=False, fenced_at=at(3), proof=proof)
    report = build([step], incident="INC-1", namespace="agent-7")
    assert report["state"] == "quarantined" and report["details"]["fence"]["writes_refused"] is True
    assert "serves as before" not in _report_text.render(report)
    home = build([step, extra("failback")], incident="INC-1", namespace="agent-7")
    assert home["next_command"].endswith(".rebuild -e memory_namespace=agent-7"), "nobody has judged what is there"


def test_a_failback_of_what_is_at_home_asks_for_nothing() -> None:
    step = extra("failback")
    step["changed"] = False
    report = build([step], incident=None, namespace="agent-7", inventory=["hosts.yml"])
    text = _report_text.render(report)
    assert report["next_command"] == "ansible-playbook -i hosts.yml memops.agent_memory.info"
    assert "nothing to bring there" in text and "Only " not in text and "isolate." not in text


def test_a_home_that_nobody_can_judge_comes_next_with_what_its_owner_has_to_say() -> None:
    command = "ansible-playbook -i hosts.yml memops.agent_memory.failback -e memory_namespace=agent-7"
    command += " -e memory_force=true"
    asked = "ask the owner of the namespace whether it may come home as it is: "
    steps = [extra("failover", performed=True, to="mem-b"), extra("failback", "fail", next_step=asked + command)]
    report = build(steps, namespace="agent-7", inventory=["hosts.yml"])
    assert (report["state"], report["next_command"]) == ("failed-over", command)
    assert report["details"]["advice"] == asked.rstrip(": ")
    steps[-1] = extra("failback", "fail", next_step="mend the connection, then run the same command again.")
    assert build(steps, namespace="agent-7")["next_command"].endswith(".failback -e memory_namespace=agent-7")
