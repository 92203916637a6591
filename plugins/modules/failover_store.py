#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: failover_store
short_description: Let a replica's server take over a whole memory store
version_added: 1.0.0
description:
  - Checks that the server of O(store) really is a replica of that of O(primary), that it is not behind O(rpo), and that
    its copy of the memories verifies. Then all namespaces of the primary are fenced, with proof, the replica catches
    up, becomes a primary, and takes writes under a higher epoch. Nothing that was acknowledged is lost.
  - Whatever stands in the way before the replica was promoted leaves the primary serving. What was cut short is
    finished by the same task.
  - It runs where both servers can be reached. The route is moved by M(memops.agent_memory.route).
author:
  - The memops.agent_memory maintainers (@memops)
options:
  state:
    description: >-
      V(promoted) lets the replica take over. V(verified) only checks its copy of the memories and notes on this host
      when it passed; a failover within O(rpo) of that need not look again.
    type: str
    choices: [promoted, verified]
    default: promoted
  kind:
    description: What it is called in the record that the store keeps of it.
    type: str
    choices: [failover, failback]
    default: failover
  namespaces:
    description: Whose copies have to verify. Default is all that are not quarantined.
    type: list
    elements: str
  rpo:
    description: Seconds of writes that the replica may be behind, and for which a verification counts.
    type: float
    default: 900.0
  catch_up:
    description: Seconds that the fenced primary waits for the replica. After that the fence is lifted again.
    type: float
    default: 30.0
  min_interval:
    description: Least seconds since the last change of servers (O(kind=failover)).
    type: float
    default: 600.0
  force:
    description: >-
      Take over although the primary cannot be reached, and in spite of O(min_interval). Needs O(outside_fence).
    type: bool
    default: false
  outside_fence:
    description: What keeps applications from a primary that cannot be reached.
    type: str
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.primary
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.rejoin
  - module: memops.agent_memory.replication_info
"""

EXAMPLES = r"""
- name: Serve everything from the replica
  memops.agent_memory.failover_store:
    store:
      engine: postgresql
      url: postgresql://db-2.example.com/memory
      user: memops
      password_file: /etc/memops/password
    primary:
      engine: postgresql
      url: postgresql://db-1.example.com/memory
      user: memops
      password_file: /etc/memops/password
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
  delegate_to: memory-2
"""

RETURN = r"""
incident:
  description: The incident of the whole store.
  type: str
  returned: success
detail:
  description: What was done, in words.
  type: str
  returned: success
from:
  description: Where the store was served.
  type: str
  returned: state is promoted
to:
  description: Where it is served now.
  type: str
  returned: state is promoted
epoch:
  description: The epoch in which the former replica takes writes.
  type: int
  returned: state is promoted, and not in check mode
position_before:
  description: >-
    Position of the replication stream at the fence; forced, the last one that the replica had.
  type: int
  returned: state is promoted, and not in check mode
position_after:
  description: Position at which the former replica goes on.
  type: int
  returned: state is promoted, and not in check mode
lag_seconds:
  description: How far the replica was behind before the fence.
  type: float
  returned: the primary answered
silent_seconds:
  description: Forced, how old the last change that the replica had was.
  type: float
  returned: state is promoted, and not in check mode
verified_at:
  description: When the oldest verification that counts began, RFC 3339.
  type: str
  returned: success
namespaces:
  description: The namespaces of the store, or those that were verified.
  type: list
  elements: str
  returned: success
clients:
  description: >-
    Of the applications that know both servers (several hosts in libpq's address) those that do not find the new one by
    themselves, in words; empty where there are none.
  type: str
  returned: state is promoted, and it was moved now
proof:
  description: Which writes were tried and refused or accepted.
  type: dict
  returned: state is promoted
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.failover_store import main

if __name__ == "__main__":
    main()
