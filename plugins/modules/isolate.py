#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: isolate
short_description: Quarantine a namespace of an agent's memory, or single records of it
version_added: 1.0.0
description:
  - Sets the namespace's serving TTL to one second and raises the fence. Every read of an application misses and every
    write is refused from then on; nothing is purged and other namespaces do not notice.
  - The fence is proven by rejected writes and a missed read, all rolled back. The former policy is kept and comes back
    with M(memops.agent_memory.release).
  - Works on the store alone. A missing snapshot, key or bucket never prevents it.
  - With O(keys), O(pattern) or O(since) the namespace stays in service and only the chosen records go out of it. Each
    is set aside as it lies, even when it is damaged, and comes back by M(memops.agent_memory.release). Applications
    miss it and may write a new record under its key. A tombstone is sealed for each record, which needs O(keyring).
options:
  outside_fence:
    description:
      - What keeps applications away, in words, such as V(the service agent is stopped). For stores that have no fence
        of their own (an application's memory object without C(quarantine) and C(release)), which are isolated no other
        way. It stands in the proof, and nothing tries whether it is true.
    type: str
  again:
    description:
      - Whether to claim the incident and prove the fence anew when the namespace is quarantined already. With V(false)
        a quarantine that stands and holds is left to whoever works on it; one that does not hold is fenced anew.
    type: bool
    default: true
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.record_choice
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.release
"""

EXAMPLES = r"""
- name: Quarantine one agent's memory
  memops.agent_memory.isolate:
    store:
      path: /var/lib/agents/memory.db
    namespace: agent-7

- name: Take what was written in a suspicious hour out of service
  memops.agent_memory.isolate:
    store:
      path: /var/lib/agents/memory.db
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    pattern: user-*
    since: "2026-01-05T10:00:00Z"
    until: "2026-01-05T11:00:00Z"
"""

RETURN = r"""
incident:
  description: The incident that the namespace now belongs to. V(null) when no record had to go.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
fenced_at:
  description: When the fence went up, RFC 3339 UTC. V(null) in check mode on a namespace that is not quarantined.
  type: str
  returned: when a whole namespace was isolated
  sample: "2026-01-05T10:15:00.120Z"
proof:
  description: What was tried against the fence. V(null) in check mode.
  type: dict
  returned: when a whole namespace was isolated
  contains:
    writes_refused:
      description: Whether every kind of write was refused.
      type: bool
      returned: success
    reads_refused:
      description: Whether a read by an application misses.
      type: bool
      returned: success
    reads_accepted:
      description: Whether a read by an application is answered. Both are false where Memory alone refuses reads.
      type: bool
      returned: success
    detail:
      description: What was tried and what came of it.
      type: list
      elements: str
      returned: success
    not_fenced:
      description: Who is not held off by this engine's fence.
      type: list
      elements: str
      returned: success
    outside:
      description: O(outside_fence), where the quarantine may rest on it. Else V(null).
      type: str
      returned: success
isolated:
  description: How many records went out of service, or would go in check mode.
  type: int
  returned: when records were chosen
already:
  description: How many of the chosen records were isolated before.
  type: int
  returned: when records were chosen
record_keys:
  description: The first 100 keys of these records.
  type: list
  elements: str
  returned: when records were chosen
unknown_keys:
  description: The first 100 of O(keys) that do not exist.
  type: list
  elements: str
  returned: when records were chosen
detail:
  description: What happened, in words.
  type: str
  returned: when records were chosen
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.isolate import main

if __name__ == "__main__":
    main()
