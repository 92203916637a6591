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
  - Finds mappings with options that there are not, values of another type than a variable has to have, and values that
    are none of its choices. Says each in one sentence, with what was probably meant.
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

import functools
import typing as t

from ansible.errors import AnsibleError
from jinja2.exceptions import UndefinedError

from ansible_collections.memops.agent_memory.plugins.plugin_utils._options import (
    CHOICES,
    OPTIONS,
    TYPES,
    wrong_choice,
    wrong_options,
    wrong_type,
)

Check = t.Callable[[str, t.Any], t.List[str]]


def memory_wrong_values(variables: t.Mapping[str, t.Any]) -> t.List[str]:
    checks: t.List[t.Tuple[Check, str]] = [(wrong_options, name) for name in OPTIONS]
    for kind, names in TYPES.items():
        checks += [(functools.partial(wrong_type, kind), name) for name in names if name not in OPTIONS]
    checks += [(wrong_choice, name) for name in CHOICES]
    return [said for check, name in checks if name in variables for said in _said(check, name, variables)]


def _said(check: Check, name: str, variables: t.Mapping[str, t.Any]) -> t.List[str]:
    try:
        return check(name, variables[name])
    except (AnsibleError, UndefinedError):
        return []  # made of what is not defined here: whoever needs it says so


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_wrong_values": memory_wrong_values}
