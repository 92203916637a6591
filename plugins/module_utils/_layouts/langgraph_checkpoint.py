# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints (PostgresSaver, SqliteSaver). A namespace is a thread.

PRIVATE to the collection. In PostgreSQL the checkpoints of a thread share the blobs of the channels that did not change
between them, so each of the three tables has records of its own. In SQLite a checkpoint is one value with all its
channels, and when it was made only its identifier tells. Encrypted values (EncryptedSerializer) are carried as they
are. Blobs and writes have no time, and need none: LangGraph inserts them and leaves alone what is there. Those with a
negative number (an error, an interrupt, what resumes it) it replaces.
"""
from __future__ import annotations

from .._application_ciphers import AES, INLINE
from .tables import Moment, Namespaces, Root, Sealed, described

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
        sealed=Sealed(AES, "blob", "type"),
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
        sealed=Sealed(INLINE, "checkpoint", "channel_values"),
    ),
    Root(
        name="checkpoint_writes",
        label="write",
        namespace=_THREAD,
        key=("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
        numbers=frozenset(("idx",)),
        payload=("blob",),
        sealed=Sealed(AES, "blob", "type"),
    ),
    engines=("postgresql", "sqlite"),
    findings=("channel-without-value", "checkpoint-without-parent"),
    once=r"blob/.*|write/.*/[0-9]{19}",
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
                sealed=Sealed(AES, "checkpoint", "type"),
            ),
            Root(
                name="writes",
                label="write",
                namespace=_THREAD,
                key=("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
                numbers=frozenset(("idx",)),
                payload=("value",),
                sealed=Sealed(AES, "value", "type"),
            ),
        )
    },
)
