# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a command hands to ``-e`` arrives as the text that it was, through the shell and through Ansible."""

from __future__ import annotations

import shlex
import typing as t

import pytest
from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.utils import vars as ansible_vars
from ansible.utils.context_objects import CLIArgs

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars


def received(monkeypatch: pytest.MonkeyPatch, words: str) -> t.Any:
    """What a play has, after the shell and ``-e``, when it uses each variable."""
    (argument,) = shlex.split(words)
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"extra_vars": (argument,)}))
    monkeypatch.setattr(ansible_vars.load_extra_vars, "extra_vars", None, raising=False)
    loader = DataLoader()
    given = ansible_vars.load_extra_vars(loader)
    return Templar(loader=loader, variables=given).template(given)


@pytest.mark.parametrize(
    "name",
    [
        "agent-7", "007", "yes", "a b", "it's \"x\"; rm -rf /", "-e", "a=b", "{{ 1 + 1 }}", "{% raw %}", "{# no #}",
        "x\n{{ y }}", "{{ lookup('pipe', 'id') }}", "\U0001f600 {{ '\x7f' }}\u202e", "{{ \\ }}", "[a]", "{a: b}",
        "!unsafe x", "@file",
    ],
)  # fmt: skip
def test_a_name_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert received(monkeypatch, extra_vars({"memory_namespace": name})) == {"memory_namespace": name}
    several = {"memory_namespace": name, "memory_keys": [name, "\U0001f600", "b"], "memory_force": True}
    assert received(monkeypatch, extra_vars(several)) == several
    several["memory_keys"] = ["{{ 2 }}"]
    assert received(monkeypatch, extra_vars(several)) == several


def test_what_needs_no_quotes_has_none() -> None:
    assert extra_vars({"memory_namespace": "tenant/agent-7@eu"}) == "memory_namespace=tenant/agent-7@eu"
