# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_misspelt
short_description: Misspelt variables of this collection
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Finds names that are nearly those of variables of this collection, and says which were meant. Without effect, such a
    variable would let a play do what was not asked for.
positional: _input
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse misspelt variables
  ansible.builtin.assert:
    that: hostvars[inventory_hostname] | list | memops.agent_memory.memory_misspelt | length == 0
"""

RETURN = r"""
_value:
  description: One sentence for each, with what was probably meant.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.memops.agent_memory.plugins.plugin_utils._variables import sentence, unknown


def memory_misspelt(names: t.Iterable[t.Any]) -> t.List[str]:
    return [sentence(name, meant) for name, meant in unknown(names)[0]]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_misspelt": memory_misspelt}
