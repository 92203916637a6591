#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_undelete
short_description: Bring back snapshots that retention removed
version_added: 1.0.0
description:
  - Retention first puts the manifest of a snapshot aside, and removes its other objects in a later run, after a grace.
    Until then this brings it back, with the one that it refers to.
  - Where O(repository.object_lock) is set, objects of snapshots that somebody deleted or wrote over come back as they
    were first written.
  - What comes back gets the hold C(undeleted), or the next run of retention would remove it again. Lift it with
    M(memops.agent_memory.snapshot_hold) once retention is set as it should be.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshots:
    description: Which snapshots. Default is all that wait for their removal.
    type: list
    elements: str
  reason:
    description: Why, for the hold.
    type: str
    default: it was removed by mistake
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Retention was set wrongly
  memops.agent_memory.snapshot_undelete:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    reason: memory_keep was empty for a day
"""

RETURN = r"""
snapshots:
  description: Snapshots that came back.
  type: list
  elements: str
  returned: success
uncovered:
  description: Objects that had been deleted or written over, and are as they were.
  type: list
  elements: str
  returned: success
waiting:
  description: Snapshots that wait for their removal still.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_undelete import main

if __name__ == "__main__":
    main()
