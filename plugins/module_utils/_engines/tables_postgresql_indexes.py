# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Indexes of another application's tables while many rows come: those of vectors are built once after them, not row by
row, and the planner learns what came.

PRIVATE to the collection. A vector index goes only where the table has rows of no other namespace, as after a loss or
in a new database: nobody else's searches need the index meanwhile. It goes and comes in the transaction that puts the
rows, so that nobody ever sees the table without it.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import StoreUnavailable
from .postgresql_session import Session
from .tables_postgresql_reader import Live
from .tables_postgresql_rules import fenced_tables
from .tables_postgresql_sql import inside

if t.TYPE_CHECKING:
    from .tables_postgresql_generations import TablesGenerations

MANY: t.Final = 1000  # records from which on an index that is built anew is worth the lock on its table
_INDEXES: t.Final = """
SELECT i.indexrelid::bigint::oid::regclass::text, {} FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class r ON r.oid = i.indrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = %s::bigint::oid AND a.amname IN ('hnsw', 'ivfflat') AND i.indisvalid AND c.reltablespace = 0
AND r.relkind = 'r' AND NOT r.relispartition AND pg_has_role(r.relowner, 'USAGE')
AND obj_description(i.indexrelid, 'pg_class') IS NULL
AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = i.indexrelid AND d.deptype = 'e')
ORDER BY 1"""


@contextlib.contextmanager
def built_after(session: Session, store: TablesGenerations, namespace: str, records: int) -> t.Iterator[None]:
    """The block puts so many records into the tables."""
    found: list[str] = []
    for table, rule in fenced_tables(store.live) if records >= MANY else ():
        some = session.rows(_INDEXES.format("NULL"), table.oid)  # one that others build anew cannot be described yet
        own = inside(rule, table, "x", namespace)
        others = f"SELECT EXISTS (SELECT 1 FROM {table.name} x WHERE ({own}) IS NOT TRUE)"
        if some and not session.row(others)[0]:
            try:
                store._hold(session, [table.name])
            except StoreUnavailable:
                if not session.usable:
                    raise
                continue  # it takes longer then, but nobody has to end first
            if session.row(others)[0]:  # somebody came before us
                continue
            for name, text in session.rows(_INDEXES.format("pg_get_indexdef(i.indexrelid)"), table.oid):
                session.say(f"DROP INDEX {name}")
                found.append(text)
    yield
    for text in found:
        session.say(text)


def analyze(session: Session, live: Live) -> None:
    """Let the planner know what this transaction has put. It also keeps autovacuum away until the end: that would see
    empty tables, and with tables that pass for empty a foreign key looks for its row among all of the namespace. Where
    another transaction does the same, it tells the planner enough."""
    session.say(f"ANALYZE (SKIP_LOCKED) {', '.join(table.name for table, _rule in fenced_tables(live))}")
