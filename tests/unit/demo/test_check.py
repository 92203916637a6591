# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's checks hold for a run that was right, and each kind of wrong makes one of them fail."""
from __future__ import annotations

import copy
import typing as t

import pytest

from demo import check
from demo.journal import Journal

S = 1_000_000
FENCED, FAILED_OVER, RELEASED, END = 100, 105, 110, 120


def rfc(second: int) -> str:
    return f"1970-01-01T00:{second // 60:02}:{second % 60:02}Z"


def line(at: float, operation: str, result: str, key: str = "k", namespace: str = "agent-7", **more: t.Any) -> t.Any:
    begun = int(at * S)
    return {
        "begun": begun, "ended": begun + 1000, "operation": operation, "namespace": namespace, "key": key,
        "result": result, **more,
    }  # fmt: skip


LINES = [
    line(1, "write", "ok", digest="one"),
    line(1.5, "write", "ok", key="gone", digest="g"),
    line(2, "write", "ok", namespace="agent-8", digest="eight"),
    line(2.5, "write", "ok", namespace="tenant-acme", digest="acme"),
    line(91, "read", "hit", digest="one"),
    line(92, "read", "corrupt", key="gone"),
    line(101, "read", "miss"),
    line(102, "write", "refused", digest="two"),
    line(103, "read", "hit", namespace="agent-8", digest="eight"),
    line(111, "read", "hit", digest="one"),
    line(112, "write", "ok", digest="two"),
    line(113, "read", "hit", digest="two"),
    line(114, "read", "miss", key="gone"),
    line(115, "read", "hit", namespace="tenant-acme", digest="acme"),
]
TRUTH = {
    "namespace": "agent-7",
    "lost": {"flipped": ["gone"]},
    "kinds": {"flipped": ["k"], "imported_new": ["import/1"], "imported_over": []},
}
REPORT = {
    "verdict": "pass",
    "state": "closed",
    "lost_keys": ["gone"],
    "records": {"recovered": 1, "lost": 1, "suspect": 1, "conflicted": 0},
    "causes": [
        {"cause": name}
        for name in ("storage-failure", "misplaced-ciphertexts", "lost-rows", "key-rotation", "bulk-write")
    ],
    "hit_rate": {"before": 0.5, "after": 2 / 3},
    "rto_seconds": 14.0,
    "steps": [
        {"name": "preflight", "started": rfc(98), "seconds": 1.0},
        {"name": "release", "started": rfc(RELEASED - 1), "seconds": 1.0},
        {"name": "monitor", "started": rfc(111), "seconds": 9.0},
    ],
    "details": {
        "reasons": [],
        "fence": {"fenced_at": rfc(FENCED)},
        "released_at": rfc(RELEASED),
        "onset": {"at": rfc(90)},
        "failover": {"performed": False},
        "suspect_keys": ["import/1"],
        "conflict_keys": [],
    },
}


def judge(report: t.Any = None, lines: t.Any = None, directory: t.Any = "/nonexistent") -> list[str]:
    """The claims that do not hold."""
    report, lines = REPORT if report is None else report, LINES if lines is None else lines
    said: list[str] = []
    checks = check.Checks(said.append)
    check.run(check.Case(report, str(directory), TRUTH, Journal(lines), checks))
    failed = [text for text in said if "✗" in text]
    assert checks.failed == len(failed)
    return failed


def test_a_run_that_was_right() -> None:
    assert judge() == []


@pytest.mark.parametrize(
    ("path", "value", "claim"),
    [
        (("verdict",), "could-not-verify", "verdict"),
        (("state",), "released", "verdict"),
        (("lost_keys",), [], "lost are exactly"),
        (("lost_keys",), ["gone", "k"], "lost are exactly"),
        (("records", "recovered"), 0, "recovered"),
        (("records", "conflicted"), 1, "conflicts of the failback"),
        (("causes",), [], "among the causes"),
        (("hit_rate", "before"), 0.6, "hit rate before"),
        (("hit_rate", "after"), None, "hit rate after"),
        (("rto_seconds",), 10.0, "first accepted write"),
        (("rto_seconds",), None, "first accepted write"),
        (("details", "suspect_keys"), [], "suspect are exactly"),
    ],
)
def test_a_report_that_is_wrong(path: tuple[str, ...], value: t.Any, claim: str) -> None:
    report = copy.deepcopy(REPORT)
    place: t.Any = report
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    failed = judge(report)
    assert len(failed) >= 1
    assert claim in failed[0]


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        (line(104, "read", "hit", digest="one"), "in quarantine"),
        (line(104, "write", "ok", key="other", digest="x"), "in quarantine"),
        (line(104, "read", "corrupt"), "in quarantine"),
        (line(116, "read", "hit", digest="never written"), "had not written"),
        (line(116, "read", "corrupt"), "had not written"),
        (line(116, "read", "hit", digest="one"), "after the release"),
        (line(116, "read", "miss"), "after the release"),
        (line(104, "write", "refused", namespace="agent-8", digest="x"), "agent-8 noticed nothing"),
        (line(104, "read", "miss", namespace="tenant-acme"), "tenant-acme noticed nothing"),
    ],
)
def test_an_agent_that_saw_something_wrong(wrong: t.Any, claim: str) -> None:
    lines = sorted([*LINES, wrong], key=lambda one: one["begun"])
    assert any(claim in text for text in judge(lines=lines))


def test_a_quarantine_that_nobody_tried_proves_nothing() -> None:
    lines = [one for one in LINES if not FENCED * S <= one["begun"] < RELEASED * S or one["namespace"] != "agent-7"]
    assert any("in quarantine" in text for text in judge(lines=lines))


@pytest.mark.parametrize("there", [True, False])
def test_writes_of_the_failover_are_looked_for_in_the_secondary(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    report = copy.deepcopy(REPORT)
    report["details"]["failover"]["performed"] = True
    report["steps"].append({"name": "failover", "started": rfc(FAILED_OVER), "seconds": 1.0})
    report["rto_seconds"] = 9.0
    report["hit_rate"]["after"] = 0.5
    lines = sorted([*LINES, line(107, "write", "ok", digest="two", sequence=9)], key=lambda one: one["begun"])
    monkeypatch.setattr(check, "written_to", lambda path, namespace: {("k", 9)} if there else set())
    failed = judge(report, [one for one in lines if one["begun"] != 111 * S])
    assert [text for text in failed if "secondary" in text] == failed
    assert len(failed) == (0 if there else 1)


def test_all_lost_keys_count_also_behind_the_first_thousand(tmp_path: t.Any) -> None:
    (tmp_path / "lost_keys.jsonl").write_text('"gone"\n{"key": "more"}\n')
    assert check.lost_keys(str(tmp_path), {"lost_keys": ["gone"]}) == {"gone", "more"}


def test_planted_words_are_found_but_where_they_belong(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.places, "HOME", str(tmp_path))
    (tmp_path / "master.key").write_text("hush")
    (tmp_path / "store.db").write_bytes(b"\x00sealed\x00")
    said: list[str] = []
    case = check.Case(REPORT, str(tmp_path), TRUTH, Journal([]), check.Checks(said.append))
    check.secrets(case, ["hush"])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rebuild.log").write_text("ok hush ok")
    check.secrets(case, ["hush"])
    assert [text.strip()[0] for text in said] == ["✓", "✗"]
    assert "logs/rebuild.log" in said[1]
