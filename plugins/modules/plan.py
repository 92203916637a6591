#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Decide what a rebuild does with every key
version_added: 1.0.0
description:
  - Fixes the strategy of the incident's plan and weighs what cannot be recovered against the limit.
  - The plan was drafted by M(memops.agent_memory.diagnose). Every key is kept, repaired from a named snapshot,
    suspect, a conflict or lost, each with its reason.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  strategy:
    description: >-
      V(soft) repairs in place, V(hard) builds a new generation and switches, V(rotate) re-encrypts after the
      repair, V(auto) takes what the diagnosis proposes.
    type: str
    default: auto
    choices: [auto, soft, hard, rotate]
  max_loss:
    description: Share of the expected records that may be lost before the DR plan has to be invoked.
    type: float
    default: 0.1
  accept_loss:
    description: The owners accept the loss; do not escalate.
    type: bool
    default: false
  absent:
    description: >-
      What to do about keys of the last good snapshot that are not there, where the layout keeps no tombstones, or the
      write log was pruned beyond that snapshot, and nobody knows whether they were deleted or lost. V(auto) restores
      those inside the window of the damage and keeps the rest away, V(restore) restores all, V(keep) none. Where the
      window is a time alone and no snapshot since has such a key, V(auto) restores it, and RV(could_not_verify) says
      that it may have been deleted before. What had expired never comes back.
    type: str
    default: auto
    choices: [auto, keep, restore]
  onset:
    description: >-
      In check mode without a diagnosis, as for M(memops.agent_memory.diagnose): the time from which on every write is
      distrusted, where the layout keeps no access log.
    type: str
  keys:
    description: As O(onset), the keys in which the damage is.
    type: list
    elements: str
  pattern:
    description: As O(onset), a shell pattern for the keys in which the damage is.
    type: str
  since:
    description: Another name for O(onset).
    type: str
  until:
    description: As O(onset), the time at which the damage was over.
    type: str
  restore_expiry:
    description:
      - As for the diagnosis. What becomes of the expiry of records that come back from a snapshot. V(keep) leaves it as
        it was, V(rebase) moves it by the time that passed since the snapshot.
      - Only for a layout whose records the collection does not seal.
    type: str
    choices: [keep, rebase]
    default: keep
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.diagnose
  - module: memops.agent_memory.apply
"""

EXAMPLES = r"""
- name: Show what a rebuild would do
  memops.agent_memory.plan:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
  check_mode: true
  diff: true

- name: Plan the rebuild
  memops.agent_memory.plan:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
strategy:
  description: The strategy that was fixed.
  type: str
  returned: success
  sample: soft
records:
  description: >-
    Records by what happens to them: expected, good_before, damaged, repair, suspect, conflicted, lost, expired, absent
    (deleted or lost, and left away).
  type: dict
  returned: success
sources:
  description: Snapshots that copies come from, with counts.
  type: list
  elements: dict
  returned: success
loss_ratio:
  description: Lost divided by expected; V(null) when nothing was expected.
  type: float
  returned: success
lost_keys:
  description: The first 1,000 keys of whose newest version nobody has a good copy.
  type: list
  elements: str
  returned: success
suspect_keys:
  description: The first 1,000 keys whose newest version is set aside.
  type: list
  elements: str
  returned: success
absent_keys:
  description: The first 1,000 keys of the last good snapshot that are not there and stay away.
  type: list
  elements: str
  returned: success
newer_keys:
  description:
    - The first 100 keys that are other than in the last good snapshot and are kept, as nobody knows since when.
    - Empty where the access log tells it.
  type: list
  elements: str
  returned: success
absent_snapshot:
  description: A good snapshot that has them; V(null) when there are none.
  type: str
  returned: success
lost_total:
  description: How many keys are lost.
  type: int
  returned: success
lost_older:
  description: How many of them get an older version in its place.
  type: int
  returned: success
escalate:
  description: The DR plan has to be invoked before anything is released.
  type: bool
  returned: success
escalate_reason:
  description: Why.
  type: str
  returned: success
could_not_verify:
  description: What the plan could not prove.
  type: list
  elements: str
  returned: success
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    agent-7 has no diagnosed incident. Next:
    ansible-playbook memops.agent_memory.isolate -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.plan import main

if __name__ == "__main__":
    main()
