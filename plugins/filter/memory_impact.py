# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_impact
short_description: Whom a damaged namespace concerns
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Picks from C(memory_owners) the entries whose pattern matches a namespace, in the order in which they are written.
positional: _input
options:
  _input:
    description: >-
      C(memory_owners), a mapping of namespace patterns (V(*) and V(?) as in a shell) to mappings with C(owner),
      C(impact) and C(persistence), or to the owner's name alone.
    type: dict
    required: true
  namespace:
    description: The namespace.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Who has to know
  ansible.builtin.debug:
    msg: "{{ memory_owners | memops.agent_memory.memory_impact('agent-7') }}"
  vars:
    memory_owners:
      agent-*:
        owner: support-platform
        impact: agents forget their open tickets
        persistence: persistent
"""

RETURN = r"""
_value:
  description: >-
    One mapping per match with C(pattern), C(owner), C(impact) and C(persistence); what is not given is empty.
  type: list
  elements: dict
"""

import fnmatch
import typing as t

from ansible.errors import AnsibleFilterError


def memory_impact(owners: t.Any, namespace: str) -> list[dict[str, str]]:
    if not isinstance(owners, t.Mapping):
        raise AnsibleFilterError(
            "memory_owners is not a mapping. "
            "Next: write namespace patterns with owner, impact and persistence below it."
        )
    found = []
    for pattern, entry in owners.items():
        if fnmatch.fnmatchcase(str(namespace), str(pattern)):
            given = entry if isinstance(entry, t.Mapping) else {"owner": entry}
            said = {word: str(given.get(word) or "") for word in ("owner", "impact", "persistence")}
            found.append({"pattern": str(pattern), **said})
    return found


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_impact": memory_impact}
