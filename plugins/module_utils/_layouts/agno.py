# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""User memories of agno (SqliteDb), under the names that its tables have by default.

PRIVATE to the collection. A namespace is a user; memories of no user belong to none.
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
        json=("memory", "topics"),
    ),
    engines=("sqlite",),
)
