# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_command
short_description: The command that runs a playbook of this collection
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - For sentences that name the next command, which people copy. It has the inventories of this run, and where these
    have several clusters, which of them is meant. Variables are quoted so that neither the shell nor Ansible takes
    their values for more than text; what Ansible would evaluate is marked C(!unsafe).
positional: _input, hostvars, cluster, variables
options:
  _input:
    description: The name of the playbook.
    type: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  cluster:
    description: The cluster that is meant.
    type: str
    required: true
  variables:
    description: What the playbook is given by C(-e).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Say which command comes next
  ansible.builtin.debug:
    msg: >-
      {{ 'rebuild' | memops.agent_memory.memory_command(hostvars, memory_cluster | default('memory'),
      {'memory_namespace': 'tenant 7'}) }}
"""

RETURN = r"""
_value:
  description: The command, as a shell takes it.
  type: str
"""

import typing as t

from ansible_collections.memops.agent_memory.plugins.plugin_utils._commands import command_of


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_command": command_of}
