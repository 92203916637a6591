#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor
short_description: Say what is wrong with the set-up of a memory cluster, and what mends it
version_added: 1.0.0
description:
  - Looks at backups, verifications, drills, retention, object lock, the record key, the repository's endpoint, scrubs,
    fences, quarantines, leases that were left, clocks and disks, and says of each whether it is well, and if not the
    next command.
  - Changes nothing. The proof of a fence is rolled back, and the repository is not probed anew unless O(probe) asks for
    it.
  - Does not fail for what it finds; see RV(verdict).
author:
  - The memops.agent_memory maintainers (@memops)
options:
  max_rpo:
    description: Data that may be lost, in seconds. The newest good snapshot, and a copy, may be twice as old.
    type: float
    default: 900.0
  max_drill:
    description: How long ago the last drill may be, in seconds.
    type: float
    default: 172800.0
  max_scrub:
    description: How long ago the last scrub of a namespace may be, in seconds.
    type: float
    default: 172800.0
  max_key:
    description: How old the record key may be, in seconds.
    type: float
    default: 7776000.0
  max_skew:
    description: By how many seconds clocks may differ.
    type: float
    default: 30.0
  min_free:
    description: Share of each disk that has to be free.
    type: float
    default: 0.1
  copy:
    description: The store is a secondary's. How far it is behind, its host's clock and its disk are looked at.
    type: bool
    default: false
  probe:
    description: >-
      Try anew what the endpoint enforces, which writes and removes small objects below C(probe/). Otherwise
      it counts what was seen when the repository was made. Not in check mode.
    type: bool
    default: false
  only:
    description: Only these checks. What they need and does not open is told too.
    type: list
    elements: str
    choices:
      - store
      - keyring
      - repository
      - backup
      - verified
      - drill
      - retention
      - object_lock
      - conditional_put
      - key_age
      - integrity
      - fence
      - quarantine
      - lease
      - lag
      - clock
      - space
      - notifications
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.info
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Say what is wrong with the set-up
  memops.agent_memory.doctor:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
  register: found
"""

RETURN = r"""
verdict:
  description: The worst of the checks, V(pass), V(fail) or V(could-not-verify).
  type: str
  returned: success
  sample: pass
checks:
  description: >-
    Each check by its name, with its verdict, which may be V(not-applicable), one sentence, and the next command where
    there is something to mend.
  type: list
  elements: dict
  returned: success
  sample:
    - check: drill
      verdict: fail
      says: "No drill was ever run: no restore is proven."
      next: ansible-playbook memops.agent_memory.drill
clock:
  description: When the host was asked by its own clock and what that took, and how far other clocks are from it.
  type: dict
  returned: success
faults:
  description: The names of the checks that failed.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.doctor import main

if __name__ == "__main__":
    main()
