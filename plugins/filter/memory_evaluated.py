# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_evaluated
short_description: Names that were given on the command line and that Ansible would evaluate
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Tenants choose the names of namespaces and records, and Ansible trusts what it is given by C(-e). Finds those of the
    variables whose value on the command line holds template syntax and is not marked C(!unsafe).
  - Looks at what was given, and evaluates nothing.
positional: _input
options:
  _input:
    description: The names of the variables that hold such names.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse to evaluate a tenant's name
  ansible.builtin.assert:
    that: "['memory_namespace'] | memops.agent_memory.memory_evaluated | length == 0"
"""

RETURN = r"""
_value:
  description: One sentence for each, with how the same is given as text.
  type: list
  elements: str
"""

import typing as t

from ansible.utils.unsafe_proxy import wrap_var
from ansible.utils.vars import load_extra_vars

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars, is_template


def memory_evaluated(names: t.Iterable[str]) -> list[str]:
    # what was given is parsed once for a run, and kept there
    given: t.Mapping[str, t.Any] = getattr(load_extra_vars, "extra_vars", None) or {}
    return [
        wrap_var(
            f"{name} holds a template, which Ansible would evaluate; nothing was done. "
            "Next: where a template is meant, set it in the inventory, which no tenant writes; where that is the name "
            f"itself, give it as text: -e {extra_vars({name: given[name]})}"
        )
        for name in names
        if _evaluated(given.get(name))
    ]


def _evaluated(value: t.Any) -> bool:
    if isinstance(value, t.Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return any(map(_evaluated, value))
    return is_template(value) and _trusted(value)


def _trusted(value: t.Any) -> bool:
    try:
        from ansible.template import is_trusted_as_template
    except ImportError:  # ansible-core before 2.19 marks what it does not trust
        return not getattr(value, "__UNSAFE__", False)
    return bool(is_trusted_as_template(value))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_evaluated": memory_evaluated}
