# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""mem0's memories in pgvector. A namespace is any of the fields user_id, agent_id and run_id of a row's payload.

PRIVATE to the collection. The table is called as mem0's collection is (memory_store.tables renames it).
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

MEM0 = described(
    "mem0",
    Root(
        name="mem0",
        namespace=Namespaces("json", ("payload",), fields=("user_id", "agent_id", "run_id")),
        key=("id",),
        created=Moment("payload", "text", "created_at"),
        updated=Moment("payload", "text", "updated_at"),
        expires=Moment("payload", "date", "expiration_date"),
        payload=("payload",),
        remembered="data",
        json=("payload",),
        vectors=("vector",),
    ),
    engines=("postgresql",),
    findings=("mem0-hash",),
    search="mem0",
)
