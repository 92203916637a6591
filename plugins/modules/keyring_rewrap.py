#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyring_rewrap
short_description: Let another master key open the keyring of a host
version_added: 1.0.0
description:
  - Wraps every record key of the keyring file with O(new_master) as well and proves that it opens, before the file is
    replaced as a whole. From then on the former and the new master key both open it. Applications that have it open
    go on.
  - Records are not touched. The snapshots are moved by M(memops.agent_memory.snapshot_rewrap).
author:
  - The memops.agent_memory maintainers (@memops)
options:
  retire:
    description: Let the new master key alone open the file. Whoever has the former one is locked out.
    type: bool
    default: false
  force:
    description: Go on although a record key opens with neither master key; it stays as it is.
    type: bool
    default: false
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.new_master
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Let the new master key open the keyring too
  memops.agent_memory.keyring_rewrap:
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    new_master:
      source: file
      master_key_file: /etc/memops/master-new.key
"""

RETURN = r"""
master:
  description: The id of the new master key.
  type: str
  returned: success
masters:
  description: The ids of the master keys that opened the file before and that open it after.
  type: dict
  returned: success
record_keys:
  description: How many record keys the keyring has.
  type: int
  returned: success
unopened:
  description: Record keys that neither master key opens.
  type: list
  elements: str
  returned: success
verdict:
  description: pass, or could-not-verify when a record key opens with neither master key.
  type: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.keyring_rewrap import main

if __name__ == "__main__":
    main()
