#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What it does is in plugins/action/notify.py; this file is its documentation.

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell people of an event by webhook, Slack, PagerDuty or mail
version_added: 1.0.0
description:
  - Tells every channel that wants the event, once per incident, with up to three tries and within ten seconds for all
    channels together. A channel that is wrong or down is named with the reason; the task does not fail.
  - Runs on the controller. Who was told lies in C(notified.jsonl) of the incident's report folder.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  state:
    description:
      - With V(told) the channels are told of O(event). The other two tell nobody and say under RV(not_delivered) which
        channel could not be told of anything.
      - V(valid) looks whether every option is one, and whether the template can be filled in; each channel that fails
        is a warning. V(reachable) also asks its server for a connection, for three seconds at most.
    type: str
    choices: [told, valid, reachable]
    default: told
  event:
    description: What happened. Needed with O(state=told).
    type: str
    choices: [isolated, escalated, failed, could-not-verify, backup-failed, drill-failed, released, closed]
  channels:
    description:
      - List of dictionaries with C(kind) (webhook, slack, pagerduty or mail), and optionally C(name), C(when) (events;
        default is all), C(template) (path on the controller) and C(ca) (path of a CA certificate).
      - webhook and slack take C(url). pagerduty takes C(routing_key) and C(url). mail takes C(host), C(port), C(tls)
        (starttls, implicit or none), C(user), C(password), C(from) and C(to).
      - They hold secrets, so the task needs C(no_log).
    type: raw
    required: true
  namespace:
    description: The namespace that it happened to.
    type: str
    default: ''
  incident:
    description: The incident. Default is the one that this run works on.
    type: str
  cluster:
    description: The memory cluster.
    type: str
    default: memory
  reason:
    description: Why, in a sentence.
    type: str
    default: ''
  impact:
    description: Whom it concerns; see the filter C(memory_impact).
    type: list
    elements: dict
    default: []
  report_dir:
    description: The folder of all reports on the controller. Default is C(memops-reports) in the current folder.
    type: path
  keep:
    description: Keep as a step for the report who was told.
    type: bool
    default: true
  without_incident:
    description: Tell also of what belongs to no incident.
    type: bool
    default: true
attributes:
  action:
    description: >-
      Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  check_mode:
    description: Can run in check_mode; it then sends nothing and says who would be told.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: none
  idempotent:
    description: The same event of the same incident is sent once to each channel.
    support: full
seealso:
  - module: memops.agent_memory.note_step
"""

EXAMPLES = r"""
- name: Tell that the namespace is isolated
  memops.agent_memory.notify:
    event: isolated
    namespace: agent-7
    channels:
      - kind: mail
        host: 127.0.0.1
        port: 9
        tls: none
        from: memory@example.com
        to: sre@example.com
        when: [escalated]
  no_log: true
"""

RETURN = r"""
told:
  description: The names of the channels that were told.
  type: list
  elements: str
  returned: success
usable:
  description: The names of the channels that could be told.
  type: list
  elements: str
  returned: when state is not told
told_before:
  description: The names of the channels that had been told of this event of this incident before.
  type: list
  elements: str
  returned: when something was sent, or would have been outside check mode
not_delivered:
  description: Of each channel that could not be told the reason.
  type: dict
  returned: success
msg:
  description: Both, in a sentence.
  type: str
  returned: success
"""
