#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Take a snapshot of namespaces and their access log
version_added: 1.0.0
description:
  - Publishes an immutable, encrypted and verifiable copy in the repository. Every checksum is recomputed on the
    way. Chunks that did not change since the base are referred to, not sent again.
  - A forensic snapshot keeps a damaged state as evidence; it is never a source of a rebuild. It is taken once per
    incident. A scheduled snapshot in which nothing changed since the newest one within O(min_interval) is not
    taken again.
  - A sharp drop in records, a sharp rise in rewritten ones or new damage publishes the snapshot as suspect, and a
    warning says so.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespaces:
    description: The namespaces to copy. Default is all; a forensic snapshot needs exactly one.
    type: list
    elements: str
  purpose:
    description: What the snapshot is for.
    type: str
    default: scheduled
    choices: [scheduled, baseline, forensic, failback]
  min_interval:
    description: Seconds within which an unchanged store needs no new snapshot.
    type: float
    default: 0.0
  spool:
    description:
      - A directory on the memory host that takes a forensic snapshot while the repository is away (its endpoint does
        not answer, its disk is not mounted).
    type: path
  new_repository:
    description:
      - Make the repository where there is none, although the store was saved to another one before. Without it such a
        snapshot is refused, since the address may be mistyped or a disk not mounted. The first repository of a store is
        made in any case, and a warning tells of it.
    type: bool
    default: false
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.snapshot_info
  - module: memops.agent_memory.snapshot_verify
  - module: memops.agent_memory.restore
"""

EXAMPLES = r"""
- name: What a scheduled job runs every 10 minutes
  memops.agent_memory.snapshot:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    purpose: scheduled
    min_interval: 300
"""

RETURN = r"""
snapshot:
  description: The snapshot. V(null) in check mode when one would be taken.
  type: str
  returned: success
  sample: 20260105T101500Z-1f2e3d4c
records:
  description: Records in it.
  type: int
  returned: success
damaged:
  description: Records in it whose checksum does not hold.
  type: int
  returned: success
bytes:
  description: Bytes sent, referred to and stored.
  type: dict
  returned: a snapshot was taken
suspect:
  description: Whether it was published as suspect.
  type: bool
  returned: a snapshot was taken
reasons:
  description: Why it is suspect.
  type: list
  elements: str
  returned: a snapshot was taken
namespaces:
  description: Counts and digest per namespace.
  type: dict
  returned: a snapshot was taken
location:
  description: The repository it lies in.
  type: str
  returned: a snapshot was taken
repository_made:
  description: Whether the repository was made for it (in check mode, whether it would be).
  type: bool
  returned: success, but for a snapshot that was taken by an earlier run of the same incident
expected:
  description: The namespaces that it would hold; none when no new one is needed.
  type: list
  elements: str
  returned: in check mode, of a snapshot outside an incident
spooled:
  description: Whether it lies in the spool because the repository was away.
  type: bool
  returned: a snapshot was taken
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    agent-7 has no open incident. Next: isolate it first:
    ansible-playbook memops.agent_memory.isolate -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot import main

if __name__ == "__main__":
    main()
