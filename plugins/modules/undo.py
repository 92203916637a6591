#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: undo
short_description: Go back to the generation that a hard rebuild replaced
version_added: 1.0.0
description:
  - Switches the namespace back to its former generation, in one atomic write. The validation has to pass again
    before a release.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Take the hard rebuild back
  memops.agent_memory.undo:
    store:
      path: /var/lib/agents/memory.db
    namespace: agent-7
"""

RETURN = r"""
generation:
  description: The generation before and after.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.undo import main

if __name__ == "__main__":
    main()
