# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What state a run leaves a namespace in, and which command comes next."""

from __future__ import annotations

import json
import shlex
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.plugin_utils import (
    _report_happened,
    _report_html,
    _report_text,
)
from tests.unit.report.report_help import at, build, extra, find, good


def refused(name: str, **result: t.Any) -> dict[str, t.Any]:
    """A step of an attempt before, which did nothing."""
    return extra(name, "fail", attempt="ops:99:1", error="cannot-proceed", **result)


def told(event: str) -> dict[str, t.Any]:
    """Who was told of an event, which is kept as a step."""
    return {**extra("notify_" + event, told=["hook"]), "started": at(999)}


@pytest.mark.parametrize(
    ("steps", "state", "playbook"),
    [
        ([], "untouched", "rebuild"),
        ([extra("preflight", "fail")], "untouched", "rebuild"),
        ([*good("preflight"), extra("isolate", "fail")], "untouched", "rebuild"),
        ([*good("preflight"), extra("isolate", "fail", error="cannot-proceed")], "quarantined", "rebuild"),
        ([*good("preflight"), extra("isolate", "could-not-verify", fenced_at=at(3))], "quarantined", "rebuild"),
        (good("isolate"), "quarantined", "rebuild"),
        (good("plan"), "quarantined", "rebuild"),
        ([*good("plan")[:-1], extra("plan", escalate=True)], "quarantined", "info"),
        ([*good("plan"), extra("notify", sent=True, to="ops", status=200)], "quarantined", "info"),
        ([*good("snapshot"), extra("failover", performed=True, to="mem-b")], "failed-over", "rebuild"),
        ([*good("snapshot"), extra("failover", "fail", performed=True)], "failed-over", "rebuild"),
        ([*good("snapshot"), extra("failover", performed=False)], "quarantined", "rebuild"),
        ([*good("snapshot"), extra("failover", performed=True), *good("validate")[3:]], "failed-over", "failback"),
        (
            [*good("snapshot"), extra("failover", performed=True), *good("validate")[3:], extra("failback")],
            "rebuilt",
            "rebuild",
        ),
        ([extra("failover", performed=True, to="mem-b")], "failed-over", "failback"),
        ([extra("failover", performed=True, to="mem-b"), extra("failback", "fail")], "failed-over", "failback"),
        ([extra("failover", "fail", performed=True, to="mem-b")], "failed-over", "rebuild"),
        ([extra("failover", performed=True, to="mem-b"), extra("failback")], "quarantined", "release"),
        (good("apply"), "quarantined", "rebuild"),
        ([*good("apply"), extra("validate", "fail")], "quarantined", "rebuild"),
        (good("validate"), "rebuilt", "rebuild"),
        ([*good("validate"), extra("release", "fail")], "rebuilt", "rebuild"),
        (good("release"), "released", "rebuild"),
        (good("baseline"), "released", "monitor"),
        (
            [*good("baseline"), extra("monitor", "could-not-verify", verdict="could-not-verify")],
            "monitoring",
            "monitor -e memory_again=true",
        ),
        (
            [*good("baseline"), extra("monitor", "could-not-verify", verdict="could-not-verify", watch_seconds=40)],
            "monitoring",
            "monitor -e memory_again=true -e memory_monitor_seconds=40",
        ),
        ([*good("baseline"), extra("monitor", "fail", unreachable=True)], "monitoring", "monitor"),
        (
            [*good("baseline"), extra("monitor", "fail", verdict="fail", breaches=["hit rate"])],
            "quarantined",
            "rebuild",
        ),
        ([*good("baseline"), extra("monitor", "fail", verdict="fail", fenced=False)], "released", "monitor"),
        ([*good(), extra("isolate", changed=True, attempt="b", fenced_at=at(300))], "quarantined", "rebuild"),
    ],
)
def test_state_and_the_command_that_continues(steps: t.Any, state: str, playbook: str) -> None:
    report = build(steps, namespace="agent-7")
    assert report["state"] == state
    name, _blank, more = playbook.partition(" ")
    assert report["next_command"] == (
        f"ansible-playbook -i <inventory> memops.agent_memory.{name} -e memory_namespace=agent-7 {more}".rstrip()
    )
    assert report["verdict"] != "pass"


def test_what_the_plan_could_not_tell_is_for_the_owner() -> None:
    """A validation afterwards finds no incident and passes, and nothing of it is answered."""
    steps = good()
    find(steps, "plan")["result"]["could_not_verify"] = ["11 records put back, though they may have been deleted"]
    report = build(steps, namespace="agent-7")
    assert (report["verdict"], report["state"]) == ("could-not-verify", "closed")
    assert report["details"]["advice"].startswith("show the owner of the namespace what the plan could not verify")
    text = _report_text.render(report)
    assert text.index("Do: show the owner") < text.index("Next:")


def test_the_command_survives_a_shell_whatever_the_namespace_is() -> None:
    report = build([], namespace='it\'s a "name"; rm -rf /', inventory=["my hosts.yml", "b"])
    words = shlex.split(report["next_command"])
    assert words[:5] == ["ansible-playbook", "-i", "my hosts.yml", "-i", "b"]
    assert json.loads(words[7]) == {"memory_namespace": 'it\'s a "name"; rm -rf /'}


@pytest.mark.parametrize(
    ("reason", "playbook"),
    [(None, "info"), ("40 % is lost", "rebuild")],
    ids=["nobody accepts", "accepted"],
)
def test_a_loss_above_the_limit_leads_to_what_copies_there_are_unless_accepted(reason: t.Any, playbook: str) -> None:
    steps = good("plan")
    find(steps, "plan")["result"].update(
        records={"expected": 5, "lost": 2}, lost_total=2, escalate=False, escalate_reason=reason
    )
    report = build(steps, namespace="agent-7")
    assert f".{playbook} " in report["next_command"]
    assert report["verdict"] == "fail"


@pytest.mark.parametrize(
    ("steps", "title", "name", "playbook"),
    [
        (good("isolate")[1:], "ISOLATE PASSED", "snapshot", "snapshot"),
        ([*good("isolate")[1:], told("isolated")], "ISOLATE PASSED", "snapshot", "snapshot"),
        ([*good("release"), told("released")], "RELEASE PASSED", "baseline", "snapshot"),
        (good("diagnose")[3:], "DIAGNOSE PASSED", "plan", "plan"),
        (good("release"), "RELEASE PASSED", "baseline", "snapshot"),
        (good("baseline"), "BASELINE PASSED", None, "monitor"),
        ([*good("plan"), *good("release")[-1:]], "RELEASE PASSED", None, "rebuild"),  # by force
        ([*good("snapshot"), extra("diagnose", "could-not-verify")], "COULD NOT VERIFY", None, "rebuild"),
        ([extra("isolate", "fail")], "FAIL", None, "rebuild"),
        ([], "COULD NOT VERIFY", None, "rebuild"),
        (good()[1:], "COULD NOT VERIFY", None, "validate"),
        (good(), "PASS", None, None),
    ],
)
def test_a_step_that_went_well_alone_says_so_and_what_comes_next(
    steps: t.Any, title: str, name: t.Optional[str], playbook: t.Optional[str]
) -> None:
    report = build(steps, namespace="agent-7")
    text = _report_text.render(report)
    assert text.startswith(title + "  ")
    page = _report_html.render(report)
    if title.endswith(" PASSED"):
        assert report["verdict"] == "could-not-verify"
        assert title.capitalize() in page and "Could not verify" not in page
    if name:
        assert f"next in the runbook is {name}" in text and f"Only {name}: " in page
        commands = " ".join(text.replace("\\\n", "").split())
        assert f"memops.agent_memory.{playbook} -e memory_namespace=agent-7" in commands
        assert "memops.agent_memory.rebuild" in text
    else:
        assert "Only " not in text
    if playbook:
        assert f"memops.agent_memory.{playbook}" in text


def test_a_failure_without_an_incident_claims_nothing_about_the_namespace() -> None:
    text = _report_text.render(build([extra("diagnose", "fail")], incident=None))
    assert "State: not known." in text and "untouched" not in text and "nothing was changed" not in text
    assert "  incident not known" in text
    assert "  no incident" in _report_text.render(build([extra("validate")], incident=None))
    text = " ".join(_report_text.render(build([extra("preflight", "fail")], incident=None)).split())
    assert "State: not known. This run changed nothing, but what state the namespace is in is not known" in text
    assert 'aria-current="step"' not in _report_html.render(build([extra("preflight", "fail")], incident=None))


def diagnosed(**found: t.Any) -> list[dict[str, t.Any]]:
    """What the playbook respond does, with what its diagnosis found."""
    return [*good("isolate")[1:], extra("snapshot"), extra("diagnose", **{**SOUND, **found})]


SOUND: dict[str, t.Any] = {"findings": {}, "causes": [], "strategy": "none"}


@pytest.mark.parametrize(
    ("steps", "playbook"),
    [
        (diagnosed(), "release"),
        (diagnosed(findings={"checksum": 1}, causes=[{"cause": "storage-failure"}], strategy="soft"), "rebuild"),
        (diagnosed(causes=[{"cause": "damaged-access-log"}]), "rebuild"),
        (diagnosed(strategy="soft"), "rebuild"),  # suspect versions are served
        ([*diagnosed(), extra("validate", "fail")], "rebuild"),
        ([*diagnosed(), extra("failover", performed=True, to="mem-b")], "rebuild"),  # which brings it home
        ([*diagnosed(), extra("snapshot", "fail")], "rebuild"),
        (diagnosed()[:-1], "rebuild"),
    ],
)
def test_what_an_alert_found_nothing_in_is_released_and_nothing_else(steps: t.Any, playbook: str) -> None:
    report = build(steps, namespace="agent-7")
    command = f"ansible-playbook -i <inventory> memops.agent_memory.{playbook} -e memory_namespace=agent-7"
    assert report["next_command"] == command
    text = " ".join(_report_text.render(report).split())
    assert ("no damage was found" in text) is (playbook == "release")
    assert ("memory_onset=<when it began>" in text) is (playbook == "release")
    assert "no damage was found" in _report_html.render(report) or playbook == "rebuild"


def test_after_a_false_alarm_nothing_is_left_to_do() -> None:
    alarm = [*good("isolate")[1:], told("isolated"), extra("snapshot"), extra("diagnose")]
    lifted = {**extra("release", changed=True, lifted=True, released_at=at(210), incident="INC-1")}
    lifted.update(detail="", started=at(220))
    report = build([*alarm, lifted, told("released")], namespace="agent-7")
    assert (report["state"], report["next_command"]) == ("released", "")
    text = _report_text.render(report)
    assert text.startswith("RELEASE PASSED  ") and "told isolated" in text and "Next: " not in text
    assert "there is nothing left to do" in text and "quarantine lifted at " in text and "not run" not in text
    assert "there is nothing left to do" in _report_html.render(report)


def test_after_a_release_that_ended_the_incident_nobody_is_asked_for_what_a_step_before_it_lacked() -> None:
    lacking = extra("snapshot", "fail", next_step="point memory_keyring at the master key")
    lifted = {**extra("release", changed=True, lifted=True, released_at=at(210)), "started": at(220)}
    steps = [*good("isolate")[1:], lacking, lifted]
    assert "Do: " not in _report_text.render(build(steps, namespace="agent-7"))
    later = {**extra("baseline", "fail", next_step="free space"), "started": at(230)}
    assert "Do: free space" in _report_text.render(build([*steps, later], namespace="agent-7"))


def test_a_failover_alone_leads_home_and_not_through_the_runbook() -> None:
    proof = {"writes_refused": True, "reads_refused": True, "detail": []}
    away = extra("failover", changed=True, performed=True, to="mem-b", proof=proof)
    report = build([away], namespace="agent-7")
    text = " ".join(_report_text.render(report).split())
    assert "Only " not in text and "rebuild does where its home is damaged" in text
    assert report["details"]["fence"]["writes_refused"] is True
    way = report["next_command"]
    early = refused("release", next_step=way)
    text = _report_text.render(build([away, {**early, "attempt": "ops:100:1"}], namespace="agent-7"))
    assert text.count(way) <= 2 and "\nDo: " not in text and "lost" not in text
    home = [away, early, refused("validate"), {**extra("failback", changed=True), "started": at(900)}]
    report = build(home, namespace="agent-7")
    assert report["details"]["advice"] is None
    assert report["next_command"].endswith("release -e memory_namespace=agent-7")
    text = " ".join(_report_text.render(report).split())
    assert text.startswith("FAILBACK PASSED ") and "the namespace is home, and release lets applications in" in text
    assert "quarantined: applications can neither read nor write it" in text
    lifted = {**extra("release", changed=True, lifted=True, released_at=at(950), incident="INC-1"), "started": at(960)}
    report = build([*home, lifted], namespace="agent-7")
    assert (report["state"], report["next_command"]) == ("released", "")


def test_who_was_told_is_no_part_of_what_happened() -> None:
    text = " ".join(_report_text.render(build([extra("preflight", "fail"), told("failed")], incident=None)).split())
    assert "State: not known. This run changed nothing" in text
    lifted = extra("release", lifted=False)
    assert ".info" in build([lifted, told("released")])["next_command"]
    moved = [extra("failover", performed=True, scope="store"), told("failed")]
    assert ".failback " in build(moved, namespace="")["next_command"]


def test_the_advice_of_a_step_that_has_passed_since_is_gone() -> None:
    steps = good("diagnose")
    steps.insert(3, extra("diagnose", "fail", attempt="ops:99:1", next_step="Mend the disk."))
    assert build(steps)["details"]["advice"] is None
    assert build(steps[:4])["details"]["advice"] == "Mend the disk."


def test_a_rehearsal_says_what_every_step_would_do() -> None:
    def rehearsed(name: str, changed: bool, **result: t.Any) -> t.Dict[str, t.Any]:
        return {"name": name, "changed": changed, "detail": "", "result": result}

    told = _report_happened.would_happen(
        [
            rehearsed("isolate", True),
            rehearsed("diagnose", True, findings={"checksum": 20, "absent": 5}, causes=[{"cause": "lost-rows"}]),
            rehearsed("release", False),
        ]
    )
    assert told == [
        ("isolate", True, "would quarantine the namespace"),
        ("diagnose", True, "damaged or absent: 25; likely lost-rows"),
        ("release", True, "would lift the quarantine"),
    ]
    assert _report_happened.would_happen([rehearsed("release", False)]) == [("release", False, "")]
    judged = {**rehearsed("validate", False, reasons=["integrity: 20 × checksum"]), "verdict": "fail"}
    said = "as it is the verdict is fail: integrity: 20 × checksum"
    assert _report_happened.would_happen([judged]) == [("validate", False, said)]
    (_apply, told_then) = _report_happened.would_happen([rehearsed("apply", True), judged])
    assert told_then == ("validate", False, "would judge what was rebuilt")
    away = [rehearsed("failover", True), rehearsed("apply", True), judged, judged, rehearsed("failback", False)]
    assert _report_happened.would_happen(away)[2:] == [
        ("validate", False, "would judge what was rebuilt"),
        ("validate", False, "would judge what came home"),
        ("failback", True, ""),
    ], "what is served elsewhere in a rebuild comes home in it"
    alone = rehearsed("plan", True, records={"repair": 2}, refused="It has no diagnosis. Next: isolate it")
    said = "2 to repair; without --check: It has no diagnosis."
    assert _report_happened.would_happen([alone]) == [("plan", False, said)]
    assert _report_happened.would_happen([rehearsed("isolate", True), alone])[1] == ("plan", True, "2 to repair")
    lacking = rehearsed("apply", True, refused="There is no plan. Next: plan")
    assert _report_happened.would_happen([lacking]) == [("apply", False, "There is no plan.")]
    stayed = [rehearsed("failover", False), rehearsed("failback", False)]
    assert not any(changes for _name, changes, _said in _report_happened.would_happen(stayed))
    records = {"expected": 501, "good_before": 476, "repair": 25, "suspect": 0, "lost": 0, "conflicted": 0}
    assert (
        _report_happened.planned({"records": records, "strategy": "soft"})
        == "501 expected, 476 good, 25 to repair, 0 suspect, 0 lost, strategy soft"
    )
    assert _report_happened.planned({}) == ""


def test_what_was_left_away_is_told_with_the_command_that_brings_it_back():
    steps = good()
    plan = find(steps, "plan")["result"]
    plan["records"].update(lost=0, absent=1)
    plan.update(lost_keys=[], lost_total=0, absent_keys=["entity/Person 100"], absent_snapshot="S-1")
    report = build(steps)
    page, text = _report_html.render(report, None), " ".join(_report_text.render(report).split())
    assert "othing was lost" not in text and "othing was lost" not in page
    away = "1 record of the last good snapshot is absent and left away, since nobody knows whether it was deleted or lo"
    assert f"{away}st: entity/Person 100. All 1,000 expected records" in text and away in page
    assert _report_happened.happened("plan", plan) == "28 to repair, 2 suspect, 0 lost, 1 absent and left away"
    back = 'Back: ansible-playbook -i <inventory> memops.agent_memory.restore \\ -e \'{"memory_namespace": "agent-7", '
    assert back + '"memory_snapshot": "S-1", "memory_keys": ["entity/Person 100"]}' in text
    assert "memops.agent_memory.restore" in page
    plan["records"].update(lost=2, absent=12)
    plan["absent_keys"] = [f"k{n}" for n in range(12)]
    text = " ".join(_report_text.render(build(steps)).split())
    assert '"memory_pattern": "*"' in text
    assert "12 records of the last good snapshot are absent" in text and "k4 …" in text and "2 of 1,000" in text


def test_what_was_kept_though_it_is_other_is_told_with_the_command_that_puts_the_former_back():
    steps = good()
    plan = find(steps, "plan")["result"]
    plan.update(newer=1, newer_keys=["facts/fact 3"], newest_snapshot="S-1")
    report = build(steps)
    page, text = _report_html.render(report, None), " ".join(_report_text.render(report).split())
    told = "1 record is other than in the last good snapshot and was kept, as nothing says that it is damage:"
    assert f"{told} facts/fact 3." in text and told in page
    back = "As it was: ansible-playbook -i <inventory> memops.agent_memory.restore "
    assert back in text and '"memory_snapshot": "S-1", "memory_keys": ["facts/fact 3"]}' in text
    plan.update(newer=200, newer_keys=[f"k{n}" for n in range(100)])
    text = " ".join(_report_text.render(build(steps)).split())
    assert "200 records are other than in the last good snapshot and were kept" in text
    assert "k4 …" in text and "As it was:" not in text


@pytest.mark.parametrize(
    ("until", "command"),
    [
        ("plan", '.rebuild -e \'{"memory_namespace": "agent-7", "memory_absent": "restore"}\''),
        ("release", '"memory_keys": ["a"], "memory_incident": "INC-1"}\''),
        ("monitor", '"memory_keys": ["a"]}\''),
    ],
)
def test_what_was_left_away_comes_back_as_things_stand(until, command):
    steps = good(until)
    plan = find(steps, "plan")["result"]
    plan["records"].update(lost=0, absent=1)
    plan.update(lost_keys=[], lost_total=0, absent_keys=["a"], absent_snapshot="S-1")
    report = build(steps, namespace="agent-7", incident="INC-1")
    assert report["details"]["absent"]["command"].endswith(command), report["state"]


UNDONE = {**extra("undo", changed=True, incident="INC-1", generation={"from": 2, "to": 1}), "detail": ""}


@pytest.mark.parametrize("until", ["apply", "validate"])
def test_what_was_taken_back_is_neither_applied_nor_rebuilt(until):
    report = build([*good(until), UNDONE], namespace="agent-7")
    assert (report["state"], report["strategy"]) == ("quarantined", "soft")
    steps = [s["name"] for s in report["steps"]]
    assert steps == ["preflight", "isolate", "snapshot", "diagnose", "plan", "undo"]
    assert "apply" in report["details"]["not_run"]
    text = _report_text.render(report)
    assert "generation 1 is the active one again" in text
    assert "next in the runbook is apply" in " ".join(text.split())
    again = build([*good("apply"), UNDONE, *good("validate")[-2:]])
    assert [s["name"] for s in again["steps"]] == [*steps[:-1], "apply", "validate"]
    assert again["state"] == "rebuilt"


@pytest.mark.parametrize(("moved", "first"), [([], "the playbook release"), ([1], "failback, then release")])
def test_what_nobody_can_verify_is_the_owners_to_decide(moved, first):
    away = [extra("failover", performed=True)] if moved else []
    report = build([*good("snapshot"), *away, *good("apply")[3:], extra("validate", "could-not-verify")])
    text = " ".join(_report_text.render(report).split())
    assert "Do: ask the owner of the namespace" in text
    assert first in text
    assert "memory_force=true" in text


def test_a_namespace_that_is_judged_or_watched_without_an_incident_is_led_into_none() -> None:
    report = build([extra("validate")], incident=None)
    text = _report_text.render(report)
    assert report["next_command"] == "" and "Next: " not in text and "Only " not in text
    assert "No incident is open, and nothing is left to do." in text
    failed = build([extra("validate", "fail")], incident=None)
    assert " memops.agent_memory.rebuild " in failed["next_command"]
    assert "This run changed nothing" in " ".join(_report_text.render(failed).split())
    watched = build([extra("monitor", "fail", error="cannot-proceed")], incident=None)
    assert watched["next_command"].endswith("memops.agent_memory.info")
