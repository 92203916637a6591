# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tenants choose the names of namespaces and records. Whatever playbook meets them, they are text and not evaluated."""

from __future__ import annotations

import json
import pathlib
import shlex
import typing as t

from tests.support.playbooks import Outcome, Site

OURS = "memops.agent_memory."


def test_names_that_look_like_templates_are_text(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False, memory_metrics_dir=str(tmp_path), memory_doctor_fail=False)
    evaluated = tmp_path / "evaluated"
    touch = "{{ lookup('pipe', 'touch " + str(evaluated) + "') }}"
    names = [touch, "{{ 1 + 1 }}", "{% raw %}", f"x; touch {evaluated} #"]
    site.fill("agent-7", 20)
    with site.memory() as memory:
        for name in names:
            memory.write_many(name, {touch: {"fact": touch}, "{{ 2 + 2 }}": {}, "{% endraw %}": {}})
    many = site.play("backup", *(OURS + name for name in ("scrub", "metrics", "info", "doctor")))
    assert many.status == 0, many.text
    assert_text(many, names[1:3])
    metrics = (tmp_path / "memops_site_primary.prom").read_text()
    assert 'namespace="{{ 1 + 1 }}"' in metrics and f"touch {evaluated}" in metrics

    with site.memory() as memory:
        memory.write("{{ 1 + 1 }}", touch, {"newer": True}, reason="test")
    site.flip("agent-7", ["key-00003"])
    site.flip("{{ 1 + 1 }}", [touch])  # no snapshot has its newest version
    asked = '{"memory_namespace": ["agent-7", !unsafe "{{ 1 + 1 }}"], "memory_accept_loss": true}'
    steps = site.play("isolate", *(OURS + name for name in ("report", "rebuild")), "-e", asked)
    assert steps.status != 0, "nobody reads, so nobody can tell"
    assert_text(steps, ["{{ 1 + 1 }}"])
    reports = [json.loads(path.read_text()) for path in site.reports.glob("*/report.json")]
    (one,) = (report for report in reports if report["namespace"] == "{{ 1 + 1 }}")
    assert one["lost_keys"] == [touch] and one["strategy"] == "hard"
    words = shlex.split(one["next_command"])
    assert words[-2:] == ["-e", '{"memory_namespace": !unsafe "{{ 1 + 1 }}"}']
    refused = site.play("release", "-e", "memory_namespace=" + touch.replace(" ", "\\ "))
    assert refused.status != 0 and "memory_namespace holds a template" in refused.text
    assert "Next: where a template is meant, set it in the inventory" in " ".join(refused.text.split())
    assert not evaluated.exists()


def assert_text(outcome: Outcome, names: t.Sequence[str]) -> None:
    for name in names:
        assert name in outcome.text, outcome.text
    assert "namespace 2" not in outcome.text and "['2']" not in outcome.text, outcome.text
