# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's items that no search finds: nearly all others of their namespace have a vector, and they have none.

PRIVATE to the collection. Which items are to have vectors only the application knows (``index`` of its store and of
each ``put``), so their siblings are the measure, and it is a remark, never a finding that a rebuild acts on. The name
of a vector is a path (``text``, ``notes[*].text``, with a number where it gives several texts): what counts is where it
begins.
"""
from __future__ import annotations

import sqlite3
import typing as t

if t.TYPE_CHECKING:
    from .postgresql_session import Session
    from .tables_postgresql_reader import Live
    from .tables_sqlite_sql import Schema

FEW: t.Final = 10  # of so many items with a vector, one without it; more of them may be meant
LINES: t.Final = 20


def in_postgresql(session: Session, live: Live) -> list[str]:
    """In words, by namespace and field."""
    root = live.roots[0]
    if not root.companions:
        return []
    items, vectors = root.table.name, root.companions[0][1].name
    field = "split_part(split_part(v.field_name, '.', 1), '[', 1)"
    rows = session.rows(
        f"WITH f AS (SELECT v.prefix, {field} AS field, count(DISTINCT v.key) AS others FROM {vectors} v "
        "GROUP BY 1, 2) SELECT f.prefix, f.field, f.others, count(*), min(s.key) FROM f "
        f"JOIN {items} s ON s.prefix = f.prefix AND (f.field = '$' AND s.value::text <> '{{}}' OR "
        "(s.value -> f.field)::text NOT IN ('null', '[]', '{}', '\"\"')) "
        f"WHERE NOT EXISTS (SELECT 1 FROM {vectors} v WHERE v.prefix = s.prefix AND v.key = s.key AND {field} = "
        f"f.field) GROUP BY 1, 2, 3 HAVING {_FEW} ORDER BY 1, 2 LIMIT {LINES}"
    )
    return [_said(*row) for row in rows]


def in_sqlite(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """The same. Errors: sqlite3.Error."""
    items = schema.tables[0].plain
    vectors = next((table.plain for table in schema.tables if table.vectors and not table.is_root), None)
    if vectors is None:
        return []
    first = "substr({0}, 1, instr({0} || '{1}', '{1}') - 1)"
    field = first.format(first.format("field_name", "."), "[")
    rows = con.execute(
        f"WITH v AS MATERIALIZED (SELECT DISTINCT prefix, key, {field} AS field FROM {vectors} "
        f"WHERE (prefix, key) IN (SELECT prefix, key FROM {items})), "
        "f AS (SELECT prefix, field, count(*) AS others FROM v GROUP BY 1, 2) "
        f"SELECT f.prefix, f.field, f.others, count(*), min(s.key) FROM f JOIN {items} s "
        "ON s.prefix = f.prefix AND (f.field = '$' AND CAST(s.value AS TEXT) <> '{}' OR "
        "CASE WHEN instr(f.field, '\"') = 0 AND json_valid(s.value) THEN "
        "json_extract(s.value, '$.\"' || f.field || '\"') NOT IN ('[]', '{}', '') END) "
        "WHERE (s.prefix, s.key, f.field) NOT IN (SELECT prefix, key, field FROM v) "
        f"GROUP BY 1, 2, 3 HAVING {_FEW} ORDER BY 1, 2 LIMIT {LINES}"
    ).fetchall()
    return [_said(*row) for row in rows]


_FEW: t.Final = f"f.others > 1 AND (count(*) = 1 OR count(*) * {FEW} <= f.others)"


def _said(prefix: t.Any, field: t.Any, others: int, count: int, key: t.Any) -> str:
    items = f"{count} item of {prefix!r:.80} has" if count == 1 else f"{count} items of {prefix!r:.80} have"
    return (
        f"{items} no vector for {field!r:.40}, as {others} others have, so no search finds it: such as {key!r:.80}; "
        "unless the application stored it so, restore it with memory_keys from a snapshot of before"
    )
