#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_verify
short_description: Verify a snapshot
version_added: 1.0.0
description:
  - Checks a snapshot at one of four depths and appends the result to it. V(listed) is every object there with its
    size, V(hashed) and with its hash, V(opened) and every record decrypted, V(restored) and brought back in a
    scratch store.
  - Fails unless the verdict is pass.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot. Default is the newest one that is not forensic.
    type: str
  depth:
    description: How deep to look.
    type: str
    default: hashed
    choices: [listed, hashed, opened, restored]
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Prove that the newest snapshot opens
  memops.agent_memory.snapshot_verify:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    depth: opened
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(could-not-verify).
  type: str
  returned: always
  sample: pass
problems:
  description: What is wrong, with object, namespace, chunk and records.
  type: list
  elements: dict
  returned: always
snapshot:
  description: The snapshot that was verified.
  type: str
  returned: always
records:
  description: Records that were looked at.
  type: int
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_verify import main

if __name__ == "__main__":
    main()
