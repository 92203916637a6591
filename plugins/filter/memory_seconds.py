# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_seconds
short_description: Seconds from a duration such as 15m
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Turns a duration as people write it into seconds, so that variables from an inventory and from C(-e) mean the same.
positional: _input
options:
  _input:
    description: >-
      A number of seconds, or a number with one of the units V(s), V(m), V(min), V(h), V(d), such as V(15m) or V(1.5h).
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Wait as long as the RPO says
  ansible.builtin.debug:
    msg: "{{ '15m' | memops.agent_memory.memory_seconds }}"
"""

RETURN = r"""
_value:
  description: The seconds.
  type: float
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.memops.agent_memory.plugins.plugin_utils._options import seconds


def memory_seconds(value: t.Any) -> float:
    try:
        return seconds(value)
    except ValueError as exc:
        raise AnsibleFilterError(f"{exc} Next: write seconds, or a number with s, m, h or d, such as 15m.") from None


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_seconds": memory_seconds}
