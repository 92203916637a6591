#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Write the report of an incident
version_added: 1.0.0
description:
  - Makes C(report.json) and one self-contained C(report.html) from the steps that the controller kept, and prints the
    short table that ends a run.
  - Runs on the controller and needs no connection, so it works when the hosts are gone.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespace:
    description: The namespace of the incident.
    type: str
    required: true
  incident:
    description: The incident. Default is the one that the steps of this run name.
    type: str
  cluster:
    description: The memory cluster's name.
    type: str
  report_dir:
    description: The folder of all reports on the controller. Default is C(memops-reports) in the current folder.
    type: path
  slo:
    description: The targets, C(hit_rate), C(rpo), C(rto), C(max_loss).
    type: dict
    default: {}
  template:
    description: A Jinja2 file that takes the place of the shipped page.
    type: path
  quiet:
    description: Do not print the table.
    type: bool
    default: false
attributes:
  action:
    description: Indicates this has a corresponding action plugin, so that it is executed on the controller.
    support: full
  check_mode:
    description: Can run in check_mode; it then prints what would have been done and writes nothing.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: none
  idempotent:
    description: A second run without a change in between changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Write the report
  memops.agent_memory.report:
    namespace: agent-7
    report_dir: /srv/reports
"""

RETURN = r"""
namespace:
  description: What the report is about; empty for the whole store.
  type: str
  returned: success
  sample: agent-7
verdict:
  description: V(pass), V(fail) or V(could-not-verify).
  type: str
  returned: success
  sample: pass
title:
  description: >-
    How the table and the page begin. Where every step so far passed, and there are steps that did not run, it is the
    newest of them that passed.
  type: str
  returned: not in check mode
  sample: Isolate passed
reasons:
  description: What keeps the verdict from being V(pass), the worst first.
  type: list
  elements: str
  returned: not in check mode
state:
  description: Where the namespace stands.
  type: str
  returned: success
  sample: closed
next_command:
  description: The command that continues, if something is left to do.
  type: str
  returned: success
incident:
  description: The incident.
  type: str
  returned: success
path_json:
  description: The report as JSON, on the controller.
  type: str
  returned: not in check mode
path_html:
  description: The report as a page, on the controller.
  type: str
  returned: not in check mode
table:
  description: The lines of the short table.
  type: list
  elements: str
  returned: success
report:
  description: The report but for its steps and details.
  type: dict
  returned: not in check mode
"""
