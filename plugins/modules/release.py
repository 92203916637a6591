#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Lift the quarantine of a namespace
version_added: 1.0.0
description:
  - Lifts the fence and brings the former policy back, exactly as it was before M(memops.agent_memory.isolate).
  - Refuses while the route sends the namespace to another store, while a rebuild is planned but not carried out
    or not validated, and after an escalation that nobody accepted.
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
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
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
  returned: success
  sample: "2026-01-05T10:21:00.120Z"
first_write_at:
  description: When the secondary took the first write, where it served meanwhile; else null.
  type: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import Context, diff, execute
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate import release
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.routing import noted_away
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.takeover import routed_away


def operate(context: Context) -> dict:
    result = release(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        force=context.params["force"],
        route_away=context.params["routed_away"]
        or routed_away(context.params["route"], context.namespace, context.store_params)
        or noted_away(context.store, context.namespace, context.run.incident),
        check=context.check,
    )
    result["diff"] = diff(result.pop("before"), result.pop("after"), context.namespace)
    return result


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "force": {"type": "bool", "default": False},
        "route": {"type": "path"},
        "routed_away": {"type": "bool", "default": False},
    }
    execute(operate, options)


if __name__ == "__main__":
    main()
