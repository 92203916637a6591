# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that the collection knows are those of its roles, and a misspelt one is met."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml

from ansible_collections.memops.agent_memory.plugins.plugin_utils._variables import (
    INTERNAL,
    KNOWN,
    OF_ACTIONS,
    unknown,
)

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_the_known_names_are_those_of_the_roles_and_the_internal_ones() -> None:
    options = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            options |= {name for name in entry.get("options", {}) if name.startswith("memory_")}
    assert len(options) > 40
    assert options | INTERNAL | OF_ACTIONS == KNOWN
    assert not options & (INTERNAL | OF_ACTIONS)
    code = [*ROOT.glob("plugins/action/*.py"), *ROOT.glob("plugins/callback/*.py")]
    actions = "".join(path.read_text(encoding="utf-8") for path in code)
    assert all(f'"{name}"' in actions for name in OF_ACTIONS)


def test_every_internal_name_is_used_and_every_name_of_an_inventory_is_known() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8") for d in ("playbooks", "roles") for path in (ROOT / d).rglob("*.yml")
    )
    assert {name for name in INTERNAL if not re.search(rf"\b{name}\b", text)} == set()
    given = set()
    for path in (ROOT / "inventories").rglob("*.yml"):
        given |= set(re.findall(r"^ *(memory_\w+):", path.read_text(encoding="utf-8"), re.MULTILINE))
    # a set_fact or register of a role lives on as a variable of the host
    given |= set(re.findall(r"register: (memory_\w+)", text))
    assert given and given <= KNOWN


@pytest.mark.parametrize(
    ("name", "meant"),
    [("memory_stratgy", "memory_strategy"), ("memory_namespce", "memory_namespace"), ("memory_host", "memory_hosts")],
)
def test_a_slip_of_the_pen_is_met(name: str, meant: str) -> None:
    assert unknown([name, "memory_store", "other"]) == ([(name, meant)], [])


def test_a_name_that_is_like_none_is_only_told() -> None:
    assert unknown(["memory_into", "demo_home", *KNOWN]) == ([], ["memory_into"])
