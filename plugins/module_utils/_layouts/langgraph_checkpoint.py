# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints (PostgresSaver, SqliteSaver). A namespace is a thread.

PRIVATE to the collection. In PostgreSQL the checkpoints of a thread share the blobs of the channels that did not change
between them, so each of the three tables has records of its own. In SQLite a checkpoint is one value with all its
channels, and when it was made only its identifier tells. Encrypted values (EncryptedSerializer) are carried as they
are.
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

_THREAD = Namespaces("columns", ("thread_id",))
_TIME = Moment("checkpoint", "text", "ts")
_MADE = Moment("checkpoint_id", "uuid6")

LANGGRAPH_CHECKPOINT = described(
    "langgraph_checkpoint",
    Root(
        name="checkpoint_blobs",
        label="blob",
        namespace=_THREAD,
        key=("checkpoint_ns", "channel", "version"),
        payload=("blob",),
    ),
    Root(
        name="checkpoints",
        label="checkpoint",
        namespace=_THREAD,
        key=("checkpoint_ns", "checkpoint_id"),
        created=_TIME,
        updated=_TIME,
        payload=("checkpoint",),
        json=("checkpoint", "metadata"),
    ),
    Root(
        name="checkpoint_writes",
        label="write",
        namespace=_THREAD,
        key=("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
        numbers=frozenset(("idx",)),
        payload=("blob",),
    ),
    engines=("postgresql", "sqlite"),
    variants={
        "sqlite": (
            Root(
                name="checkpoints",
                label="checkpoint",
                namespace=_THREAD,
                key=("checkpoint_ns", "checkpoint_id"),
                created=_MADE,
                updated=_MADE,
                payload=("checkpoint",),
                json=("metadata",),
            ),
            Root(
                name="writes",
                label="write",
                namespace=_THREAD,
                key=("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
                numbers=frozenset(("idx",)),
                payload=("value",),
            ),
        )
    },
    findings=("plain-beside-encrypted",),
)
