#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: failback
short_description: Bring home what was written on the secondary
version_added: 1.0.0
description:
  - Merges into the quarantined home what was written on the secondary while it served the namespace. The higher
    pair of epoch and sequence wins; the loser of a conflict is kept aside and listed.
  - The secondary must stand by already, and its state must have been published as a snapshot with purpose
    failback.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot that was taken on the secondary.
    type: str
  since_epoch:
    description: The epoch in which the secondary was promoted.
    type: int
    required: true
  accept_loss:
    description:
      - Go on although the secondary acknowledged writes that it cannot give, since its own copy is damaged. Without it
        the home stays quarantined.
    type: bool
    default: false
  log_intact:
    description:
      - Whether the access log of the secondary is whole, as M(memops.agent_memory.promote) says. If it is not, nobody
        can tell whether all that was acknowledged there came home, and the home stays quarantined but for
        O(accept_loss).
    type: bool
    default: true
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.promote
  - module: memops.agent_memory.route
"""

EXAMPLES = r"""
- name: Merge what the secondary accepted
  memops.agent_memory.failback:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    snapshot: 20260105T102000Z-9a8b7c6d
    since_epoch: 4
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
merged:
  description: Records that were taken over.
  type: int
  returned: success
conflicts:
  description: Records for which a write here lost against a newer one there.
  type: int
  returned: success
conflict_keys:
  description: The first 1,000 of their keys.
  type: list
  elements: str
  returned: success
lost:
  description: Records that the secondary acknowledged and that nobody can give any more.
  type: int
  returned: success
lost_keys:
  description: The first 1,000 of their keys.
  type: list
  elements: str
  returned: success
lost_file:
  description: The file on this host that has all of them, as JSON Lines; null where none was lost.
  type: str
  returned: success
log_entries:
  description: Log entries that were taken over.
  type: int
  returned: success
first_write_at:
  description: When the secondary took its first write of an application, RFC 3339; null when it took none.
  type: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.failback import main

if __name__ == "__main__":
    main()
