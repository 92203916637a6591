# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's long-term memory (PostgresStore, SqliteStore), with or without a vector index.

PRIVATE to the collection. A namespace is the labels joined by dots and all that lies below.
"""
from __future__ import annotations

from .tables import Companion, Moment, Namespaces, Root, described

LANGGRAPH_STORE = described(
    "langgraph_store",
    Root(
        name="store",
        namespace=Namespaces("prefix", ("prefix",)),
        key=("key",),
        created=Moment("created_at"),
        updated=Moment("updated_at"),
        expires=Moment("expires_at"),
        payload=("value",),
        json=("value",),
        companions=(
            Companion(
                name="store_vectors",
                parent=(("prefix", "prefix"), ("key", "key")),
                key=("field_name",),
                optional=True,
                vectors=("embedding",),
            ),
        ),
    ),
    engines=("postgresql", "sqlite"),
    findings=("half-migrated", "item-without-vector"),
    search="langgraph",
)
