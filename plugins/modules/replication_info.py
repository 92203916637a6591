#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: replication_info
short_description: Tell how the server of a memory store stands in its replication
version_added: 1.0.0
description:
  - Returns whether the server is a primary or a replica, how far it is, whom it follows and whether that link lives,
    and what its copy of the store knows of the last failover. It writes nothing.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.info
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.failover_store
"""

EXAMPLES = r"""
- name: Is this the primary
  memops.agent_memory.replication_info:
    store:
      engine: postgresql
      url: postgresql://db-1.example.com/memory
      user: memops
      password_file: /etc/memops/password
  register: standing
"""

RETURN = r"""
role:
  description: primary or replica.
  type: str
  returned: success
  sample: replica
position:
  description: Bytes of the replication stream that a primary has written, or a replica has applied.
  type: int
  returned: success
history:
  description: Whose stream that counts.
  type: str
  returned: success
upstream:
  description: The server that a replica follows.
  type: str
  returned: success
link:
  description: Whether a replica is connected to it.
  type: bool
  returned: success
silent_seconds:
  description: Since a replica last heard of it.
  type: float
  returned: success
behind_seconds:
  description: Age of the newest change that a replica has applied.
  type: float
  returned: success
replicas:
  description: Of a primary, the address and position of each replica that is connected.
  type: list
  elements: dict
  returned: success
writable:
  description: Whether the server takes writes.
  type: bool
  returned: success
appointed:
  description: Whether the Sentinels of O(store.sentinels) name this server as the primary, with a quorum.
  type: bool
  returned: success
store_id:
  description: Which store it holds; null when it holds none.
  type: str
  returned: success
epoch:
  description: The store's epoch.
  type: int
  returned: success
last_switch:
  description: The last failover or failback of the whole store that this copy knows of.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.replication_info import main

if __name__ == "__main__":
    main()
