# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""mem0's history database: what each memory was before, and the last messages of each session.

PRIVATE to the collection. It is a file of its own beside the vectors (mem0, in PostgreSQL), with no word of whose a
memory is, and it goes on after the memory is deleted: so all of it is one namespace. Records of one memory or session
begin alike. Each is written once; when, says the change's time, or the memory's where it is the first.
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

_ALL = Namespaces("whole", ())

MEM0_HISTORY = described(
    "mem0_history",
    Root(
        name="history",
        label="history",
        namespace=_ALL,
        key=("memory_id", "id"),
        created=Moment("created_at"),
        updated=Moment("updated_at", instead="created_at"),
        payload=("new_memory", "old_memory"),
    ),
    Root(
        name="messages",
        label="message",
        namespace=_ALL,
        key=("session_scope", "id"),
        created=Moment("created_at"),
        updated=Moment("created_at"),
        payload=("content",),
        optional=True,
    ),
    engines=("sqlite",),
)
