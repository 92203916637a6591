#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnose
short_description: Find the cause of damage in a namespace
version_added: 1.0.0
description:
  - Scans every record, reads the access log and the application's own log lines, and ranks the causes with their
    evidence, the onset of the damage and a proposed strategy.
  - Drafts the plan and fixes the probes and the benchmark's baseline before anything is repaired. Done once per
    incident; O(again) starts over.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  logs:
    description: >-
      Log files of the application, or mappings with C(path), C(journal_unit) or C(spans), on the memory host. C(spans)
      is an absolute path of a file with OTLP JSON, as an OpenTelemetry collector's file exporter writes it, or an
      http(s) address that answers it.
    type: list
    elements: raw
    default: []
  benchmark:
    description: A JSON Lines file with the cases of the benchmark, on the memory host.
    type: path
  onset:
    description: >-
      Distrust every write from this sequence, or from this time (RFC 3339), on. Where the layout keeps no access log,
      only a time; repairs then come from the newest good snapshot from before it.
    type: str
  keys:
    description: >-
      Where the layout keeps no access log (V(keyspace)), the damage is inside these keys (and O(pattern)); without
      either, O(onset) alone covers every key. A layout with an access log does not need it.
    type: list
    elements: str
  pattern:
    description: As O(keys), every key that matches this shell pattern.
    type: str
  since:
    description: Another name for O(onset) where the layout keeps no access log; ignored elsewhere.
    type: str
  until:
    description: >-
      With O(since), the damage was over at this time (RFC 3339). What is other than in a good snapshot that was taken
      later changed after the damage, and is kept. Only for a layout without an access log.
    type: str
  restore_expiry:
    description:
      - What becomes of the expiry of records that come back from a snapshot. V(keep) leaves it as it was, V(rebase)
        moves it by the time that passed since the snapshot, so that what was over meanwhile comes back, too.
      - Only for a layout whose records the collection does not seal.
    type: str
    choices: [keep, rebase]
    default: keep
  again:
    description: Diagnose anew although the incident has a diagnosis.
    type: bool
    default: false
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.search
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Find the cause
  memops.agent_memory.diagnose:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    logs:
      - /var/log/agents/agent-7.log
    benchmark: /etc/memops/agent-7.benchmark.jsonl
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
causes:
  description: Causes by confidence, the share of the damage that each explains, with evidence.
  type: list
  elements: dict
  returned: success
onset:
  description: Time and, where a write caused it, sequence of the first trace of the damage.
  type: dict
  returned: success
strategy:
  description: >-
    The proposed strategy: V(soft), V(hard) or V(none).
  type: str
  returned: success
  sample: soft
findings:
  description: Integrity problems by kind.
  type: dict
  returned: success
  sample: {"checksum": 12, "absent": 3}
rows:
  description: Records that were scanned.
  type: int
  returned: success
damage_map:
  description: The key space in up to 200 ranges with rows, damaged, absent, suspect and lost.
  type: list
  elements: dict
  returned: success
hit_rate:
  description: Hit rate between the onset and the fence, samples and their series.
  type: dict
  returned: success
baseline:
  description: Accuracy of the benchmark on the damaged state.
  type: float
  returned: success
spans_seen:
  description: >-
    What the application's OpenTelemetry spans of memory operations say, from a day before the quarantine on: sources,
    how many there are, each operation's count with how many failed or found nothing, deletions. None without C(spans).
  type: dict
  returned: success
own_log:
  description: >-
    What the access log says that the application's memory object keeps itself (C(store.layout=python)), its entries and
    each operation's count. V(null) where there is none. What it tells of errors is among RV(errors_seen).
  type: dict
  returned: success
errors_seen:
  description: What the application's log lines and spans say, by kind.
  type: list
  elements: dict
  returned: success
log_health:
  description: Whether the access log itself is whole.
  type: dict
  returned: success
keys_back:
  description: Record keys that the keyring had lost and a snapshot still has.
  type: list
  elements: str
  returned: success
structure_repairs:
  description: What the engine rebuilt by itself before anything else was read (indexes).
  type: list
  elements: str
  returned: success
structure_broken:
  description: What stays wrong with the store's own structure.
  type: list
  elements: str
  returned: success
passed_over:
  description: Snapshots that are no source, and why.
  type: list
  elements: str
  returned: success
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    agent-7 has no open incident to diagnose. Next: isolate it first:
    ansible-playbook memops.agent_memory.isolate -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.diagnose import main

if __name__ == "__main__":
    main()
