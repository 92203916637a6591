#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_accept
short_description: Accept a suspect snapshot
version_added: 1.0.0
description:
  - A snapshot with a sharp drop in records or many rewritten ones is published as suspect; the last good one and
    the retention stand still until somebody who knows why accepts it.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot.
    type: str
    required: true
  reason:
    description: Why it is as it should be. It is kept beside the snapshot.
    type: str
    required: true
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: The agent really forgot half of it
  memops.agent_memory.snapshot_accept:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    snapshot: 20260105T101500Z-1f2e3d4c
    reason: the tenant asked for deletion
"""

RETURN = r"""
snapshot:
  description: The snapshot.
  type: str
  returned: success
suspect:
  description: Whether it was published as suspect. Then it is accepted now, by this call or by an earlier one.
  type: bool
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_accept import main

if __name__ == "__main__":
    main()
