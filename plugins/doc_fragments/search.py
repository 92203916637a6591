# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  search:
    description:
      - Who answers O(benchmark) where the values are an application's own, in LangGraph's store or mem0. Needed as soon
        as the benchmark has a C(query).
      - The application's own program is run on the memory host, in its own Python, and asked with the words of each
        query. It is given a connection that sees a quarantined namespace and is read-only.
      - Whatever keeps it from answering gives V(could-not-verify), never V(pass).
    type: dict
    suboptions:
      factory:
        description: >-
          A function of the application, C(package.module:function), that takes the connection and gives the object
          that searches (LangGraph's C(PostgresStore) or C(SqliteStore), mem0's C(Memory)), with the application's own
          embedding function. What C(from_conn_string) gives will do.
        type: str
        required: true
      arguments:
        description: Further arguments of the factory, by name. They are shown in outputs; no secrets.
        type: dict
      interpreter:
        description: >-
          The absolute path of the application's Python on the memory host, such as V(/srv/agent/venv/bin/python).
          Default is the one that the module runs with.
        type: path
      python_path:
        description: Folders on the memory host in which the factory's module is found.
        type: list
        elements: path
      top:
        description: Among how many results what a query expects must be.
        type: int
        default: 10
      timeout:
        description: Seconds for all queries together, with the start of the program; at most 300.
        type: float
        default: 60.0
"""
