#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check what a run of the runbook needs
version_added: 1.0.0
description:
  - Looks at the store, the namespace, the lease, the keyring, the repository and the variables, and changes
    nothing.
  - Bad variables, an unreachable or damaged store, an unknown namespace and a live run of somebody else block. A
    missing key, bucket or snapshot only warns, since isolating needs none of them.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  strategy:
    description: The strategy that the rebuild will be asked for.
    type: str
    default: auto
    choices: [auto, soft, hard, rotate]
  benchmark:
    description: A JSON Lines file with the cases of the benchmark, on the memory host.
    type: path
  recent:
    description: Seconds after a passed incident in which a namespace that is still sound needs no rebuild.
    type: float
    default: 3600.0
  force:
    description: Rebuild even then.
    type: bool
    default: false
  onset:
    description:
      - The sequence or time from which on every write will be distrusted. A namespace for which this run names another
        onset, window or strategy than the incident that passed is rebuilt all the same.
    type: str
  keys:
    description: As O(onset), the keys in which the damage is, where the layout keeps no access log.
    type: list
    elements: str
  pattern:
    description: As O(keys), a shell pattern of keys.
    type: str
  since:
    description: As O(keys), when the damage began, RFC 3339. What is no time is refused before anything is fenced.
    type: str
  until:
    description: As O(keys), when it was over, RFC 3339.
    type: str
  restore_expiry:
    description: As O(onset), whether copies that come back keep their expiry or get it anew.
    type: str
    default: keep
    choices: [keep, rebase]
  absent:
    description: As O(onset), what will be done about keys of the last good snapshot that are not there.
    type: str
    default: auto
    choices: [auto, keep, restore]
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.search
  - memops.agent_memory.memory.info
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Look before anything is touched
  memops.agent_memory.preflight:
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
  description: The open incident of the namespace, or the one that was asked for. V(null) when there is none.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
state:
  description: >-
    State of the namespace: V(serving), V(quarantined) or V(standby); V(damaged) where its control row is gone or does
    not lead to its records, which isolating it mends.
  type: str
  returned: success
  sample: serving
can_resolve:
  description: Whether a good snapshot, the keyring and the repository are at hand.
  type: bool
  returned: success
nothing_to_do:
  description: A recent incident passed and the namespace is still sound.
  type: bool
  returned: success
watching:
  description: The namespace was rebuilt and released, and only its watch is left.
  type: bool
  returned: success
watch_ended:
  description: Why a rebuild begins again though only the watch of a former run was left; V(null) where it does not.
  type: str
  returned: success
newest_snapshot:
  description: The newest good snapshot of the namespace.
  type: str
  returned: success
  sample: 20260105T100000Z-1f2e3d4c
warned:
  description: What is missing for a rebuild.
  type: list
  elements: str
  returned: when something is missing
records:
  description: Records of the namespace, tombstones included.
  type: int
  returned: success
store:
  description: Engine, layout, identity, epoch, sequence and active generation.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.preflight import main

if __name__ == "__main__":
    main()
