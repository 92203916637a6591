# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's checkpoints whose parent is not there. No I/O.

PRIVATE to the collection. LangGraph deletes whole threads, and where it prunes one it takes the links to what is gone
away. It goes on as if nothing were missing, with a shorter history. An application that trims a thread by itself takes
the oldest checkpoints and leaves the link of the first that it keeps; their identifiers are in the order of their
times. So a parent was lost when an older checkpoint than it is still there.
"""
from __future__ import annotations

import typing as t

from .._codec import encodable
from .._errors import RecordCorrupt
from .._model import KEY, PAYLOAD, Row
from .._store_optional import Gap, Links
from .._table_records import escape
from .._table_values import readable
from .._words import counted

SHOWN: t.Final = 20
LABEL: t.Final = "checkpoint"


def without_parent(table: str) -> str:
    """The statement for (thread, how many), the threads in order."""
    same = "o.thread_id = c.thread_id AND o.checkpoint_ns = c.checkpoint_ns AND o.checkpoint_id"
    return (
        f"SELECT c.thread_id, count(*) FROM {table} c WHERE c.parent_checkpoint_id <> '' AND NOT EXISTS (SELECT 1 FROM "
        f"{table} o WHERE {same} = c.parent_checkpoint_id) AND EXISTS (SELECT 1 FROM {table} o WHERE {same} < "
        f"c.parent_checkpoint_id) GROUP BY 1 ORDER BY 1 LIMIT {SHOWN}"
    )


def told(rows: t.Iterable[t.Sequence[t.Any]]) -> list[str]:
    """In words."""
    return [
        f"thread {name!r:.80} has {counted(count, 'checkpoint')} whose parent is not there, though older ones are: "
        "LangGraph deletes none alone, so it was lost (a rebuild brings it back from the newest good snapshot that has "
        "it)"
        for name, count in rows
    ]


def parents(table: str, inside: str, binary: str = "") -> str:
    """The statement for (namespace, identifier, parent, oldest of that namespace) of a thread's checkpoints whose
    parent was lost. ``inside``: the condition for the thread's rows; ``binary``: how texts are compared as bytes."""
    return (
        f"WITH t AS (SELECT checkpoint_ns AS home, checkpoint_id{binary} AS id, parent_checkpoint_id{binary} AS parent "
        f"FROM {table} WHERE {inside}) "
        "SELECT c.home, c.id, c.parent, o.id FROM t c JOIN (SELECT home, min(id) AS id FROM t GROUP BY home) o "
        "ON o.home = c.home AND o.id < c.parent LEFT JOIN t p ON p.home = c.home AND p.id = c.parent "
        "WHERE p.id IS NULL ORDER BY 1, 2"
    )


def gaps(rows: t.Iterable[t.Sequence[t.Any]]) -> list[Gap]:
    """See _store_optional.LinkedRecords."""
    return [
        Gap(*("/".join((LABEL, escape(home), escape(one))) for one in (parent, child, oldest)))
        for home, child, parent, oldest in rows
        if encodable(home + child + parent + oldest)  # anything else is damage by itself
    ]


def links(row: Row) -> Links | None:
    """See _store_optional.LinkedRecords."""
    label, home, own = (*row[KEY].split("/"), "", "")[:3]
    if label != LABEL:
        return None
    try:
        ((values,),) = [rows for table, rows in readable(row[PAYLOAD]).items() if table == "checkpoints"]
    except (RecordCorrupt, ValueError):
        return None
    parent, checkpoint = values.get("parent_checkpoint_id"), values.get("checkpoint")
    versions = checkpoint.get("channel_versions") if isinstance(checkpoint, dict) else None
    blobs = [f"blob/{home}/{escape(channel)}/{escape(str(of))}" for channel, of in (versions or {}).items()]
    return Links(f"{label}/{home}/{escape(parent)}" if parent else None, blobs, f"write/{home}/{own}/")
