# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_for_applications
short_description: What applications are told about a memory store
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Takes the operator's login out of C(memory_store). What is left says where the store is and who applications are
    there, and may stand in a route or in a report.
positional: _input
options:
  _input:
    description: The mapping C(memory_store).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Where the applications find their memories
  ansible.builtin.debug:
    msg: "{{ memory_store | memops.agent_memory.memory_for_applications }}"
  vars:
    memory_store:
      engine: postgresql
      url: postgresql://db.example.com/memory
      user: memops
      password: "{{ vaulted }}"
      application_user: agent
      application_password_file: /etc/agents/memory.password
"""

RETURN = r"""
_value:
  description: The mapping without a password; C(user) and C(password_file) are the applications'.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.memops.agent_memory.plugins.module_utils._route import for_applications


def memory_for_applications(store: t.Any) -> dict[str, t.Any]:
    if not isinstance(store, t.Mapping):
        raise AnsibleFilterError("memory_store is not a mapping. Next: write engine and path or url below it.")
    return for_applications(store)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_for_applications": memory_for_applications}
