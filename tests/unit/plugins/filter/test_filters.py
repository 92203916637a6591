# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that the roles use."""
from __future__ import annotations

import pytest
from ansible import context
from ansible.errors import AnsibleFilterError
from ansible.utils.context_objects import CLIArgs

from ansible_collections.memops.agent_memory.plugins.filter.memory_command import FilterModule as Commands
from ansible_collections.memops.agent_memory.plugins.filter.memory_impact import memory_impact
from ansible_collections.memops.agent_memory.plugins.filter.memory_seconds import FilterModule, memory_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (900, 900.0), ("900", 900.0), ("15m", 900.0), ("15 min", 900.0),
        ("1.5h", 5400.0), ("2d", 172800.0), ("0", 0.0), (0.5, 0.5),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert memory_seconds(value) == seconds
    assert FilterModule().filters()["memory_seconds"] is memory_seconds


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "-5", -5, "15 fortnights", "m", None, True, [], {},
        float("nan"), float("inf"), 10**400, "1e3", "9" * 15 + "d",
    ],
)
def test_what_is_no_duration_is_refused_in_one_sentence_with_the_next_step(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match=r"is not a duration.*Next: "):
        memory_seconds(value)


def test_impact_keeps_the_order_and_fills_what_is_missing() -> None:
    support = {"owner": "support", "impact": "forgets tickets", "persistence": "persistent"}
    owners = {"agent-?": support, "*": "platform", "tenant-*": {}}
    assert memory_impact(owners, "agent-7") == [
        {"pattern": "agent-?", "owner": "support", "impact": "forgets tickets", "persistence": "persistent"},
        {"pattern": "*", "owner": "platform", "impact": "", "persistence": ""},
    ]
    assert memory_impact({}, "agent-7") == []


def test_owners_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="Next: "):
        memory_impact(["support"], "agent-7")


def test_a_command_has_the_inventories_of_the_run_and_the_cluster_where_there_are_several(monkeypatch) -> None:
    command = Commands().filters()["memory_command"]
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"inventory": ("hosts.yml", "a b/")}))
    one = {"m1": {"memory_store": {}}, "other": {}}
    expected = "ansible-playbook -i hosts.yml -i 'a b/' memops.agent_memory.rebuild -e memory_namespace=agent-7"
    assert command("rebuild", one, "memory", {"memory_namespace": "agent-7"}) == expected
    two = {**one, "m2": {"memory_store": {}, "memory_cluster": "eu"}}
    assert command("doctor", two, "eu") == (
        "ansible-playbook -i hosts.yml -i 'a b/' -e memory_only_cluster=eu memops.agent_memory.doctor"
    )
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"inventory": None}))
    assert command("doctor", one, "memory") == "ansible-playbook -i <inventory> memops.agent_memory.doctor"
