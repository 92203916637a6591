#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_rewrap
short_description: Let another master key open all snapshots, and prove it
version_added: 1.0.0
description:
  - Puts a further keys object beside every snapshot that the master key of O(keyring) opens, of whatever purpose, and
    beside every journal of an incident, reads it back and opens the snapshot by it. Packs are not touched; no
    permission to delete is needed. What is there already is proven only.
  - A snapshot that neither master key opens makes the verdict could-not-verify and is listed, as is one whose manifest
    does not authenticate.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  spool:
    description: Directory with forensic snapshots that wait for their repository; they are done too.
    type: path
  retire:
    description: >-
      Delete the keys objects of all other master keys, of this cluster's snapshots and of the journals. Each only after
      its proof in the same run, and none while one is unproven.
    type: bool
    default: false
  force:
    description: Go on although some are unproven; these keep the keys objects that they have.
    type: bool
    default: false
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.new_master
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Let the new master key open every snapshot
  memops.agent_memory.snapshot_rewrap:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
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
snapshots:
  description: How many snapshots the new master key was proven to open.
  type: int
  returned: success
journals:
  description: How many incidents' journals it was proven to open.
  type: int
  returned: success
wrapped:
  description: How many keys objects were written.
  type: int
  returned: success
retired:
  description: How many snapshots and journals gave up other master keys.
  type: int
  returned: success
unproven:
  description: What the new master key was not proven to open, each with the reason.
  type: list
  elements: dict
  returned: always
others:
  description: Other clusters and incidents in the repository that are under master keys of their own.
  type: list
  elements: str
  returned: always
verdict:
  description: pass, or could-not-verify when something is unproven.
  type: str
  returned: always
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_rewrap import main

if __name__ == "__main__":
    main()
