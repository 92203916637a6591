# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run at a terminal with the callback memops.agent_memory.runbook."""
from __future__ import annotations

import json
import pathlib
import re
import typing as t

import pytest

from tests.support.otlp_server import OtlpServer, attributes
from tests.support.playbooks import Site
from tests.support.terminal import Terminal

NS = "agent-7"
SGR = re.compile(r"\x1b\[[0-9;]*m")
#: What the runbook prints for each step of a rebuild without a failover.
STEPS = ["preflight", "isolate", "snapshot", "failover", "diagnose", "plan", "apply", "validate", "release", "baseline"]


def terminal(
    site: Site,
    playbook: str,
    *arguments: str,
    columns: int = 100,
    environment: t.Mapping[str, str] | None = None,
    **more: t.Any,
) -> Terminal:
    base = {**site.environment(), "ANSIBLE_STDOUT_CALLBACK": "memops.agent_memory.runbook"}
    del base["ANSIBLE_NOCOLOR"]
    return Terminal(site.command(playbook, *arguments, **more), {**base, **(environment or {})}, site.folder, columns)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[OtlpServer]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300000")
    with OtlpServer() as one:
        yield one


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site(tmp_path, secondary=False)


def test_a_rebuild_is_shown_as_its_steps_and_is_one_trace(site: Site, receiver: OtlpServer) -> None:
    site.fill(NS, 300)
    assert site.play("backup").status == 0
    site.read(NS, 100)
    site.flip(NS, [f"key-{n:05}" for n in range(20)])
    more = {"memory_monitor_seconds": 3, "memory_otlp_endpoint": receiver.endpoint}
    with site.working(NS), terminal(site, "rebuild", memory_namespace=NS, **more) as run:
        assert "  … Watch the namespace until the deadline" in run.seen("… Watch the namespace")
        assert run.status() == 0, run.screen()
        told, coloured = run.screen(), run.screen(colours=True)
    steps = re.findall(r"^  ✓ (\w+) +(\*?) +[\d.]+ (?:s|min)", told, re.MULTILINE)
    assert [name for name, _changed in steps] == [*STEPS, "monitor"]
    assert {name for name, changed in steps if not changed} == {"preflight", "failover"}
    assert told.count("20 to repair") == 1
    assert "…" not in told  # what went on at the moment is gone
    for noise in ("TASK [", "PLAY ", "included:", "skipping", "arg spec"):
        assert noise not in told
    assert f"PASS  {NS}  incident" in told and "State: closed." in told
    assert re.search(r"^Done in (?:[\d.]+ min ?)?(?:[\d.]+ s)?, \d+ changed\.$", told, re.MULTILINE)
    assert SGR.search(coloured)
    assert SGR.sub("", coloured).split() == told.split()
    assert not receiver.refused
    check_trace(receiver.spans, site)


def check_trace(spans: list[t.Any], site: Site) -> None:
    """One trace: the run, below it a span per step in the order of the report, below each what it did on the store."""
    assert len({span.trace_id for span in spans}) == 1
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (root,) = (span for span in spans if not span.parent_span_id)
    assert root.name == "memory_incident"
    incident = site.report()["incident"]
    for span in spans:
        assert attributes(span)["memory.incident"] == incident
        assert attributes(span)["memory.verdict"] == "pass"
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.status.code == 1
    steps = [span for span in spans if "memory.step" in attributes(span)]
    assert [span.name for span in steps] == [*STEPS, "monitor"]
    assert {span.parent_span_id for span in steps} == {root.span_id}
    done = {by_id[span.parent_span_id].name: attributes(span) for span in spans if span.name == "memory_operation"}
    assert {name: one.get("gen_ai.operation.name") for name, one in done.items()} == {
        "preflight": "search_memory",
        "isolate": None,
        "snapshot": "search_memory",
        "diagnose": "search_memory",
        "plan": "search_memory",
        "apply": "update_memory",
        "validate": "search_memory",
        "release": None,
        "baseline": "search_memory",
        "monitor": "search_memory",
    }
    assert done["apply"]["gen_ai.memory.record.count"] == 20
    assert {one["gen_ai.memory.store.id"] for one in done.values()} == {"site"}


def test_an_error_is_said_once_on_a_narrow_terminal_without_colour(site: Site) -> None:
    site.fill(NS, 1)
    with terminal(site, "rebuild", columns=60, environment={"NO_COLOR": "1"}, memory_namespace="agent-9") as run:
        assert run.status() != 0
        told, coloured = run.screen(), run.screen(colours=True)
    assert not SGR.search(coloured)
    assert "  ✗ preflight" in told
    assert " ".join(told.split()).count("has no namespace 'agent-9'.") == 1
    command = "    Next: name one of those that the playbook memops.agent_memory.info lists"
    assert command in told.splitlines()  # in one piece, though it is longer than the line
    wide = [line for line in told.splitlines() if len(line) > 60]
    assert all(" /" in line or "Next: " in line or "Report: " in line or "playbook -i" in line for line in wide), wide
    assert re.search(r"^Failed after .* on primary\.$", told, re.MULTILINE)


def test_several_hosts_have_lines_of_their_own_and_verbosity_shows_everything(site: Site) -> None:
    site.fill(NS, 5)
    inventory = json.loads(site.inventory.read_text())
    first = inventory["memory"]["hosts"].pop("primary")
    missing = {**first["memory_store"], "path": str(site.folder / "missing.db")}
    inventory["memory"]["hosts"] = {
        "host-a": {**first, "memory_cluster": "a"},
        "host-b": {**first, "memory_cluster": "b", "memory_store": missing},
    }
    site.inventory.write_text(json.dumps(inventory))
    with terminal(site, "isolate", memory_namespace=NS) as run:
        assert run.status() != 0
        told = run.screen()
    assert re.search(r"^  host-a  ✓ isolate    \* .*reads and writes are refused$", told, re.MULTILINE)
    assert re.search(r"^  host-b  ✗ isolate ", told, re.MULTILINE)
    assert f"There is no memory store at {missing['path']}" in " ".join(told.split())
    assert re.search(r"^Failed after .* on host-b\.$", told, re.MULTILINE)
    with terminal(site, "isolate", "-v", "--limit", "host-a", memory_namespace=NS) as run:
        assert run.status() == 0
        told = run.screen()
    assert "TASK [memops.agent_memory.isolate : Quarantine the namespace and prove the fence]" in told
    assert "PLAY RECAP" in told and "✓" not in told
