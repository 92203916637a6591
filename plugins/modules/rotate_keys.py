#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rotate_keys
short_description: Re-encrypt memories with a new record key
version_added: 1.0.0
description:
  - Makes a new record key durable, reopens it, activates it and re-encrypts every record of the active
    generations by compare-and-set while applications go on.
  - A rotation that was interrupted goes on with the same key. Old keys stay in the keyring for the snapshots that
    name them. Records that no key opens are left alone and listed.
  - With O(new_application_key_file) or O(new_application_key) it is the key by which an application itself encrypts its
    memories (O(store.layout=langgraph_checkpoint), O(store.layout=openai_agents)) that is replaced. Each namespace is
    fenced as long as its values are changed, and values that no key opens are set aside and listed. The application
    gets the new key from whoever runs it.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespaces:
    description: The namespaces to re-encrypt. Default is all.
    type: list
    elements: str
  min_age:
    description: Seconds that the active record key must be old before it is replaced.
    type: float
    default: 3600.0
  force:
    description: >-
      Replace it whatever its age. With a new key of the application, set aside what no key opens however much it is of
      a namespace; without this it is at most a tenth.
    type: bool
    default: false
  retire:
    description: Mark keys that no generation names any more as retired.
    type: bool
    default: false
  new_application_key:
    description: The application's new key, in place of O(new_application_key_file). It goes into no report.
    type: str
  new_application_key_file:
    description: >-
      A file on the memory host with the application's new key, written like O(store.application_key_file), which names
      the present one.
    type: path
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Rotate the record key
  memops.agent_memory.rotate_keys:
    store:
      path: /var/lib/agents/memory.db
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key

- name: Replace the key by which LangGraph encrypts its checkpoints
  memops.agent_memory.rotate_keys:
    store:
      layout: langgraph_checkpoint
      path: /var/lib/agents/checkpoints.db
      application_key_file: /etc/memops/langgraph.key
    new_application_key_file: /etc/memops/langgraph-new.key
"""

RETURN = r"""
key:
  description: >-
    The record key that everything is sealed with now. Of an application's key its fingerprint.
  type: str
  returned: success
key_created:
  description: Whether it was made by this run.
  type: bool
  returned: success
complete:
  description: Whether no record is left with another key.
  type: bool
  returned: success
records:
  description: >-
    Records rotated, already with the key, unopenable and remaining. Of an application's key also those set aside, and
    those in plain beside encrypted ones.
  type: dict
  returned: success
unopenable:
  description: Records that no key opens.
  type: list
  elements: dict
  returned: success
kept_keys:
  description: Record keys that stay, since something still names them.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.rotate_keys import main

if __name__ == "__main__":
    main()
