#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: validate
short_description: Judge a namespace by integrity, probes and benchmark
version_added: 1.0.0
description:
  - Passes when no record has an integrity finding, the probes that were fixed before the rebuild come back, the
    canary is there, and the benchmark is accurate enough.
  - Fails unless the verdict is pass; in check mode it only says what it found. A verdict of could-not-verify is
    not a pass.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  benchmark:
    description: >-
      A JSON Lines file with C(key) or C(query) and C(expect) per line, on the memory host. Where the values are an
      application's own, O(search) answers it, and its share of good answers is the hit rate as well.
    type: path
  hit_rate:
    description: Share of the probes that must come back.
    type: float
    default: 0.8
  accuracy_gain:
    description: By how much the benchmark must beat its baseline on the damaged state. The goal is capped at 0.99.
    type: float
    default: 0.3
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.namespace
  - memops.agent_memory.search
  - memops.agent_memory.hit_rate
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Validate the rebuilt namespace
  memops.agent_memory.validate:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    benchmark: /etc/memops/agent-7.benchmark.jsonl

- name: Judge a namespace that is served by what Prometheus knows of it
  memops.agent_memory.validate:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    namespace: agent-7
    hit_rate_source:
      kind: prometheus
      url: https://prometheus.example.com:9090
  check_mode: true
"""

RETURN = r"""
incident:
  description: The incident.
  type: str
  returned: success
  sample: inc-20260105T101500Z-3fa1c2
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
hit_rate:
  description: The hit rate, its source, threshold and verdict. A source counts in the verdict where it was asked for.
  type: dict
  returned: success
probes:
  description: Probes checked and passed.
  type: dict
  returned: success
benchmark:
  description: >-
    Cases, accuracy, baseline and threshold; C(asked=search) where the application's own search answered.
  type: dict
  returned: success
own_benchmark:
  description: >-
    What C(evaluate_benchmark) of the application's memory object says (C(store.layout=python)), its hit rate, accuracy
    and verdict. V(not-asked) where there is none.
  type: dict
  returned: success
canary:
  description: Whether the canary record came back.
  type: dict
  returned: success
refused:
  description: In check mode, why the step by itself would be refused; absent where it would not.
  type: str
  returned: check mode
  sample: >-
    The plan for agent-7 was not carried out yet. Next:
    ansible-playbook memops.agent_memory.apply -e memory_namespace=agent-7
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.validate import main

if __name__ == "__main__":
    main()
