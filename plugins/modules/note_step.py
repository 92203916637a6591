#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What it does is in plugins/action/note_step.py; this file is its documentation.

from __future__ import annotations

DOCUMENTATION = r"""
module: note_step
short_description: Keep a step that is made of several tasks for the report
version_added: 1.0.0
description:
  - The modules of the collection keep their own outcome for the report when the variable C(memory_step) is set. A step
    that is made of several tasks, such as a failover, is kept with this.
  - Runs on the controller and changes nothing on the memory hosts.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  step:
    description: The name of the step.
    type: str
    required: true
  namespace:
    description: The namespace that the step worked on.
    type: str
    required: true
  verdict:
    description: How it ended.
    type: str
    default: pass
    choices: [pass, fail, could-not-verify]
  step_changed:
    description: Whether the step changed anything.
    type: bool
    default: false
  started:
    description: When it began, in seconds since 1970. Default is now.
    type: float
  detail:
    description: What happened, in a sentence.
    type: str
    default: ''
  result:
    description: What the report takes from it.
    type: dict
    default: {}
  unless_failed:
    description: Keep it only where this run has kept no step of the namespace that failed.
    type: bool
    default: false
  report_dir:
    description: The folder of all reports on the controller. Default is C(memops-reports) in the current folder.
    type: path
attributes:
  action:
    description: >-
      Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  check_mode:
    description: Can run in check_mode; it then keeps the step for this run only.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: none
  idempotent:
    description: A second run without a change in between changes nothing.
    support: full
seealso:
  - module: memops.agent_memory.report
"""

EXAMPLES = r"""
- name: Keep what came of the failover
  memops.agent_memory.note_step:
    step: failover
    namespace: agent-7
    step_changed: true
    detail: served from memory-2
    result:
      performed: true
"""

RETURN = r"""
step:
  description: The step as it is kept.
  type: dict
  returned: success
"""
