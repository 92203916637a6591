# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints (PostgresSaver). A namespace is a thread.

PRIVATE to the collection. Checkpoints of a thread share the blobs of the channels that did not change between them, so
each of the three tables has records of its own. Encrypted values (EncryptedSerializer) are carried as they are.
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

_THREAD = Namespaces("columns", ("thread_id",))
_TIME = Moment("checkpoint", "text", "ts")

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
    engines=("postgresql",),
    findings=("plain-beside-encrypted",),
)
