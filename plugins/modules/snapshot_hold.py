#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_hold
short_description: Keep snapshots from being removed
version_added: 1.0.0
description:
  - A hold has a name, such as that of a case, says who placed it and why, and stands until it is lifted. Retention
    removes no snapshot on which a hold stands, and none that such a snapshot refers to.
  - A hold on a snapshot that waits for its removal brings that one back.
  - Placing and lifting are kept beside the snapshot for good, authenticated with its key.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  hold:
    description: The hold's name, up to 100 letters, digits, C(.), C(_) and C(-). Holds of other names are left alone.
    type: str
    required: true
  state:
    description: V(present) places it, V(absent) lifts it.
    type: str
    default: present
    choices: [present, absent]
  reason:
    description: Why. To place a hold it is needed.
    type: str
    default: ""
  snapshots:
    description: Which snapshots. To lift a hold wherever it stands, leave out O(snapshots) and O(of_incident).
    type: list
    elements: str
  of_incident:
    description: All snapshots that were taken in this incident.
    type: str
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: The lawyers need it
  memops.agent_memory.snapshot_hold:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    hold: case-17
    reason: a dispute with the tenant
    snapshots:
      - 20260105T101500Z-1f2e3d4c

- name: The case is closed
  memops.agent_memory.snapshot_hold:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    hold: case-17
    state: absent
"""

RETURN = r"""
snapshots:
  description: On which snapshots it was placed, or from which it was lifted.
  type: list
  elements: str
  returned: success
back:
  description: Which of them, and of those they refer to, had waited for their removal and are back.
  type: list
  elements: str
  returned: success
holds:
  description: Of each snapshot that was looked at, the names of the holds that stand now.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_hold import main

if __name__ == "__main__":
    main()
