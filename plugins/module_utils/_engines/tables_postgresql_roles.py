# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""As whom an application reaches its tables: as itself, as their owner, or as somebody whom row-level security does not
bind. It may set another role; a view reads as its own owner, and so does a function that is SECURITY DEFINER.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .postgresql_arrays import Ints
from .postgresql_roles import MAY, UNBOUND
from .postgresql_session import Session

#: Views over these tables and over such views: as whom each reads (its "asker" is whoever asks), and what a
#: materialized one holds is a copy.
_VIEWS: t.Final = """
WITH RECURSIVE look AS (
SELECT DISTINCT d.refobjid AS below, v.oid, v.relkind = 'm' AS copy, v.relowner,
  coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(v.reloptions) o
    WHERE o.option_name = 'security_invoker'), false) AS invoker
FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
AND v.relkind IN ('v', 'm')),
above AS (
SELECT l.oid, l.copy, CASE WHEN l.invoker THEN 0::oid ELSE l.relowner END AS asker FROM look l
WHERE l.below::bigint = ANY(%s)
UNION SELECT l.oid, a.copy OR l.copy, CASE WHEN a.asker <> 0 THEN a.asker WHEN l.invoker THEN 0::oid ELSE l.relowner END
FROM above a JOIN look l ON l.below = a.oid)"""


def acts_as_owner(session: Session, table: int, application: str | None) -> bool:
    """Whether the application reads this table as its owner, or may do so: then only FORCE binds it. The collection's
    own functions, of any of its stores, show no rows."""
    row = session.row(
        f"{_VIEWS} SELECT {MAY.format(a='r.oid', b='c.relowner')} "
        "OR EXISTS (SELECT 1 FROM above x WHERE NOT x.copy AND x.asker <> 0 "
        "AND pg_has_role(x.asker, c.relowner, 'USAGE')) "
        "OR EXISTS (SELECT 1 FROM pg_proc p WHERE p.prosecdef AND NOT starts_with(p.proname::text, 'memops_') "
        "AND pg_has_role(p.proowner, c.relowner, 'USAGE') "
        "AND has_function_privilege(r.oid, p.oid, 'EXECUTE')) "
        "FROM pg_class c, pg_roles r WHERE c.oid = %s::bigint::oid AND r.rolname = %s",
        Ints([table]), table, application,
    )  # fmt: skip
    return bool(row and row[0])


def open_views(session: Session, tables: Ints, application: str | None) -> list[str]:
    """What shows the application all rows in spite of a fence, each with what ends that."""
    rows = session.rows(
        f"{_VIEWS} SELECT DISTINCT x.oid::regclass::text, o.rolname::text FROM above x "
        f"JOIN pg_roles o ON o.oid = x.asker WHERE NOT x.copy AND {UNBOUND} "
        "AND EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = %s "
        "AND has_table_privilege(r.oid, x.oid, 'SELECT')) ORDER BY 1",
        tables, application,
    )  # fmt: skip
    return [
        f"the view {view} shows {application} all rows, as it reads as {owner}; end that: ALTER VIEW {view} "
        "SET (security_invoker = true), or have a plain role own it"
        for view, owner in rows
    ]


def not_fenced(session: Session, tables: Ints, application: str | None) -> list[str]:
    """Copies of the rows that the application may read, and functions that may show them, in words."""
    copies = session.rows(
        f"{_VIEWS} SELECT DISTINCT x.oid::regclass::text FROM above x JOIN pg_roles r ON r.rolname = %s "
        "WHERE x.copy AND has_table_privilege(r.oid, x.oid, 'SELECT') ORDER BY 1",
        tables, application,
    )  # fmt: skip
    functions = session.rows(
        "SELECT DISTINCT p.oid::regprocedure::text, o.rolname::text FROM pg_proc p "
        "JOIN pg_roles o ON o.oid = p.proowner JOIN pg_roles r ON r.rolname = %s "
        f"JOIN pg_class c ON c.oid::bigint = ANY(%s) WHERE p.prosecdef AND {UNBOUND} "
        "AND position(c.relname::text IN p.prosrc) > 0 AND has_function_privilege(r.oid, p.oid, 'EXECUTE') ORDER BY 1",
        application, tables,
    )  # fmt: skip
    said = [f"{name}: a copy of the rows, as they were when it was refreshed" for (name,) in copies]
    return said + [f"{name}: it reads as {owner}, whom row-level security does not bind" for name, owner in functions]
