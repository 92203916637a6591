# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""User memories of agno (PostgresDb, SqliteDb). A namespace is a user.

PRIVATE to the collection. Rows without a user belong to no namespace; memory_store.tables renames the table.
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

AGNO = described(
    "agno",
    Root(
        name="agno_memories",
        namespace=Namespaces("columns", ("user_id",)),
        key=("memory_id",),
        created=Moment("created_at", "seconds"),
        updated=Moment("updated_at", "seconds"),
        payload=("memory",),
    ),
    engines=("postgresql", "sqlite"),
)
