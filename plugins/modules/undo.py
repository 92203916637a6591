#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: undo
short_description: Take a rebuild back
version_added: 1.0.0
description:
  - After a hard rebuild, switches the namespace back to its former generation, in one atomic write.
  - After a soft one, makes each record that it replaced what it was before, bit for bit. Records that it marked as
    deleted, since nobody had a good copy, and those whose former row is too damaged to be written stay as the rebuild
    made them, and are told; their former rows stay aside.
  - The namespace has to be quarantined, and is refused when applications wrote to it since. The validation has to pass
    again before a release.
  - That is offered as long as the incident is open. Afterwards it is refused, whether or not
    M(memops.agent_memory.store_retention) dropped what the incident left.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Take the rebuild back
  memops.agent_memory.undo:
    store:
      path: /var/lib/agents/memory.db
    namespace: agent-7
"""

RETURN = r"""
generation:
  description: The generation before and after.
  type: dict
  returned: after a hard rebuild
records:
  description: >-
    How many records are what they were (C(back)), were taken away again (C(removed)), stay as the rebuild made them
    (C(left)).
  type: dict
  returned: after a soft rebuild
left_keys:
  description: The first 100 keys of those that stay as the rebuild made them.
  type: list
  elements: str
  returned: after a soft rebuild
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.undo import main

if __name__ == "__main__":
    main()
