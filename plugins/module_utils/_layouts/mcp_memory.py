# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The knowledge graph of the MCP memory server, @modelcontextprotocol/server-memory.

PRIVATE to the collection. Its file is read as a whole with every call and written as a whole with every change. A text
in Node.js has at most 2^29 - 24 characters.
"""
from __future__ import annotations

from .lines import Kind, described

MCP_MEMORY = described(
    "mcp_memory",
    Kind("entity", ("name",), ("name",), ("name", "entityType"), ("observations",)),
    Kind(
        "relation",
        ("from", "relationType", "to"),
        ("from", "to", "relationType"),
        ("from", "to", "relationType"),
        refers="entity",
        ends=("from", "to"),
    ),
    largest=(1 << 29) - 24,
    drafts=r"\.[0-9a-f]{32}\.tmp",
)
