# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of channels that LangGraph's checkpoints lack: a checkpoint names the version of each channel, and its value
lies in a row of its own. Read only.

PRIVATE to the collection. By the tables alone a channel without a value looks like one whose value is gone; so this is
asked of rows that a snapshot has.
"""
from __future__ import annotations

import typing as t

from .._table_records import parse_name
from .postgresql_arrays import Texts
from .postgresql_session import Session
from .tables_postgresql_reader import Live

_VERSIONS: t.Final = "c.checkpoint -> 'channel_versions'"


def needed(session: Session, live: Live, namespace: str, keys: t.Sequence[str]) -> list[str]:
    """See _store_optional.NeededRecords."""
    roots = [one.root for one in live.roots]
    numbers = {root.label: number for number, root in enumerate(roots)}
    names = [(key, parse_name(roots, namespace, key)) for key in keys]
    blobs = [(key, name.columns) for key, name in names if name.root.label == "blob"]
    if not blobs:
        return []
    checkpoints = live.sql[numbers["checkpoint"]]
    columns = ("checkpoint_ns", "channel", "version")
    found = session.rows(
        "WITH versions AS MATERIALIZED (SELECT DISTINCT c.checkpoint_ns::text AS home, v.key AS channel, "
        "v.value AS version "
        f"FROM {checkpoints.live.table.name} c CROSS JOIN LATERAL jsonb_each_text("
        f"CASE jsonb_typeof({_VERSIONS}) WHEN 'object' THEN {_VERSIONS} ELSE '{{}}' END) AS v "
        f"WHERE {checkpoints.inside(namespace, 'c')}) "
        "SELECT w.key FROM unnest(%s, %s, %s, %s) AS w(key, home, channel, version) "
        "JOIN versions USING (home, channel, version)",
        Texts([key for key, _columns in blobs]), *(Texts([of[column] for _key, of in blobs]) for column in columns),
    )  # fmt: skip
    return [row[0] for row in found]
