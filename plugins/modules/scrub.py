#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scrub
short_description: Check namespaces and snapshots, the least recently checked first
version_added: 1.0.0
description:
  - Checks every record of live namespaces and the snapshots in the repository, one after the other, until O(seconds)
    have passed. What began is finished, and one thing is always checked, so that each has its turn.
  - Changes no memory and sets no fence. When a namespace was checked is noted beside the store, of a snapshot in the
    repository.
  - Fails unless the verdict is pass.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespaces:
    description: The namespaces to check. Default is all.
    type: list
    elements: str
  seconds:
    description: Within how many seconds the next check begins.
    type: float
    default: 600.0
  depth:
    description: How deep snapshots are checked; see O(memops.agent_memory.snapshot_verify#module:depth).
    type: str
    default: opened
    choices: [hashed, opened, restored]
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Check for ten minutes what was not checked for the longest time
  memops.agent_memory.scrub:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    seconds: 600
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(could-not-verify), of what was checked.
  type: str
  returned: always
  sample: pass
checked:
  description: >-
    What was checked, each with kind, name, verdict, records, number of findings, reasons, seconds, and when it was
    checked before.
  type: list
  elements: dict
  returned: always
left:
  description: What there was no time for, in the order of the next runs.
  type: list
  elements: dict
  returned: always
findings:
  description: Number of findings in each namespace that was checked.
  type: dict
  returned: always
reasons:
  description: Why it is not a pass.
  type: list
  elements: str
  returned: always
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.scrub import main

if __name__ == "__main__":
    main()
