# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a whole store that failed over and came home."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _report, _report_html, _report_text
from tests.unit.report.report_help import ATTEMPT, VALIDATOR, at

OVER = {
    "incident": "INC-9", "scope": "store", "performed": True, "from": {"host": "db-1"}, "to": {"host": "db-2"},
    "epoch": 2, "position_before": 1000, "position_after": 1200, "lag_seconds": 0.0, "forced": False,
}  # fmt: skip
HOME = {"incident": "INC-9", "scope": "store", "epoch": 3, "position_before": 2000, "position_after": 2100, "lost": 0,
        "from": "db-2", "to": "db-1"}  # fmt: skip


def made(*steps: tuple[str, str, dict[str, t.Any]]) -> dict[str, t.Any]:
    lines = [
        {"name": name, "namespace": "", "verdict": verdict, "changed": True, "started": at(n), "seconds": 1.0,
         "host": "db-1", "attempt": ATTEMPT, "check": False, "detail": "", "result": result}
        for n, (name, verdict, result) in enumerate(steps)
    ]  # fmt: skip
    report = _report.build_report(lines, incident="INC-9", namespace="", cluster="memory", inventory=["hosts.yml"])
    VALIDATOR.validate(report)
    return report


def said(report: dict[str, t.Any]) -> str:
    return " ".join(_report_text.render(report).split())


def test_a_failover_passes_and_names_the_way_home() -> None:
    report = made(("failover", "pass", OVER))
    assert (report["verdict"], report["state"], report["records"]["lost"]) == ("pass", "failed-over", 0)
    way = "ansible-playbook -i hosts.yml memops.agent_memory.failback -e memory_failover_scope=store"
    assert report["next_command"] == way
    assert "PASS the whole store" in said(report)
    assert "failover: position 1,000 before, 1,200 after, epoch 2" in said(report)
    assert "Nothing that was acknowledged was lost." in said(report)
    page = _report_html.render(report, None)
    assert "position 1,000 before, 1,200 after" in page
    assert "Failover of <b>the whole store</b>" in page


def test_at_home_nothing_is_left_to_do() -> None:
    report = made(("failover", "pass", OVER), ("failback", "pass", HOME))
    assert (report["verdict"], report["state"], report["next_command"]) == ("pass", "closed", "")
    assert "The whole store is served at home." in said(report)


def test_what_cannot_be_told_is_not_said_to_be_nothing() -> None:
    report = made(("failback", "pass", {**HOME, "lost": None, "untold": True}))
    assert (report["verdict"], report["state"], report["records"]["lost"]) == ("could-not-verify", "closed", None)
    assert report["next_command"] == "ansible-playbook -i hosts.yml memops.agent_memory.info"
    assert "nothing that was acknowledged was lost" not in said(report).lower()
    assert "What the former primary alone had acknowledged cannot be told" in said(report)


def test_the_same_command_again_forgets_no_loss() -> None:
    again = ("failback", "pass", {**HOME, "lost": None, "lost_keys": []})
    untold = made(("failback", "pass", {**HOME, "lost": None, "untold": True}), again)
    assert (untold["verdict"], untold["records"]["lost"]) == ("could-not-verify", None)
    lost = made(("failback", "pass", {**HOME, "lost": 2, "lost_keys": ["agent-7: a", "agent-7: b"]}), again)
    assert (lost["verdict"], lost["records"]["lost"], len(lost["lost_keys"])) == ("pass", 2, 2)


def test_a_forced_failover_says_what_is_known_and_the_rejoin_what_was_lost() -> None:
    forced = {**OVER, "forced": True, "outside_fence": "power is off", "silent_seconds": 42.0}
    report = made(("failover", "pass", forced))
    assert report["records"]["lost"] is None
    assert "nothing was lost" not in _report_html.render(report, None)
    assert "whose last change was 42 s old, is told when it rejoins" in said(report)
    assert "takes no writes" not in said(report)  # nobody fenced it, nobody looked
    told = "No fence was raised around the former primary; what keeps applications from it, as was said: power is off."
    assert told in " ".join(said(report).split())
    lost = {**HOME, "lost": 2, "lost_keys": ["agent-7: a", "agent-7: b"], "forensic": "F-1"}
    report = made(("failover", "pass", forced), ("failback", "pass", lost))
    assert report["records"]["lost"] == 2 and report["lost_keys"] == ["agent-7: a", "agent-7: b"]
    assert report["store"] == {"before": {"name": "db-2"}, "after": {"name": "db-1"}}
    assert "2 acknowledged writes were on the former primary alone and are lost" in said(report)
    assert "agent-7: a" in said(report) and "kept in snapshot F-1" in _report_html.render(report, None)


PROVEN = {
    **OVER, "fenced_at": at(0.1), "promoted_at": at(0.7), "verified_at": at(-300),
    "proof": {"writes_refused": True, "tried_on": "agent-7", "fenced": 3, "not_fenced": ["raw reads by agent"]},
}  # fmt: skip


def test_the_page_shows_the_fence_of_the_old_primary_and_nothing_that_is_not_about_a_store() -> None:
    report = made(("failover", "pass", PROVEN))
    assert report["details"]["fence"] == {
        "fenced_at": "2025-03-04T03:12:00.100Z", "writes_refused": True, "reads_refused": None,
        "detail": "3 namespaces were fenced; a write to agent-7 was refused before the replica took over",
        "not_fenced": ["raw reads by agent"],
    }  # fmt: skip
    page = _report_html.render(report, None)
    for absent in ("Damage", "Hit rate", "Causes", "Validation", "Records of the namespace", "not known", "not proven"):
        assert absent not in page.partition("<body>")[2].partition('class="raw"')[0], absent
    assert '<span class="big">0.6 s</span><span class="sub">fence to promotion' in page
    assert "2025-03-04 03:07:00 UTC, before it took over" in page


def test_the_newest_change_of_servers_is_shown() -> None:
    home = {**HOME, "fenced_at": at(5), "promoted_at": at(7), "lag_seconds": 0.5, "proof": {"writes_refused": True}}
    report = made(("failover", "pass", PROVEN), ("failback", "pass", home))
    assert (report["details"]["failback"]["lag_seconds"], report["details"]["released_at"][-6:]) == (0.5, "7.000Z")
    assert '<span class="big">2.0 s</span><span class="sub">fence to promotion' in _report_html.render(report, None)


def test_a_failover_that_was_refused_shows_no_empty_figures() -> None:
    refused = {**OVER, "performed": False, "epoch": None, "position_before": None, "position_after": None}
    report = made(("failover", "fail", {**refused, "lag_seconds": None, "reason": "the replica is behind"}))
    assert report["store"]["after"] == report["store"]["before"]
    body = _report_html.render(report, None).partition("<body>")[2]
    assert "Key figures" not in body and "The fence" not in body and "the replica is behind" in body


@pytest.mark.parametrize("name", ["failover", "failback"])
def test_what_failed_is_run_again(name: str) -> None:
    result = {**OVER, "performed": False, "next_step": "mend the replication"}
    report = made((name, "fail", result))
    assert report["verdict"] == "fail"
    assert report["next_command"].endswith(f"memops.agent_memory.{name} -e memory_failover_scope=store")
    assert "mend the replication" in said(report)
