#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dispatch
short_description: What the other modules of the collection are sent to the memory hosts as
version_added: 1.0.0
description:
  - Ansible packs for each module, in each run, all the code that the module may need, which takes the controller about
    half a second of processor time. The modules of this collection need nearly the same code. So their action plugin
    sends this one in their place, and a run packs once however many of them it uses.
  - There is no need to call it. Called directly it works as O(module) does, but for what the action plugin adds
    (it names the run, takes over from a dead one and keeps the steps for the report).
author:
  - The memops.agent_memory maintainers (@memops)
options:
  module:
    description: The module of this collection to be. All other arguments are those of that module.
    type: str
    required: true
    choices:
      - apply
      - diagnose
      - doctor
      - drill
      - failback
      - failover_store
      - isolate
      - keyring_rewrap
      - metrics
      - monitor
      - plan
      - preflight
      - promote
      - rejoin
      - release
      - replication_info
      - restore
      - rotate_keys
      - route
      - scrub
      - snapshot
      - snapshot_accept
      - snapshot_export
      - snapshot_hold
      - snapshot_info
      - snapshot_retention
      - snapshot_rewrap
      - snapshot_undelete
      - snapshot_verify
      - store_info
      - store_retention
      - undo
      - validate
attributes:
  check_mode:
    description: Can run in check_mode as O(module) can.
    support: full
  diff_mode:
    description: Returns what O(module) returns in diff mode.
    support: full
  idempotent:
    description: A second run without a change in between changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: What memops.agent_memory.store_info is sent as
  memops.agent_memory.dispatch:
    module: store_info
    store:
      path: /var/lib/agents/memory.db
"""

RETURN = r"""
module:
  description: Nothing of its own. The result is that of O(module).
  type: str
  returned: never
"""

import typing as t

from ansible.module_utils import basic

MODULES = [
    "apply",
    "diagnose",
    "doctor",
    "drill",
    "failback",
    "failover_store",
    "isolate",
    "keyring_rewrap",
    "metrics",
    "monitor",
    "plan",
    "preflight",
    "promote",
    "rejoin",
    "release",
    "replication_info",
    "restore",
    "rotate_keys",
    "route",
    "scrub",
    "snapshot",
    "snapshot_accept",
    "snapshot_export",
    "snapshot_hold",
    "snapshot_info",
    "snapshot_retention",
    "snapshot_rewrap",
    "snapshot_undelete",
    "snapshot_verify",
    "store_info",
    "store_retention",
    "undo",
    "validate",
]


def main_of(module: str) -> t.Callable[[], None]:
    """Each import stands for itself, so that a module loads what it needs and AnsiballZ still finds all of them."""
    if module == "apply":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.apply import main as run
    elif module == "diagnose":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.diagnose import main as run
    elif module == "doctor":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.doctor import main as run
    elif module == "drill":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.drill import main as run
    elif module == "failback":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.failback import main as run
    elif module == "failover_store":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.failover_store import main as run
    elif module == "isolate":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.isolate import main as run
    elif module == "keyring_rewrap":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.keyring_rewrap import main as run
    elif module == "metrics":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.metrics import main as run
    elif module == "monitor":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.monitor import main as run
    elif module == "plan":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.plan import main as run
    elif module == "preflight":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.preflight import main as run
    elif module == "promote":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.promote import main as run
    elif module == "rejoin":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.rejoin import main as run
    elif module == "release":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.release import main as run
    elif module == "replication_info":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.replication_info import main as run
    elif module == "restore":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.restore import main as run
    elif module == "rotate_keys":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.rotate_keys import main as run
    elif module == "route":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.route import main as run
    elif module == "scrub":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.scrub import main as run
    elif module == "snapshot":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot import main as run
    elif module == "snapshot_accept":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_accept import main as run
    elif module == "snapshot_export":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_export import main as run
    elif module == "snapshot_hold":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_hold import main as run
    elif module == "snapshot_info":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_info import main as run
    elif module == "snapshot_retention":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_retention import main as run
    elif module == "snapshot_rewrap":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_rewrap import main as run
    elif module == "snapshot_undelete":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_undelete import main as run
    elif module == "snapshot_verify":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.snapshot_verify import main as run
    elif module == "store_info":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.store_info import main as run
    elif module == "store_retention":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.store_retention import main as run
    elif module == "undo":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.undo import main as run
    elif module == "validate":
        from ansible_collections.memops.agent_memory.plugins.module_utils._modules.validate import main as run
    else:
        raise ValueError(module)
    return run


def main() -> None:
    # The arguments that are valid depend on one of them, so it is looked at before there is an AnsibleModule.
    module = None if basic._ANSIBLE_ARGS is None else basic._load_params().get("module")
    if module in MODULES:
        main_of(module)()
    basic.AnsibleModule(
        argument_spec={"module": {"type": "str", "required": True, "choices": MODULES}}, supports_check_mode=True
    )


if __name__ == "__main__":
    main()
