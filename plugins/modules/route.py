#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: route
short_description: Point applications to the store that serves a namespace
version_added: 1.0.0
description:
  - Rewrites the route file that applications follow, atomically and only when its generation is the expected one.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  path:
    description: The route file.
    type: path
    required: true
  target:
    description: >-
      Store parameters (C(engine), C(layout), C(path)) that serve the namespace. Without it the namespace follows
      the default again.
    type: dict
  default:
    description: Store parameters for every namespace without an entry of its own. Needed when the file does not exist.
    type: dict
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Send the namespace to the secondary
  memops.agent_memory.route:
    path: /etc/memops/route.json
    namespace: agent-7
    target:
      engine: sqlite
      layout: native
      path: /var/lib/agents/secondary.db
"""

RETURN = r"""
target:
  description: Where the namespace is served from now.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import Context, diff, execute
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.takeover import move_route


def operate(context: Context) -> dict:
    params = context.params
    before, after, changed = move_route(
        params["path"], context.namespace, params["target"], params["default"], check=context.check
    )
    return {"changed": changed, "target": after, "diff": diff(before or {}, after or {}, params["path"])}


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "path": {"type": "path", "required": True},
        "target": {"type": "dict"},
        "default": {"type": "dict"},
    }
    execute(operate, options, store=False)


if __name__ == "__main__":
    main()
