# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run adds up to: verdict and figures."""

from __future__ import annotations

import json
import shlex
import typing as t

import jsonschema
import pytest

from ansible_collections.memops.agent_memory.plugins.plugin_utils import (
    _report,
    _report_html,
    _report_input,
    _report_text,
    _report_view,
)
from tests.unit.report.report_help import SCHEMA, VALIDATOR, at, build, extra, find, good


def test_schema_itself_is_sound_and_refuses_what_it_should() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for spoil in (
        {"verdict": "maybe"},
        {"extra": 1},
        {"rto_seconds": -1},
        {"state": "fine"},
        {"lost_keys": ["k"] * 1001},
        {"next_command": "rm"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate({**build(good()), **spoil})


def test_a_good_run_passes_with_its_numbers() -> None:
    report = build(good())
    assert (report["verdict"], report["state"], report["next_command"]) == ("pass", "closed", "")
    assert report["details"]["reasons"] == []
    assert report["rto_seconds"] == 72.0
    assert report["rpo_seconds"] == 30.0
    assert report["records"] == {
        "expected": 1000,
        "good_before": 968,
        "damaged": 30,
        "recovered": 28,
        "suspect": 2,
        "conflicted": 0,
        "lost": 2,
    }
    assert report["lost_keys"] == ["k0007", "k0501"]
    assert report["hit_rate"] == {
        "before": 0.91,
        "after": 0.95,
        "source": "access log: 400 reads before the fence (the rate before is that since the onset)"
        " and 500 reads after release",
    }
    assert report["accuracy"] == {"baseline": 0.7, "after": 0.93}
    assert [c["cause"] for c in report["causes"]] == ["unlocked-bulk-write", "storage-failure"]
    assert report["snapshots"] == {"forensic": "F-1", "sources": ["S-1"], "baseline": "B-1"}
    assert report["strategy"] == "hard"
    assert report["store"]["before"] == {"engine": "sqlite", "path": "/srv/a.db", "generation": 1}
    assert report["store"]["after"]["generation"] == 2
    assert report["details"]["forensic"] == {"records": 990, "damaged": 30, "bytes": 4096}
    assert report["details"]["quarantine"] == [{"from": "2025-03-04T03:12:10.000Z", "to": "2025-03-04T03:13:10.000Z"}]


def test_no_secret_of_a_store_mapping_is_shown() -> None:
    assert "hunter2" not in json.dumps(build(good()))


def _set(name: str, *path: str, to: t.Any) -> t.Callable[[t.List[t.Dict[str, t.Any]]], None]:
    def change(steps: t.List[t.Dict[str, t.Any]]) -> None:
        place: t.Any = find(steps, name)
        for part in path[:-1]:
            place = place[part]
        if to is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("spoil", "verdict", "said"),
    [
        (_set("validate", "result", "benchmark", "after", to=0.5), "fail", "accuracy"),
        (_set("validate", "result", "verdict", to="could-not-verify"), "could-not-verify", "Validate could not"),
        (_set("validate", "verdict", to="could-not-verify"), "could-not-verify", "Validate could not"),
        (_set("validate", "verdict", to="nonsense"), "could-not-verify", "Validate could not"),
        (_set("snapshot", "verdict", to="fail"), "fail", "Snapshot failed"),
        (_set("snapshot", "result", "unreachable", to=True), "fail", "Snapshot failed"),
        (_set("isolate", "result", "proof", to=KeyError), "could-not-verify", "not proven"),
        (_set("isolate", "result", "proof", "writes_refused", to=False), "fail", "does not refuse writes"),
        (
            _set("isolate", "result", "proof", to={"writes_refused": False, "reads_refused": True, "outside": "off"}),
            "could-not-verify",
            "not proven that the fence refuses writes",
        ),
        (_set("plan", "result", "records", "expected", to=KeyError), "could-not-verify", "not known"),
        (_set("plan", "result", "records", "lost", to=101), "fail", "more than the limit"),
        (_set("plan", "result", "lost_total", to=3), "fail", "Only 2 of the 3"),
        (_set("plan", "result", "could_not_verify", to=["the access log"]), "could-not-verify", "the access log"),
        (_set("monitor", "result", "samples", to=[]), "could-not-verify", "fewer than 100 reads"),
        (_set("monitor", "result", "samples", to=[{"at": at(1), "hits": 1, "misses": 99}]), "fail", "below 80 %"),
    ],
)
def test_one_thing_wrong_is_never_a_pass(spoil: t.Callable[[t.Any], None], verdict: str, said: str) -> None:
    steps = good()
    spoil(steps)
    report = build(steps)
    assert report["verdict"] == verdict
    assert said in " ".join(r["text"] for r in report["details"]["reasons"])
    assert report["next_command"]


@pytest.mark.parametrize("name", _report.NEEDED)
def test_every_needed_step_is_needed(name: str) -> None:
    report = build([s for s in good() if s["name"] != name])
    assert report["verdict"] == "could-not-verify"
    assert name in report["details"]["not_run"]


def test_nothing_expected_cannot_be_rated() -> None:
    steps = good()
    find(steps, "plan")["result"].update(records={"expected": 0, "lost": 0}, lost_keys=[], lost_total=0)
    report = build(steps)
    assert report["verdict"] == "could-not-verify"
    assert report["details"]["loss_ratio"] is None


def test_a_loss_within_the_limit_passes_only_when_all_keys_are_listed() -> None:
    steps = good()
    keys = [f"k{i}" for i in range(1500)]
    find(steps, "plan")["result"].update(
        records={"expected": 20000, "lost": 1500, "damaged": 1500, "repair": 0}, lost_total=1500, lost_keys=keys[:1000]
    )
    assert build(steps)["verdict"] == "fail"
    report = build(steps, lost_listed=1500)
    assert report["verdict"] == "pass"
    assert len(report["lost_keys"]) == 1000
    assert build(steps, lost_listed=1500, slo={"max_loss": "0.05"})["verdict"] == "fail"


@pytest.mark.parametrize(
    ("older", "said"),
    [
        (0, "are lost: no good copy was found anywhere. Every"),
        (1, "nobody has a good copy of the newest version, and an older one is in its place for 1 of them. Every"),
        (2, "nobody has a good copy of the newest version, and an older one is in its place. Every"),
    ],
)
def test_where_an_older_version_serves_nobody_says_that_there_is_no_copy(older: int, said: str) -> None:
    steps = good()
    find(steps, "plan")["result"]["lost_older"] = older
    assert said in " ".join(_report_text.render(build(steps)).split())


def test_an_unusable_limit_is_said_and_never_a_pass() -> None:
    report = build(good(), slo={"max_loss": "plenty", "rto": "soon"})
    assert report["verdict"] == "could-not-verify"
    assert report["details"]["targets"]["rto_seconds"] is None
    assert len(report["details"]["notes"]) == 2


def test_a_resumed_run_counts_the_newest_and_keeps_the_rest_in_the_timeline() -> None:
    steps = good("plan") + [extra("apply", "fail", changed=True)] + good("isolate", "ops:200:2")
    steps[-1]["changed"] = False
    steps += [dict(s, attempt="ops:200:2") for s in good()[5:]]
    report = build(steps)
    assert report["verdict"] == "pass"
    assert [s["name"] for s in report["steps"]].count("apply") == 1
    timeline = report["details"]["timeline"]
    assert len(timeline) == len(steps)
    assert [(i["attempt"], i["verdict"], i["counts"]) for i in timeline if i["name"] == "apply"] == [
        (1, "fail", False),
        (2, "pass", True),
    ]


def test_results_from_before_the_fence_came_back_do_not_count() -> None:
    again = [dict(s, attempt="b") for s in good("diagnose")]
    report = build(good() + again)
    assert report["details"]["not_run"] == ["plan", "apply", "validate", "release", "baseline", "monitor"]
    assert (report["verdict"], report["state"]) == ("could-not-verify", "quarantined")
    assert report["snapshots"]["baseline"] is None


def test_of_several_hosts_the_worst_counts_and_a_retry_replaces() -> None:
    steps = good()
    other = dict(extra("preflight", "fail"), host="mem-b", detail="mem-b is down.")
    report = build([steps[0], other, *steps[1:]])
    assert report["verdict"] == "fail"
    assert report["steps"][0]["detail"] == "mem-b is down."
    assert build([steps[0], other, dict(other, verdict="pass"), *steps[1:]])["verdict"] == "pass"


def test_a_check_run_did_nothing() -> None:
    report = build([dict(s, check=True) for s in good()])
    assert (report["verdict"], report["state"], report["steps"]) == ("could-not-verify", "untouched", [])


def test_without_an_access_log_the_recovery_ends_with_the_release() -> None:
    steps = good()
    find(steps, "preflight")["result"]["store"]["layout"] = "langgraph_store"
    del find(steps, "release")["result"]["first_write_at"]
    report = build(steps)
    assert report["rto_seconds"] == 70.0 and report["details"]["first_write_at"] is None
    assert sum(note.startswith("Without an access log") for note in report["details"]["notes"]) == 2


def test_the_service_is_back_with_the_first_write_on_the_secondary() -> None:
    steps = good()
    home = build(steps)
    find(steps, "release")["result"]["first_write_at"] = at(20)
    away = build(steps)
    assert home["rto_seconds"] > away["rto_seconds"] > 0
    assert away["details"]["first_write_at"].startswith(at(20).rstrip("Z"))


@pytest.mark.parametrize(("apart", "said"), [(3600, "3,600 s ahead of"), (-3600, "3,599 s behind"), (20, None)])
def test_the_time_to_recovery_is_that_of_one_clock(apart: int, said: t.Optional[str]) -> None:
    steps = good()
    right = build(steps)["rto_seconds"]
    for step, name, seconds in (("isolate", "fenced_at", 10), ("release", "first_write_at", 72)):
        find(steps, step)["result"][name] = at(seconds + apart)
    report = build(steps)
    assert abs(report["rto_seconds"] - right) < 2 + abs(apart) * (said is None)
    assert [said in note for note in report["details"]["notes"] if "clock" in note] == [True] * (said is not None)


def test_what_is_missing_is_null_and_clocks_that_disagree_are_said() -> None:
    steps = good()
    find(steps, "release")["result"]["first_write_at"] = at(-500)
    del find(steps, "plan")["result"]["newest_recovered_at"]
    report = build(steps)
    assert report["rto_seconds"] is None
    assert report["rpo_seconds"] is None
    assert any("clocks" in n for n in report["details"]["notes"])
    assert build(good("plan"))["records"]["recovered"] is None


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("15m", 900),
        ("30 min", 1800),
        ("1.5h", 5400),
        (90, 90),
        ("90", 90),
        ("2d", 172800),
        ("soon", None),
        (-1, None),
        (float("nan"), None),
        (True, None),
        (None, None),
    ],
)
def test_durations(value: t.Any, wanted: t.Any) -> None:
    assert _report_input.duration(value) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("2025-03-04T05:06:07Z", "2025-03-04T05:06:07.000Z"),
        ("2025-03-04T05:06:07.5+02:00", "2025-03-04T03:06:07.500Z"),
        (1741064767000000, "2025-03-04T05:06:07.000Z"),
        ("2025-03-04T05:06:07", None),
        ("yesterday", None),
        (10**30, None),
        ("0001-01-01T00:00:00+23:00", None),
    ],
)
def test_times(value: t.Any, wanted: t.Any) -> None:
    assert _report_input.rfc3339(value) == wanted


def test_steps_are_read_past_a_torn_line(tmp_path: t.Any) -> None:
    path = tmp_path / "steps.jsonl"
    lines = [json.dumps(s) for s in good()]
    path.write_bytes("\n".join(lines).encode() + b'\n[1]\n\xff\xfe\n{"name": "mon')
    steps, unreadable = _report_input.read_steps(str(path))
    assert steps == good()
    assert unreadable == 3
    assert "3 lines" in build(steps, unreadable=unreadable)["details"]["notes"][0]
    assert _report_input.read_steps(str(tmp_path / "none")) == ([], 0)


def test_files_are_written_whole_and_not_for_everybody(tmp_path: t.Any) -> None:
    report = build(good())
    paths = _report.write_report(str(tmp_path / "INC-1"), report, "<p>\ud800</p>")
    with open(paths["json"], encoding="utf-8") as stream:
        assert json.load(stream) == report
    with open(paths["html"], encoding="utf-8") as stream:
        assert stream.read() == "<p>?</p>"
    assert (tmp_path / "INC-1" / "report.json").stat().st_mode & 0o007 == 0
    assert sorted(p.name for p in (tmp_path / "INC-1").iterdir()) == ["report.html", "report.json"]


def test_the_short_text_fits_and_names_what_matters() -> None:
    steps = good("plan")
    find(steps, "plan")["detail"] = "x" * 500
    find(steps, "plan")["result"]["lost_keys"] = ["a\n\0b", "k" * 10000]
    text = _report_text.render(build(steps, inventory=["inventories/production/hosts.yml"]), "/srv/r/report.html")
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "could-not-verify" not in text and "COULD NOT" not in text
    for wanted in (
        "PLAN PASSED",
        "next in the runbook is apply",
        "Only apply: ansible-playbook -i inventories/production/hosts.yml memops.agent_memory.apply",
        "isolate",
        "2 of 1,000",
        "a\\n\\0b",
        "quarantined",
        "/srv/r/report.html",
        "not run",
    ):
        assert wanted in text
    command = text[text.index("Next: ") + 6 :].split("\nReport", 1)[0]
    assert shlex.split(command.replace("\\\n", "")) == shlex.split(
        build(steps, inventory=["inventories/production/hosts.yml"])["next_command"]
    )


def test_sums_and_verdicts_of_the_parts_are_read_as_the_operations_give_them() -> None:
    steps = good()
    find(steps, "monitor")["result"]["hit_rate"] = {"value": 0.9, "reads": 200, "hits": 180, "misses": 15, "corrupt": 5}
    find(steps, "validate")["result"] = {
        "verdict": "pass",
        "integrity": {"findings": {"checksum": 0}},
        "benchmark": {"cases": 40, "accuracy": 0.95, "baseline": 0.7, "threshold": 0.91},
        "canary": {"verdict": "pass", "why": "it came back"},
    }
    report = build(steps)
    assert report["hit_rate"]["after"] == 0.9
    assert report["accuracy"] == {"baseline": 0.7, "after": 0.95}
    assert report["details"]["validate"]["findings"] == 0
    assert report["details"]["validate"]["canary"] == "pass: it came back"


def test_where_the_hit_rate_is_from_and_what_a_plan_leaves_alone_are_told() -> None:
    steps = good()
    find(steps, "diagnose")["result"]["hit_rate"] = {"before": None, "samples": 0}
    find(steps, "monitor")["result"]["hit_rate"] = {"value": 0.97, "reads": None, "source": "prometheus"}
    find(steps, "plan")["result"]["warned"] = ["1 key of the last good snapshot is not there any more."]
    report = build(steps)
    assert report["hit_rate"] == {"before": None, "after": 0.97, "source": "prometheus: after release"}
    assert "1 key of the last good snapshot is not there any more." in report["details"]["notes"]
    counted = {"value": 1.0, "hits": 135, "misses": 0, "corrupt": 0, "source": "probes"}
    find(steps, "monitor")["result"]["hit_rate"] = counted
    assert build(steps)["hit_rate"]["source"] == "probes: 135 reads after release"


def test_the_bar_of_the_plan_and_the_map_speak_of_the_plan_and_of_peoples_keys() -> None:
    steps = good()
    assert "in conflict (plan)" not in [part["what"] for part in _report_view.plan_bar(build(steps))]
    steps.insert(7, extra("failback", merged=9, conflicts=3))
    report = build(steps)
    assert report["records"]["conflicted"] == 3
    assert "in conflict (plan)" not in [part["what"] for part in _report_view.plan_bar(report)]
    assert "Conflicted (plan and failback)" in _report_html.render(report)
    find(steps, "plan")["result"]["records"]["conflicted"] = 2
    part = next(p for p in _report_view.plan_bar(build(steps)) if p["kind"] == "conflict")
    assert (part["what"], part["n"], build(steps)["records"]["conflicted"]) == ("in conflict (plan)", 2, 5)
    canary = {"first_key": "\0memops/canary", "last_key": "\0memops/canary", "rows": 1, "damaged": 0}
    find(steps, "diagnose")["result"]["damage_map"].insert(0, canary)
    damage = _report_view.damage(build(steps))
    assert damage is not None and damage["first"] == "k0000"


def test_steps_stand_in_the_order_of_the_runbook_and_say_what_happened() -> None:
    steps = good()
    find(steps, "isolate")["detail"] = ""
    steps.append({**extra("preflight", records=1200, newest_snapshot="S-9"), "detail": ""})
    find(steps, "snapshot")["detail"] = ""
    steps.insert(7, extra("failback", merged=9, conflicts=3))
    report = build(steps)
    names = [step["name"] for step in report["steps"]]
    assert names.index("preflight") == 0
    assert names.index("validate") < names.index("failback") < names.index("release")
    said = {step["name"]: step["detail"] for step in report["steps"]}
    assert said["preflight"] == "1,200 records, newest snapshot S-9"
    assert said["isolate"] == "reads and writes are refused"
    assert "F-1" in said["snapshot"]


def test_a_failback_that_was_cut_short_counts_until_the_release_proves_that_it_came_home() -> None:
    lost = {**extra("failback"), "verdict": "fail", "detail": "memory-1 cannot be reached"}
    steps = good()
    released = next(i for i, step in enumerate(steps) if step["name"] == "release")
    assert build([*steps[:released], lost])["verdict"] == "fail"
    assert build([*steps[:released], lost, *steps[released:]])["verdict"] == "pass"
    assert build([*steps, lost])["verdict"] == "fail"


def test_what_a_step_does_not_say_is_not_guessed() -> None:
    steps = good("isolate")
    find(steps, "isolate").update(detail="", result={"fenced_at": at(10)})
    assert build(steps)["steps"][1]["detail"] == ""


def test_the_failover_names_the_hosts_on_both_sides() -> None:
    steps = good()
    moved = {"from": {"path": "/srv/a.db"}, "to": {"path": "/srv/b.db", "host": "memory-2"}}
    steps.insert(3, extra("failover", performed=True, **moved))
    home = find(steps, "preflight")["host"]
    assert home and build(steps)["details"]["failover"]["from"] == home
    del moved["to"]["host"]
    steps[3]["result"].update(moved)
    assert build(steps)["details"]["failover"]["from"] == "/srv/a.db"
