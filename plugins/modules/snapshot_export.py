#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_export
short_description: Write a snapshot as JSON Lines
version_added: 1.0.0
description:
  - Writes C(records.jsonl) and C(log.jsonl), decrypted, so that nobody needs this collection to read the data.
    The folder is made with mode 0700. Files that say the same already stay as they are.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot. Default is the newest good one.
    type: str
  dest:
    description: The folder to write to, on the memory host.
    type: path
    required: true
  namespaces:
    description: The namespaces to write. Default is all.
    type: list
    elements: str
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Hand out the data
  memops.agent_memory.snapshot_export:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    dest: /srv/export/agent-memory
"""

RETURN = r"""
snapshot:
  description: The snapshot that was written.
  type: str
  returned: success
records:
  description: Records that were written.
  type: int
  returned: success
files:
  description: The files.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_export import main

if __name__ == "__main__":
    main()
