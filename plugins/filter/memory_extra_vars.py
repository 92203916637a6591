# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_extra_vars
short_description: Variables as one argument of C(-e) on a command line
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Quotes variables so that neither the shell nor Ansible takes their values for more than text, for commands that
    people copy. What Ansible would evaluate is marked C(!unsafe).
positional: _input
options:
  _input:
    description: The variables.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say which command comes next
  ansible.builtin.debug:
    msg: >-
      ansible-playbook memops.agent_memory.rebuild -e
      {{ {'memory_namespace': 'tenant 7'} | memops.agent_memory.memory_extra_vars }}
"""

RETURN = r"""
_value:
  description: The argument, quoted for a shell where that is needed.
  type: str
"""

import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars


def memory_extra_vars(variables: t.Mapping[str, t.Any]) -> str:
    return extra_vars(variables)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_extra_vars": memory_extra_vars}
