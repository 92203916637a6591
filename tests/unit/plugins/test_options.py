# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables may hold is what modules and roles take, and a slip of the pen in one is met."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest
import yaml

from ansible_collections.memops.agent_memory.plugins.filter.memory_wrong_values import memory_wrong_values
from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import KEYRING, REPOSITORY, STORE
from ansible_collections.memops.agent_memory.plugins.plugin_utils._options import (
    CALLED,
    CHOICES,
    NUMBERS,
    OPTIONS,
    TYPES,
    wrong_options,
)

ROOT = pathlib.Path(__file__).resolve().parents[3]


def of_roles() -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            yield from entry.get("options", {}).items()


def test_the_options_are_those_of_modules_and_roles() -> None:
    assert {name: set(OPTIONS[f"memory_{name}"]) for name in ("store", "repository", "keyring")} == {
        "store": set(STORE), "repository": set(REPOSITORY), "keyring": set(KEYRING),
    }  # fmt: skip
    specified = {
        (name, option) for name, spec in of_roles() if name in OPTIONS for option in spec.get("options", OPTIONS[name])
    }
    assert specified == {(name, option) for name, options in OPTIONS.items() for option in options}
    assert not [name for variable, called in CALLED.items() for name in called if name in OPTIONS[variable]]


def test_the_choices_are_those_of_the_roles() -> None:
    specified = {
        (name, tuple(spec["choices"]))
        for name, spec in of_roles()
        if name.startswith("memory_") and "choices" in spec and spec["type"] == "str"
    }
    assert specified == set(CHOICES.items())


def test_the_types_are_those_of_the_roles() -> None:
    ours = [(name, spec) for name, spec in of_roles() if name.startswith("memory_")]
    for kind, names in TYPES.items():
        if kind != "duration":
            assert {name for name, spec in ours if spec.get("type") == kind and name != "memory_keys"} == set(names)
    for path in ROOT.glob("roles/*/*/main.yml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            (before, *after) = line.split("memops.agent_memory.memory_seconds")
            named = set(re.findall(r"\bmemory_(?!slo\b)\w+", before)) if after else set()
            assert named <= set(TYPES["duration"]), line
    assert {name for name, _spec in ours} >= set(TYPES["duration"])
    numbers = {
        (name, option)
        for name, spec in ours
        if name in NUMBERS
        for option, of in spec.get("options", {}).items()
        if of.get("type") in ("int", "float")
    }
    assert numbers == {(name, option) for name, options in NUMBERS.items() for option in options}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("memory_repository", {"buckett": "b"}, "no option buckett; nothing was changed. Next: did you mean url: s3://b"),
        ("memory_repository", {"url": "s3://b/p", "endpoint": "http://s3"}, "did you mean endpoint_url?"),
        ("memory_store", {"engin": "sqlite"}, "no option engin; nothing was changed. Next: did you mean engine?"),
        ("memory_store", "path=/m.db pth=/n.db", "has no option pth; nothing was changed. Next: did you mean path?"),
        ("memory_keyring", {"qwzx": 1}, "Next: use one of: path, source, master_key_file"),
        ("memory_slo", {"max_los": 1}, "did you mean max_loss?"),
        ("memory_repository", "{url: file:///backup}", 'all of it in JSON: -e \'{"memory_repository": {"url": …}}\'.'),
        ("memory_strategy", "sfot", "memory_strategy cannot be sfot; nothing was changed. Next: did you mean soft?"),
        ("memory_purpose", ["x"], "set it to one of: forensic, scheduled"),
        ("memory_repository", ["file:///secret"], "cannot be a list; nothing was changed. Next: set it to a mapping,"),
        ("memory_keyring", 7, "memory_keyring cannot be 7; nothing was changed."),
        ("memory_force", "perhaps", "cannot be perhaps; nothing was changed. Next: set it to true or false."),
        ("memory_force", {"a": 1}, "memory_force cannot be a mapping;"),
        ("memory_keep_last", "ten", "cannot be ten; nothing was changed. Next: set it to a whole number."),
        ("memory_logs", {"a": "b"}, "memory_logs cannot be a mapping; nothing was changed. Next: set it to a list,"),
        ("memory_route", "/etc/route.json", 'all of it in JSON: -e \'{"memory_route": {"…": …}}\'.'),
        ("memory_slo", "rpo=15m", 'memory_slo is a text and has to be a mapping; nothing was changed. Next: set it in'),
        ("memory_schedule_every", '{"backup": "5m"}', "memory_schedule_every is a text and has to be a mapping;"),
        ("memory_search", "framework", "memory_search cannot be a text; nothing was changed. Next: set it to a map"),
        ("memory_slo", {"max_loss": "ten"}, "memory_slo.max_loss cannot be ten; nothing was changed. Next: set it to"),
        ("memory_monitor_seconds", "15 minutes", "cannot be 15 minutes; nothing was changed. Next: set it to se"),
        ("memory_slo", {"rpo": "soon"}, "memory_slo.rpo cannot be soon; nothing was changed. Next: set it to seconds"),
        ("memory_keep", {"daily": ["secret"]}, "memory_keep.daily cannot be a list;"),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_is_met(variable: str, value: t.Any, said: str) -> None:
    (sentence,) = memory_wrong_values({"memory_strategy": "auto", variable: value})
    assert said in sentence


@pytest.mark.parametrize("value", [{}, None, "", {"url": "s3://b/p"}, "url=s3://b/p", '{"url": "s3://b/p"}'])
def test_what_can_be_meant_is_left_alone(value: t.Any) -> None:
    assert wrong_options("memory_repository", value) == []
