#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: promote
short_description: Let a copy of a namespace take over, or stand back
version_added: 1.0.0
description:
  - With O(state=serving) the copy is scanned and its age compared with the RPO first; a copy that is damaged or
    too old does not take over, and the result says why.
  - A copy that takes over gets a higher epoch, so that its writes win against any that the former home accepted.
    With O(state=standby) it refuses application writes again.
  - With O(state=reading) it serves reads, and refuses application writes; both are proven. It keeps its epoch, since
    nothing is written there.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  state:
    description: What the copy is to be.
    type: str
    required: true
    choices: [serving, reading, standby]
  above_epoch:
    description: The epoch of the former home.
    type: int
    default: 0
  needed_at:
    description: The point that the copy must be within O(rpo) of, RFC 3339; default is now.
    type: str
  rpo:
    description: Seconds of writes that may be missing.
    type: float
    default: 900.0
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.route
  - module: memops.agent_memory.failback
"""

EXAMPLES = r"""
- name: Serve reads alone from the secondary
  memops.agent_memory.promote:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    state: reading
  delegate_to: memory-secondary

- name: Serve the namespace from the secondary
  memops.agent_memory.promote:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    state: serving
    above_epoch: 3
  delegate_to: memory-secondary
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
fit:
  description: Whether the copy may take over.
  type: bool
  returned: state is serving or reading
reason:
  description: Why it may not.
  type: str
  returned: state is serving or reading
lag_seconds:
  description: Age of the copy at the point where it was needed.
  type: float
  returned: state is serving or reading
epoch:
  description: The epoch in which the copy takes writes.
  type: int
  returned: state is serving or reading
accepts_writes:
  description: Whether a trial write was accepted; it was rolled back. With O(state=reading) it has to be refused.
  type: bool
  returned: state is serving or reading
accepts_reads:
  description: Whether a trial read was accepted.
  type: bool
  returned: state is reading
took_writes:
  description: Whether there may be something to bring home. It is false when the copy last served read-only.
  type: bool
  returned: state is standby
log_intact:
  description: Whether the access log of the copy is whole, so that it tells all that was written there.
  type: bool
  returned: state is standby and took_writes
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.promote import main

if __name__ == "__main__":
    main()
