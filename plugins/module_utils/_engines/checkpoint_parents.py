# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints whose parent is not there. No I/O.

PRIVATE to the collection. LangGraph deletes whole threads, and where it prunes one it takes the links to what is gone
away: such a link is left by a loss. It goes on as if nothing were missing, with a shorter history.
"""
from __future__ import annotations

import typing as t

SHOWN: t.Final = 20


def without_parent(table: str) -> str:
    """The statement for (thread, how many), the threads in order."""
    return (
        f"SELECT c.thread_id, count(*) FROM {table} c WHERE c.parent_checkpoint_id <> '' AND NOT EXISTS (SELECT 1 FROM "
        f"{table} p WHERE p.thread_id = c.thread_id AND p.checkpoint_ns = c.checkpoint_ns AND p.checkpoint_id = "
        f"c.parent_checkpoint_id) GROUP BY 1 ORDER BY 1 LIMIT {SHOWN}"
    )


def gaps(rows: t.Iterable[t.Sequence[t.Any]]) -> list[str]:
    """In words."""
    return [
        f"thread {name!r:.80} has {count} checkpoints whose parent is not there: LangGraph deletes none alone, so it "
        "was lost (a rebuild with memory_absent=restore brings it back as long as the newest good snapshot has it, "
        "afterwards restore with memory_keys from an older one)"
        for name, count in rows
    ]
