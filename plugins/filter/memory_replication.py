# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_replication
short_description: Which of two memory hosts really is the primary
version_added: 1.0.0
author:
  - The memops.agent_memory maintainers (@memops)
description:
  - Takes what M(memops.agent_memory.replication_info) found on the host that the inventory declares the primary. The
    argument is what it found on the declared secondary. Either may be a failed result, or empty.
  - After a failover of the whole store the two have changed roles. A pair of servers that do not replicate each other
    is failed over by the namespace, and stays as it is declared.
positional: _input, secondary
options:
  _input:
    description: The result for the declared primary.
    type: dict
    required: true
  secondary:
    description: The result for the declared secondary.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell who is the primary
  ansible.builtin.debug:
    msg: "{{ {'role': 'replica'} | memops.agent_memory.memory_replication({'role': 'primary'}) }}"
"""

RETURN = r"""
_value:
  description: C(scope) is store or namespace; C(swapped) whether the declared secondary is the primary now.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError


def memory_replication(primary: t.Any, secondary: t.Any) -> dict[str, t.Any]:
    if not isinstance(primary, t.Mapping) or not isinstance(secondary, t.Mapping):
        raise AnsibleFilterError("What replication_info found has to be two mappings. Next: register its results.")
    home, away = primary.get("role"), secondary.get("role")
    one_store = bool(primary.get("store_id")) and primary.get("store_id") == secondary.get("store_id")
    if home == "primary" and away == "primary":
        # Of one store: the newer one took over, and the other has not rejoined yet.
        return _said(one_store, one_store and (secondary.get("epoch") or 0) > (primary.get("epoch") or 0))
    if home is None and away == "primary":  # a dead primary that was passed over, or one with a secondary of its own
        took_over = bool(secondary.get("last_switch") or secondary.get("appointed"))
        return _said(took_over, took_over)
    if away is None and home == "primary":
        return _said(bool(primary.get("last_switch") or primary.get("replicas")), False)
    # A replica of another server than this pair's says nothing about the pair.
    pair = "replica" in (home, away) and (one_store or not (primary.get("store_id") and secondary.get("store_id")))
    return _said(pair, pair and home == "replica" and away == "primary")


def _said(store: bool, swapped: bool) -> dict[str, t.Any]:
    return {"scope": "store" if store else "namespace", "swapped": swapped}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"memory_replication": memory_replication}
