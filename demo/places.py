# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the demo keeps its state: everything under <repository>/.demo/."""
from __future__ import annotations

import os
import typing as t

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOME = os.path.join(REPO, ".demo")

DAMAGED = "agent-7"
NAMESPACES = (DAMAGED, "agent-8", "tenant-acme")
ACTOR = "demo-agent"
IMPORTER = "legacy-import"


def at(*parts: str) -> str:
    return os.path.join(HOME, *parts)


PRIMARY = at("primary", "memory.db")
SECONDARY = at("secondary", "memory.db")
ROUTE = at("route.json")
AGENT_JOURNAL = at("agent.jsonl")  # every write, read and refusal, by the agent itself
AGENT_LOG = at("agent.log")  # the lines of its logger, where diagnose and monitor look
BENCHMARK = at("benchmark.jsonl")
TRUTH = at("truth.json")
REPORTS = at("reports")
VARIABLES = at("vars.yml")
PROCESSES = at("processes.json")


def store(path: str = PRIMARY) -> dict[str, t.Any]:
    """Parameters of one of the two stores, as inventories/demo has them."""
    return {"engine": "sqlite", "layout": "native", "path": path}


def keyring() -> dict[str, t.Any]:
    return {"source": "file", "path": at("keyring.json"), "master_key_file": at("master.key")}
