#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: isolate
short_description: Quarantine a namespace of an agent's memory
version_added: 1.0.0
description:
  - Sets the namespace's serving TTL to one second and raises the fence. Every read of an application misses and every
    write is refused from then on; nothing is purged and other namespaces do not notice.
  - The fence is proven by rejected writes and a missed read, all rolled back. The former policy is kept and comes back
    with M(memops.agent_memory.release).
  - Works on the store alone. A missing snapshot, key or bucket never prevents it.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
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
"""

RETURN = r"""
incident:
  description: The incident that the namespace now belongs to.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
fenced_at:
  description: When the fence went up, RFC 3339 UTC. V(null) in check mode on a namespace that is not quarantined.
  type: str
  returned: success
  sample: "2026-01-05T10:15:00.120Z"
proof:
  description: What was tried against the fence. V(null) in check mode.
  type: dict
  returned: success
  contains:
    writes_refused:
      description: Whether every kind of write was refused.
      type: bool
      returned: success
    reads_refused:
      description: Whether a read by an application misses.
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
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import Context, diff, execute
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate import isolate


def operate(context: Context) -> dict:
    result = isolate(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        check=context.check,
    )
    result["diff"] = diff(result.pop("before"), result.pop("after"), context.namespace)
    return result


def main() -> None:
    execute(operate, {"namespace": {"type": "str", "required": True}})


if __name__ == "__main__":
    main()
