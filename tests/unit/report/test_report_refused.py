# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step that was refused leaves behind, and the command that can succeed after it."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _report_text
from tests.unit.report.report_help import at, build, extra, good


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


@pytest.mark.parametrize("step", ["undo", "apply", "snapshot"])
def test_what_was_refused_leads_to_what_it_says_comes_first(step: str) -> None:
    first = "ansible-playbook -i 'my hosts.yml' memops.agent_memory.isolate -e '{\"memory_namespace\": \"it is\"}'"
    said = f"isolate it first: {first}"
    report = build([extra(step, "fail", error="cannot-proceed", next_step=said)], incident=None, namespace="it is")
    assert report["next_command"] == first and "Only " not in _report_text.render(report)
    for other in ("wait for it", f"{first} raises it", "the playbook memops.agent_memory.info tells", f"{first} -e 'x"):
        report = build([extra(step, "fail", error="cannot-proceed", next_step=other)], namespace="agent-7")
        assert ".rebuild -e memory_namespace=agent-7" in report["next_command"]
    begun = [*good("isolate"), extra(step, "fail", error="cannot-proceed", next_step=said)]
    assert ".rebuild " in build(begun, namespace="agent-7")["next_command"]


def test_an_unknown_namespace_leads_to_the_list_of_those_that_there_are() -> None:
    report = build([extra("isolate", "fail", error="namespace-unknown")], incident=None, inventory=["hosts.yml"])
    assert report["next_command"] == "ansible-playbook -i hosts.yml memops.agent_memory.info"
    assert not any("fence" in reason["text"] for reason in report["details"]["reasons"])


def test_what_was_refused_before_anything_was_changed_leads_to_the_preflight() -> None:
    steps = [*good("preflight"), extra("isolate", "fail", error="capability-missing")]
    for step in steps:
        step["changed"] = False
        step["result"].pop("incident", None)
    report = build(steps, incident=None, inventory=["hosts.yml"])
    command = "ansible-playbook -i hosts.yml memops.agent_memory.preflight -e memory_namespace=agent-7"
    assert (report["state"], report["next_command"]) == ("untouched", command)
    text = " ".join(_report_text.render(report).split())
    assert "This run changed nothing" in text and "What was changed" not in text


def test_a_release_of_what_was_not_quarantined_leaves_the_namespace_untouched() -> None:
    step = extra("release")
    step["changed"] = False
    report = build([step], incident=None)
    assert report["state"] == "untouched"
    text = _report_text.render(report)
    assert "nothing to release" in text and "Only " not in text
    step["result"]["incident"] = "INC-1"
    assert build([step])["state"] == "released"
    step["changed"] = True
    step["result"].update(lifted=False, released=2)
    report = build([step])
    assert report["state"] == "untouched" and report["next_command"].endswith("memops.agent_memory.info")
    assert "records that were out of service are back" in _report_text.render(report)


def test_an_undo_that_was_refused_spoils_no_report():
    refused = extra("undo", "fail", error="cannot-proceed", detail="INC-1 is not quarantined.")
    assert build([*good(), refused])["verdict"] == build(good())["verdict"] == "pass"


def test_what_was_refused_before_the_apply_says_nothing_about_it():
    refused = extra("release", "fail", detail="The rebuild is planned but not finished.")
    report = build([*good("plan"), refused, *good("validate")[-2:]])
    assert "release" not in [s["name"] for s in report["steps"]]
    assert report["verdict"] == "could-not-verify"


@pytest.mark.parametrize("error", ["lease-held", "stale-attempt"])
@pytest.mark.parametrize("name", ["preflight", "apply", "monitor"])
def test_a_colleague_who_was_told_to_wait_spoils_no_report(error, name):
    steps = good()
    place = next(n for n, step in enumerate(steps) if step["name"] == name)
    away = extra(name, "fail", attempt="ops:200:2", error=error, detail="ops works on agent-7.")
    steps.insert(min(place + 1, len(steps) - 1), away)
    assert build(steps)["verdict"] == "pass"
    assert build([*good("isolate"), away])["verdict"] == "fail"  # what the colleague is shown
