# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role info says of incidents: a fence that no open incident explains is told, with what ends it."""

from __future__ import annotations

import pathlib

from jinja2 import Environment

TEMPLATE = pathlib.Path(__file__).resolve().parents[3] / "roles" / "info" / "templates" / "incidents.j2"


def lines(namespaces: dict[str, str], incidents: list[tuple[str, str]]) -> list[str]:
    found = {
        "namespaces": [{"name": name, "state": state} for name, state in namespaces.items()],
        "incidents": [
            {"incident": f"inc-{n}", "namespace": name, "state": state, "opened": "then", "owner": "ann"}
            for n, (name, state) in enumerate(incidents)
        ],
    }
    template = Environment(trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return [line for line in template.render(info_store=found).splitlines() if line]


def test_a_quarantine_without_an_open_incident_is_told() -> None:
    states = {"a": "quarantined", "b": "quarantined", "c": "serving"}
    one, two = lines(states, [("a", "closed"), ("b", "open")])
    assert one == "incident inc-1 of b: open since then, last worked on by ann"
    assert two.startswith("The quarantine of a is left of an incident that ended. Next: ansible-playbook ")
    assert lines({"c": "serving"}, [("c", "closed")]) == ["No incident is open."]
