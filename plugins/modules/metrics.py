#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: metrics
short_description: Gather the metrics of a memory store for Prometheus or OpenTelemetry
version_added: 1.0.0
description:
  - Asks a store, its repository and its keyring how they are, and hands that out as a file for the textfile collector
    of Prometheus' node_exporter, as OTLP metrics (JSON over HTTP), or as its result alone.
  - Store, repository and keyring are only read. Without O(repository) or O(keyring) the metrics that need it are left
    out.
  - In check mode it gathers, and writes and sends nothing.
author:
  - The memops.agent_memory maintainers (@memops)
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.actiongroup_memory
options:
  memory_host:
    description: The label C(memory_host) of every metric. Default is the name of the machine.
    type: str
  textfile:
    description:
      - File to replace as a whole, in a folder that the collector reads. Its name has to end in C(.prom).
    type: path
  otlp_endpoint:
    description:
      - Address of an OTLP receiver, such as V(http://127.0.0.1:4318); C(/v1/metrics) is added where it is not there.
    type: str
  window:
    description: Seconds; the reads of which the hit rate is made. Fewer than 100 of them make none.
    type: float
    default: 900
  scan:
    description:
      - Read and check every record. Without it only the records are looked at that applications met corrupt within
        O(window), which costs next to nothing.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check_mode; then it writes and sends nothing.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: none
  idempotent:
    description: A second run without a change in between changes nothing.
    support: partial
    details: Times and ages move on, so a file is as a rule replaced.
"""

EXAMPLES = r"""
- name: Metrics for the textfile collector
  memops.agent_memory.metrics:
    store:
      path: /var/lib/agents/memory.db
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    repository:
      url: s3://agent-memory/production
    textfile: /var/lib/node_exporter/memops.prom

- name: Metrics by OTLP, of a store that is too large to be read as a whole each time
  memops.agent_memory.metrics:
    store:
      path: /var/lib/agents/memory.db
    otlp_endpoint: http://127.0.0.1:4318
    scan: false
"""

RETURN = r"""
metrics:
  description: What was gathered, each with name, labels and value.
  type: list
  elements: dict
  returned: success
  sample:
    - name: memops_fence_standing
      labels:
        cluster: production
        memory_host: memory-1
        namespace: agent-7
      value: 0
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.metrics import main

if __name__ == "__main__":
    main()
