# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role info says of incidents: a fence that no open incident explains is told, with what ends it."""

from __future__ import annotations

import pathlib

from jinja2 import Environment

from ansible_collections.memops.agent_memory.plugins.plugin_utils._commands import command_of

TEMPLATE = pathlib.Path(__file__).resolve().parents[3] / "roles" / "info" / "templates" / "incidents.j2"


def lines(namespaces: dict[str, str], incidents: list[tuple[str, str]]) -> list[str]:
    found = {
        "namespaces": [{"name": name, "state": state} for name, state in namespaces.items()],
        "incidents": [
            {"incident": f"inc-{n}", "namespace": name, "state": state, "opened": "then", "owner": "ann"}
            for n, (name, state) in enumerate(incidents)
        ],
    }
    return drawn(TEMPLATE, found)


def drawn(path: pathlib.Path, found: dict[str, object], **variables: str) -> list[str]:
    environment = Environment(trim_blocks=True)
    environment.filters["memops.agent_memory.memory_command"] = command_of
    template = environment.from_string(path.read_text(encoding="utf-8"))
    return [line for line in template.render(info_store=found, hostvars={}, **variables).splitlines() if line]


def test_a_quarantine_without_an_open_incident_is_told() -> None:
    states = {"a": "quarantined", "b": "quarantined", "c": "serving"}
    one, two = lines(states, [("a", "closed"), ("b", "open")])
    assert one == "incident inc-1 of b: open since then, last worked on by ann"
    assert two.startswith("The quarantine of a is left of an incident that ended. Next: ansible-playbook -i ")
    assert lines({"c": "serving"}, [("c", "closed")]) == ["No incident is open."]


def test_a_namespace_below_a_quarantined_one_is_not_told_as_serving() -> None:
    common = {"records": 1, "isolated": 0, "generation": 1}
    found = {"namespaces": [
        {"name": "a", "state": "quarantined", "fenced_by": None, **common},
        {"name": "a.b", "state": "serving", "fenced_by": "a", **common},
        {"name": "c", "state": "serving", "fenced_by": None, **common},
    ]}  # fmt: skip
    told = [line.partition(",")[0] for line in drawn(TEMPLATE.with_name("namespaces.j2"), found)]
    assert told == ["namespace a: quarantined", "namespace a.b: fenced by the quarantine of a", "namespace c: serving"]


def test_of_thousands_that_serve_a_part_is_told_and_all_that_do_not() -> None:
    common = {"fenced_by": None, "records": 1, "generation": 1}
    calm = [{"name": f"t{n:04}", "state": "serving", "isolated": 0, **common} for n in range(2000)]
    odd = [{"name": f"x{n:04}", "state": "quarantined", "isolated": 0, **common} for n in range(60)]
    found = {"namespaces": [*calm, {"name": "held", "state": "serving", "isolated": 3, **common}, *odd]}
    path = TEMPLATE.with_name("namespaces.j2")
    told = drawn(path, found)
    assert told[0] == "namespace t0000: serving, 1 record, generation 1" and len(told) == 50 + 1 + 60 + 1
    assert told[-1] == "1950 more namespaces are serving. One of them: -e memory_namespace=NAME."
    assert drawn(path, found, memory_namespace="t1999") == ["namespace t1999: serving, 1 record, generation 1"]
    assert drawn(path, found, memory_namespace="nobody") == ["The store holds no namespace nobody."]
    assert drawn(path, {"namespaces": []}) == ["The store holds no namespace."]


def test_a_name_forges_no_line() -> None:
    """A tenant chooses its namespace; what stands below one another here is believed at night."""
    forged = "x: serving\nnamespace a"
    common = {"state": "quarantined", "records": 1, "isolated": 0, "generation": 1, "fenced_by": None}
    names = {"namespaces": [{"name": name, **common} for name in (forged, " a", "\u202eb", "ok \u00e9")]}
    told = [line.partition(": quarantined")[0] for line in drawn(TEMPLATE.with_name("namespaces.j2"), names)]
    assert told == [
        r'namespace "x: serving\nnamespace a"', 'namespace " a"', r'namespace "\u202eb"', "namespace ok \u00e9",
    ]  # fmt: skip
    assert len(lines({}, [(forged, "open")])) == 1
    (_none, told_of) = lines({"a b": "quarantined"}, [])
    assert """ -e '{"memory_namespace": "a b"}', or release it.""" in told_of
