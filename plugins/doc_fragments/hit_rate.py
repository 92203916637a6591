# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  hit_rate_source:
    description:
      - Who tells the hit rate of an application whose layout keeps no access log. Without it the probes do.
      - The verdict names the source. A source that has no data gives V(could-not-verify), never V(pass).
    type: dict
    suboptions:
      kind:
        description: >-
          A Prometheus, or what speaks its HTTP API (V(prometheus)), or the application's own OpenTelemetry spans
          (V(spans)).
        type: str
        required: true
        choices: [prometheus, spans]
      url:
        description: The address of Prometheus, such as V(https://prometheus.example.com:9090). It is not redirected.
        type: str
      query:
        description: >-
          A PromQL expression for one number between 0 and 1, of which there is one series. C({namespace}) in it stands
          for the namespace, C({window}) for the time since the release, such as C(240s). Default is
          C(memory_hit_rate{namespace="{namespace}"}).
        type: str
      token:
        description: A bearer token for Prometheus.
        type: str
      token_file:
        description: File on the memory host with that token.
        type: path
      user:
        description: A user for Prometheus, in place of a token.
        type: str
      password:
        description: That user's password.
        type: str
      password_file:
        description: File on the memory host with that password.
        type: path
      ca_bundle:
        description: Certificates on the memory host to trust for Prometheus. Default is those of the system.
        type: path
      timeout:
        description: Seconds until Prometheus has to answer.
        type: float
        default: 10.0
      max_age:
        description: A sample that is older than so many seconds is no data.
        type: float
        default: 120.0
      settle:
        description: >-
          Seconds after the release in which the number may still cover the quarantine and does not count. Default is 60
          for V(prometheus) and 0 for V(spans).
        type: float
      spans:
        description: >-
          Absolute paths or http(s) addresses of OTLP JSON on the memory host, as in memory_logs. Counted are the
          searches since the release that say whether they found something.
        type: list
        elements: str
"""
