# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which incident the steps of a run belong to."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest
from ansible import constants as C

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _steps

NS = "agent-7"


class Reports:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "parent" / "reports"
        self.count = 0

    def step(self, name: str, *, failed: bool = False, host: str = "home", keep: bool = True, **result: t.Any) -> None:
        self.count += 1
        step = {
            "name": name,
            "namespace": NS,
            "verdict": "fail" if failed else "pass",
            "failed": failed,
            "changed": False,
            "started": f"2025-03-04T03:12:{self.count:02d}Z",
            "host": host,
            "attempt": "ops:1:1",
            "result": result,
        }
        _steps.remember("home", step)
        if keep:
            _steps.save(str(self.folder), "home", NS, cluster="site")

    def earlier(self, incident: str, *names: str, age: int = 0, cluster: str = "site", host: str = "home") -> None:
        """An incident of a run before this one."""
        folder = self.folder / incident
        folder.mkdir(parents=True)
        steps = [
            {"name": n, "namespace": NS, "verdict": "pass", "host": host, "result": {"incident": incident}}
            for n in names
        ]
        (folder / "steps.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
        (folder / "report.json").write_text(json.dumps({"cluster": cluster}))
        os.utime(folder / "steps.jsonl", (1_700_000_000 - age, 1_700_000_000 - age))

    def names(self, incident: str) -> list[str]:
        lines = (self.folder / incident / "steps.jsonl").read_text().splitlines()
        return [json.loads(line)["name"] for line in lines]

    def incident(self, **more: t.Any) -> t.Optional[str]:
        return _steps.incident_of(str(self.folder), "home", NS, cluster="site", **more)


@pytest.fixture
def reports(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Reports:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    return Reports(tmp_path)


CLOSED = ("isolate", "apply", "validate", "release", "monitor")


def test_a_failed_step_without_an_incident_goes_to_the_open_one(reports: Reports) -> None:
    reports.earlier("inc-old", "isolate", age=50)
    reports.earlier("inc-new", "isolate", "snapshot", age=5)
    reports.earlier("no-incident-20250304T031200Z", "isolate")
    reports.step("preflight", failed=True)
    assert reports.incident() == "inc-new"
    assert reports.names("inc-new") == ["isolate", "snapshot", "preflight"]
    assert reports.names("inc-old") == ["isolate"]


@pytest.mark.parametrize(
    "earlier",
    [
        {"names": CLOSED},
        {"names": ("preflight",)},
        {"names": ("isolate",), "cluster": "other"},
        {"names": ("isolate",), "host": "elsewhere"},
    ],
    ids=["closed", "untouched", "of another cluster", "of another host"],
)
def test_what_is_not_open_here_is_left_alone(reports: Reports, earlier: t.Any) -> None:
    reports.earlier("inc-1", *earlier.pop("names"), **earlier)
    before = reports.names("inc-1")
    reports.step("diagnose", failed=True)
    assert reports.incident() is None
    assert reports.names("inc-1") == before


def test_an_older_incident_that_was_never_closed_is_not_taken_for_the_newest(reports: Reports) -> None:
    reports.earlier("inc-stale", "isolate", age=50)
    reports.earlier("inc-done", *CLOSED)
    assert reports.incident() is None


def test_a_preflight_that_saw_no_open_incident_begins_a_new_one(reports: Reports) -> None:
    reports.earlier("inc-stale", "isolate")
    reports.step("preflight", incident=None)
    assert reports.incident() is None and reports.names("inc-stale") == ["isolate"]
    reports.step("isolate", incident="inc-new")
    assert reports.incident() == "inc-new" and reports.names("inc-new") == ["preflight", "isolate"]


def test_the_incident_of_the_home_goes_before_that_of_a_secondary(reports: Reports) -> None:
    reports.step("isolate", incident="inc-home")
    reports.step("validate", host="secondary", incident="inc-away")
    assert reports.incident() == "inc-home"
    assert [p.name for p in reports.folder.iterdir()] == ["inc-home"]
    assert reports.names("inc-home") == ["isolate", "validate"]


def test_a_step_on_the_secondary_alone_goes_to_the_open_incident(reports: Reports) -> None:
    reports.earlier("inc-home", "isolate")
    reports.step("validate", failed=True, host="secondary", incident="inc-away")
    assert reports.names("inc-home") == ["isolate", "validate"]


def test_a_note_without_an_incident_goes_where_a_task_before_it_said(reports: Reports) -> None:
    _steps.remember_incident("home", NS, None)
    _steps.remember_incident("home", NS, "restore-abc")
    reports.step("note", keep=False)
    assert reports.incident() is None
    _steps.remember_incident("home", NS, "inc-1")
    reports.step("failover", performed=True)
    assert reports.incident() == "inc-1" and reports.names("inc-1") == ["note", "failover"]


def test_an_incident_that_the_operator_names_is_believed(reports: Reports) -> None:
    reports.earlier("inc-1", "isolate", age=9)
    reports.earlier("inc-2", "isolate")
    assert reports.incident(named="inc-1") == "inc-1"
    assert reports.incident(named="inc-unheard") == "inc-2"


def test_folders_and_files_are_not_for_everybody(reports: Reports) -> None:
    before = os.umask(0)
    try:
        reports.step("isolate", incident="inc-1")
    finally:
        os.umask(before)
    assert reports.folder.stat().st_mode & 0o777 == 0o750
    assert (reports.folder / "inc-1").stat().st_mode & 0o777 == 0o750
    assert (reports.folder / "inc-1" / "steps.jsonl").stat().st_mode & 0o777 == 0o640


def test_what_is_refused_after_a_false_alarm_is_not_of_the_incident_that_is_over(reports: Reports) -> None:
    reports.earlier("INC-1", "isolate", "snapshot", "diagnose", "release")
    reports.step("monitor", failed=True, error="cannot-proceed")
    assert reports.incident() is None
    assert reports.names("INC-1") == ["isolate", "snapshot", "diagnose", "release"]
    reports.earlier("INC-2", "isolate", "plan", "apply", "validate", "release", age=-9)
    assert reports.incident() == "INC-2"  # its watch is still to come


def test_what_opens_an_incident_of_its_own_is_no_runbook(reports: Reports) -> None:
    for name in ("restore-a", "rotation-a", "held-a", "retention-a"):
        _steps.remember_incident("home", NS, name)
    assert reports.incident() is None
    role = pathlib.Path(__file__).resolve().parents[3] / "roles" / "report" / "tasks" / "again.yml"
    assert "'(held|restore|retention|rotation)-'" in role.read_text(encoding="utf-8")
