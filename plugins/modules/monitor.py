#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor
short_description: Watch a namespace after its release
version_added: 1.0.0
description:
  - Watches hit rate, new integrity findings and new error lines until an absolute deadline. A breach puts the
    fence back at once.
  - Missing samples are no data, never good. A watch that was interrupted goes on to the same deadline. A pass
    closes the incident. Fails unless the verdict is pass.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  seconds:
    description: How long to watch from the release on.
    type: float
    default: 900.0
  interval:
    description: Seconds between two samples.
    type: float
    default: 15.0
  hit_rate:
    description: The lowest hit rate that is good.
    type: float
    default: 0.8
  logs:
    description: >-
      Log files of the application, or mappings with C(path) or C(journal_unit), on the memory host. Mappings with
      C(spans) are evidence for M(memops.agent_memory.diagnose), not followed here.
    type: list
    elements: raw
    default: []
  benchmark:
    description: >-
      A JSON Lines file with the cases of the benchmark, on the memory host. Where the values are an application's own
      it tells the hit rate, unless O(hit_rate_source) does.
    type: path
  again:
    description: Watch another period although the former one is over.
    type: bool
    default: false
  part:
    description:
      - Return after so many seconds with RV(watching=true); the next call goes on. The collection's action plugin sets
        it and calls again, so that a person sees how it goes.
    type: float
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.search
  - memops.agent_memory.hit_rate
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Watch for 15 minutes
  memops.agent_memory.monitor:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
verdict:
  description: V(pass), V(fail) or V(could-not-verify).
  type: str
  returned: always
  sample: pass
hit_rate:
  description: The hit rate since the release, and its source.
  type: dict
  returned: always
samples:
  description: What was seen, with times.
  type: list
  elements: dict
  returned: always
breaches:
  description: Why the fence was put back.
  type: list
  elements: str
  returned: always
deadline:
  description: Until when it watched, RFC 3339 UTC.
  type: str
  returned: always
watching:
  description: The part is over, the watch goes on with the next call.
  type: bool
  returned: O(part) is set and the deadline is not reached
said:
  description: How it goes so far, in one line.
  type: str
  returned: O(part) is set and the deadline is not reached
first_write_at:
  description: The first application write that was accepted after the release.
  type: str
  returned: success
watch_seconds:
  description: How long a watch is enough where this one was too short for the probes to tell a hit rate; else V(null).
  type: int
  returned: success
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    agent-7 is quarantined, not released. Next:
    ansible-playbook memops.agent_memory.release -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.monitor import main

if __name__ == "__main__":
    main()
