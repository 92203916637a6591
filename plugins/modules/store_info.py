#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_info
short_description: Tell what a memory store holds and who works on it
version_added: 1.0.0
description:
  - Returns the identity of the store, its namespaces with their state, and its incidents.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.info
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: What is in there
  memops.agent_memory.store_info:
    store:
      path: /var/lib/agents/memory.db
  register: memory
"""

RETURN = r"""
identity:
  description: Engine, layout, epoch and sequence.
  type: dict
  returned: success
capabilities:
  description: What this pair of engine and layout can do.
  type: list
  elements: str
  returned: success
namespaces:
  description:
    - Namespaces with state, generation, TTL, number of records, and how many of these are isolated.
    - C(canary) says whether a backup has put a record of its own beside them, which C(records) leaves out.
    - C(fenced_by) is the quarantined namespace that one lies in, whose fence holds there too; else it is none.
    - C(generation) is the number under which the store keeps the namespace's rows. Each namespace has one of its own,
      given out in turn; a hard rebuild gives it the next.
  type: list
  elements: dict
  returned: success
incidents:
  description: Incidents, newest first, with state, owner and lease.
  type: list
  elements: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.store_info import main

if __name__ == "__main__":
    main()
