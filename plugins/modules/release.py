#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Lift the quarantine of a namespace, and bring isolated records back
version_added: 1.0.0
description:
  - Lifts the fence and brings the former policy back, exactly as it was before M(memops.agent_memory.isolate).
  - Refuses while the route sends the namespace to another store, while a rebuild is planned but not carried out
    or not validated, after a validation that failed, and after an escalation that nobody accepted.
  - A quarantine in which nothing was planned, and no validation failed, was a false alarm and is lifted without force.
  - Records that were isolated alone come back too, exactly as they were. With O(keys), O(pattern) or O(since) only
    the chosen ones do, and a quarantine stands. A record that an application wrote anew meanwhile is not touched; its
    key is listed as a conflict, and the isolated record stays aside.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  force:
    description: Release although a rebuild is unfinished, not validated or escalated. It is noted in the journal.
    type: bool
    default: false
  route:
    description: The route file. Release is refused while it sends the namespace to a store other than O(store).
    type: path
  routed_away:
    description: Whether a route of another kind leads to another store. Release is refused then.
    type: bool
    default: false
  isolated:
    description: Whether isolated records come back. The release at the end of a rebuild leaves them out of service.
    type: bool
    default: true
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.record_choice
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.isolate
  - module: memops.agent_memory.failback
"""

EXAMPLES = r"""
- name: Give the namespace back to its applications
  memops.agent_memory.release:
    store:
      path: /var/lib/agents/memory.db
    namespace: agent-7

- name: Bring two isolated records back, and leave the others out of service
  memops.agent_memory.release:
    store:
      path: /var/lib/agents/memory.db
    namespace: agent-7
    keys: [profile, preferences]
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
released_at:
  description: When the fence came down, RFC 3339 UTC.
  type: str
  returned: when no records were chosen
  sample: "2026-01-05T10:21:00.120Z"
first_write_at:
  description: When the secondary took the first write, where it served meanwhile; else null.
  type: str
  returned: when no records were chosen
released:
  description: How many isolated records came back, or would come in check mode.
  type: int
  returned: unless O(isolated=false)
conflicts:
  description: How many isolated records stay aside, since a newer record was written under their key.
  type: int
  returned: unless O(isolated=false)
conflict_keys:
  description: The first 1,000 keys of these.
  type: list
  elements: str
  returned: unless O(isolated=false)
record_keys:
  description: The first 100 keys of the records that came back.
  type: list
  elements: str
  returned: unless O(isolated=false)
detail:
  description: What happened to the records, in words.
  type: str
  returned: unless O(isolated=false), or when a quarantine was lifted and no record had been isolated
lifted:
  description: Whether a quarantine of the whole namespace was lifted, or would be in check mode.
  type: bool
  returned: unless O(isolated=false)
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.release import main

if __name__ == "__main__":
    main()
