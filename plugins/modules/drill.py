#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Rehearse a restore in a scratch store
version_added: 1.0.0
description:
  - Restores a snapshot into a scratch store, scans every record, runs the benchmark, rotates the keys there, scans
    again and measures the time. The live store is not opened.
  - Where an agent framework encrypted the values itself and O(store.application_key_file) (or O(store.application_key))
    is given, every one of them has to open, and to say the same with another key that is made for the drill.
  - What a drill found, a failure too, is kept in the repository as an encrypted, hash-chained record.
  - Fails unless the verdict is pass.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  snapshot:
    description: The snapshot. Default is the newest good one that holds every namespace.
    type: str
  namespaces:
    description: The namespaces to restore. Default is all.
    type: list
    elements: str
  benchmark:
    description: A JSON Lines file with the cases of the benchmark, on the memory host.
    type: path
  accuracy:
    description: Share of the benchmark's cases that must pass.
    type: float
    default: 0.8
  restore_expiry:
    description:
      - What becomes of the expiry of records that come back from a snapshot. V(keep) leaves it as it was, V(rebase)
        moves it by the time that passed since the snapshot, so that what was over meanwhile comes back, too.
      - Only for a layout whose records the collection does not seal.
    type: str
    choices: [keep, rebase]
    default: keep
  rotation:
    description: Rotate the keys of the scratch store too, the record keys or the application's own.
    type: bool
    default: true
  rto:
    description: Seconds that the restore may take; a longer one fails. Without it the time is only measured.
    type: float
  scratch:
    description:
      - Folder for the scratch store. Default is the system's temporary folder.
      - What a drill that was killed left there is removed first.
    type: path
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Rehearse
  memops.agent_memory.drill:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    rto: 1800
  register: rehearsal
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(could-not-verify).
  type: str
  returned: always
  sample: pass
reasons:
  description: Why it is not a pass.
  type: list
  elements: str
  returned: always
rto_seconds:
  description: How long the restore took.
  type: float
  returned: success
phases:
  description: Seconds of each part, C(restore), C(scan), C(benchmark) and C(rotate).
  type: dict
  returned: always
evidence:
  description: The record in the repository; none when it could not be kept.
  type: str
  returned: always
  sample: incidents/drills.memory/000041
age_seconds:
  description: How old the snapshot is.
  type: float
  returned: success
records:
  description: Records that were restored.
  type: int
  returned: success
rotated:
  description: Records that were re-encrypted.
  type: int
  returned: where there are keys to rotate, and O(rotation=true)
opened:
  description: Values that the application encrypted and one of its keys opens.
  type: int
  returned: for the layouts of other applications
not_rehearsed:
  description: What could not be tried, such as values that are encrypted with a key that was not given.
  type: list
  elements: str
  returned: success
left_out:
  description:
    - Namespaces that good snapshots hold and this drill did not restore, as the snapshot or O(namespaces) that was
      named holds some alone. The doctor does not count such a drill.
  type: list
  elements: str
  returned: success
namespaces:
  description: Records, verdict and accuracy per namespace.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.drill import main

if __name__ == "__main__":
    main()
