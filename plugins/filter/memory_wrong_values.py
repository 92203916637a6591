# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_wrong_values
short_description: Values of this collection's variables that cannot be meant
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Finds mappings with options that there are not, texts where a mapping has to be, and values that are none of a
    variable's choices. Says each in one sentence, with what was probably meant.
positional: _input
options:
  _input:
    description: The variables of a host.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse values that cannot be meant
  ansible.builtin.assert:
    that: hostvars[inventory_hostname] | memops.agent_memory.memory_wrong_values | length == 0
"""

RETURN = r"""
_value:
  description: One sentence for each.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.memops.agent_memory.plugins.plugin_utils._options import (
    CHOICES,
    OPTIONS,
    wrong_choice,
    wrong_options,
)


def memory_wrong_values(variables: t.Mapping[str, t.Any]) -> t.List[str]:
    wrong: t.List[str] = []
    for name in OPTIONS:
        if name in variables:
            wrong += wrong_options(name, variables[name])
    for name in CHOICES:
        if name in variables:
            wrong += wrong_choice(name, variables[name])
    return wrong


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_wrong_values": memory_wrong_values}
