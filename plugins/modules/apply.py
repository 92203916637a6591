#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Carry out the plan of an incident
version_added: 1.0.0
description:
  - In place (soft), every change compared with what the plan saw and every former row kept aside; or into a new
    generation (hard) that is checked before one atomic switch, the former one kept for
    M(memops.agent_memory.undo).
  - Resumes where an interrupted run ended. Refuses on a namespace that is not quarantined and before the damaged
    state has a published snapshot.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.plan
  - module: memops.agent_memory.undo
"""

EXAMPLES = r"""
- name: Rebuild
  memops.agent_memory.apply:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
method:
  description: V(soft), V(hard), V(rotate) or V(none).
  type: str
  returned: success
  sample: soft
applied:
  description: Records that were changed by this run.
  type: int
  returned: success
already:
  description: Records that an earlier run had changed.
  type: int
  returned: success
generation:
  description: The generation before and after.
  type: dict
  returned: method is hard
rotation:
  description: What the rotation did.
  type: dict
  returned: method is rotate
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    There is no plan for agent-7. Next:
    ansible-playbook memops.agent_memory.isolate -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.apply import main

if __name__ == "__main__":
    main()
