#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Bring memories back from a snapshot
version_added: 1.0.0
description:
  - Restores a namespace into a new generation that is checked before one switch, while live readers go on; or
    some keys in place; or under another name; or into another store.
  - Damaged records of the snapshot are left out and listed, never brought back.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot. Default is the newest good one that holds the namespace.
    type: str
  namespaces:
    description: The namespaces to restore. Default is all of the snapshot.
    type: list
    elements: str
  to_namespace:
    description: Restore the one namespace under this name.
    type: str
  keys:
    description: Restore only these keys of the one namespace.
    type: list
    elements: str
  pattern:
    description:
      - Restore only records of the one namespace whose key matches this, such as C(user-*), and those in O(keys).
      - What is missing or damaged comes back. What is there and whole stays, unless O(overwrite) is set. What had
        expired stays away, and so does what is isolated.
    type: str
  overwrite:
    description:
      - With O(keys) or O(pattern), replace also records that are intact and were written after the snapshot, or of
        which nobody knows it. Those are set aside.
      - Without O(keys), O(pattern) and O(to_namespace), go back to the snapshot also where a namespace serves what was
        written, changed or deleted after it. Otherwise that is refused and nothing is restored, as it would be out of
        service.
      - A record that is missing or damaged is replaced without it, and one of O(keys) also where it was changed and its
        update time was not.
    type: bool
    default: false
  create:
    description: Make the store or the namespace when it is missing.
    type: bool
    default: false
  as_secondary:
    description: Keep a standby copy warm. It takes no application writes until it is promoted.
    type: bool
    default: false
  expiry:
    description:
      - What becomes of the expiry of records that come back from a snapshot. V(keep) leaves it as it was, V(rebase)
        moves it by the time that passed since the snapshot, so that what was over meanwhile comes back, too.
      - Only for a layout whose records the collection does not seal.
    type: str
    choices: [keep, rebase]
    default: keep
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Bring two memories back
  memops.agent_memory.restore:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespaces: [agent-7]
    keys: [profile, preferences]

- name: Keep the secondary warm
  memops.agent_memory.restore:
    store:
      path: /var/lib/agents/secondary.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    as_secondary: true
    create: true
"""

RETURN = r"""
snapshot:
  description: The snapshot.
  type: str
  returned: success
namespaces:
  description: What happened to each namespace, with counts of restored, unchanged, damaged and newer records.
  type: dict
  returned: success
restored:
  description: Records that were brought back.
  type: int
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.restore import main

if __name__ == "__main__":
    main()
