#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_retention
short_description: Remove snapshots that are no longer needed
version_added: 1.0.0
description:
  - Keeps the newest O(keep_last) good snapshots, everything younger than O(keep_within), and the newest good one of
    each of the last hours, days, weeks, months and years that are asked for (grandfather, father, son).
  - Never removes the last good one of any namespace, one that another refers to, recent evidence, or anything while
    the newest snapshot is suspect, nor what a hold or an object lock keeps. The manifest goes first, the packs after a
    grace; until then M(memops.agent_memory.snapshot_undelete) brings it back.
  - With O(repository.object_lock) what stays is locked again once half of O(repository.object_lock_days) is over.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  keep_last:
    description: How many good snapshots to keep at least.
    type: int
    default: 96
  keep_within:
    description: Seconds within which every snapshot is kept.
    type: float
    default: 604800.0
  keep_hourly:
    description: >-
      Keep the newest good snapshot of so many hours, the newest ones in which there is one (UTC).
    type: int
    default: 0
  keep_daily:
    description: >-
      Keep the newest good snapshot of so many days, the newest ones in which there is one (UTC).
    type: int
    default: 0
  keep_weekly:
    description: >-
      Keep the newest good snapshot of so many weeks, the newest ones in which there is one (UTC).
    type: int
    default: 0
  keep_monthly:
    description: >-
      Keep the newest good snapshot of so many months, the newest ones in which there is one (UTC).
    type: int
    default: 0
  keep_yearly:
    description: >-
      Keep the newest good snapshot of so many years, the newest ones in which there is one (UTC).
    type: int
    default: 0
  keep_forensic:
    description: Seconds for which forensic snapshots are kept.
    type: float
    default: 7776000.0
  keep_suspect:
    description: Seconds for which suspect snapshots that nobody accepted are kept.
    type: float
    default: 2592000.0
  grace:
    description: >-
      Seconds between the removal of a snapshot, which takes its manifest aside, and that of its packs. Longer than any
      snapshot takes.
    type: float
    default: 86400.0
  expected:
    description: >-
      In check mode the namespaces of a good snapshot that is published before, so that the forecast counts it; what
      M(memops.agent_memory.snapshot) returns under this name there. Without effect outside check mode.
    type: list
    elements: str
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Make room
  memops.agent_memory.snapshot_retention:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    keep_last: 96
    keep_daily: 14
    keep_weekly: 8
    keep_monthly: 12
"""

RETURN = r"""
locked:
  description: Snapshots whose object lock was extended.
  type: list
  elements: str
  returned: success
removed:
  description: Snapshots that were removed.
  type: list
  elements: str
  returned: success
kept:
  description: Snapshots that stay, each with the reason.
  type: list
  elements: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_retention import main

if __name__ == "__main__":
    main()
