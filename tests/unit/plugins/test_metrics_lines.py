# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role metrics says: where the samples went and what needs a look, and each sample only when asked for."""

from __future__ import annotations

import json
import pathlib
import typing as t

from jinja2 import Environment

TEMPLATE = pathlib.Path(__file__).resolve().parents[3] / "roles" / "metrics" / "templates" / "lines.j2"


def sample(name: str, value: float, namespace: str | None = None) -> dict[str, t.Any]:
    return {"name": f"memops_{name}", "value": value, "labels": {"namespace": namespace} if namespace else {}}


def lines(metrics: list[dict[str, t.Any]], show: bool = False) -> list[str]:
    environment = Environment(trim_blocks=True)
    environment.filters.update(to_json=json.dumps, bool=bool)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    given = {"metrics_result": {"metrics": metrics}, "metrics_show": show, "metrics_went": " went to /m/a.prom"}
    return [line for line in template.render(given).splitlines() if line]


def test_thousands_of_namespaces_are_a_few_lines() -> None:
    spaces = [f"t{n:04}" for n in range(3000)]
    found = [sample(name, 0.0, one) for one in spaces for name in ("records", "integrity_findings", "fence_standing")]
    assert lines(found) == ["9000 samples of 3000 namespaces went to /m/a.prom."]
    found += [sample("integrity_findings", 2.0, f"x\n{n}") for n in range(12)]
    found += [sample("fence_standing", 1.0, "{{ 1 + 1 }}"), sample("repository_up", 1.0)]
    told = lines(found)
    assert len(told) == 3 and told[1].startswith(r'Damaged records: "x\n0" (2), ')
    assert told[1].endswith(r', "x\n9" (2) and 2 more.') and told[2] == 'Quarantined: "{{ 1 + 1 }}".'


def test_every_sample_has_a_line_when_asked_for() -> None:
    found = [sample("records", 5.0, "a\nb"), sample("hit_rate", 0.5, "c"), sample("repository_up", 1.0)]
    assert lines(found, show=True) == [
        r'memops_records{namespace="a\nb"} 5',
        'memops_hit_rate{namespace="c"} 0.5',
        "memops_repository_up 1",
        "3 samples of 1 namespace went to /m/a.prom.",
    ]
