#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: List the snapshots of a memory cluster
version_added: 1.0.0
description:
  - Lists snapshots from their manifests, newest first. Without O(keyring) the manifests are read but not
    authenticated, and no snapshot counts as good.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespace:
    description: Only snapshots that hold this namespace.
    type: str
  since:
    description: Only snapshots of this time or later, RFC 3339 with a time zone.
    type: str
  until:
    description: Only snapshots of this time or earlier.
    type: str
  purposes:
    description: Only snapshots that were taken for one of these.
    type: list
    elements: str
    choices: [scheduled, baseline, forensic, failback, drill]
  verdict:
    description: >-
      Only snapshots whose newest verification ended so; V(unverified) are those that were never verified. Each then has
      C(verified).
    type: str
    choices: [pass, fail, could-not-verify, unverified]
  last_good_before:
    description: Only the newest good snapshot of this time or earlier, such as from before the onset of a damage.
    type: str
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.info
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Which snapshots are there
  memops.agent_memory.snapshot_info:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
  register: found

- name: The last good one that holds the namespace, from before the damage
  memops.agent_memory.snapshot_info:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    last_good_before: "2026-01-05T10:00:00Z"
  register: before
"""

RETURN = r"""
snapshots:
  description: >-
    One entry per snapshot: id, purpose, time, counts, whether it is good, suspect, accepted, what it refers to, and
    with O(keyring) the C(holds) that stand on it, each with its name (C(hold)), C(by), C(reason) and C(at).
  type: list
  elements: dict
  returned: success
removed:
  description: What retention removed and M(memops.agent_memory.snapshot_undelete) can bring back, with the time.
  type: list
  elements: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_info import main

if __name__ == "__main__":
    main()
