# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The application's own triggers on its tables, while an operator puts and removes rows there.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .postgresql_session import Session
from .tables_postgresql_others import homes
from .tables_postgresql_reader import Live

#: Those that are on: the table, the trigger, how it is switched on, whether it runs before a row is put or removed, and
#: whether it waits for the commit. A partition has each of its table's as one of its own, which may be off there alone,
#: and the table's own does nothing for rows.
_TRIGGERS: t.Final = """
SELECT g.tgrelid::regclass::text, quote_ident(g.tgname),
  CASE g.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END,
  g.tgtype & 3 = 3 AND c.relkind = 'r', g.tginitdeferred
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid WHERE g.tgrelid::bigint = ANY(%s) AND NOT g.tgisinternal
AND g.tgenabled IN ('O', 'A') AND g.tgname NOT LIKE 'memops_%%' ORDER BY 1, 2"""
_AFTER: t.Final = """
SELECT quote_ident(g.tgname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_trigger g
JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE g.tgrelid::bigint = ANY(%s)
AND NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgtype & 2 = 0 AND g.tgenabled IN ('O', 'A')
AND g.tgname NOT LIKE 'memops_%%' ORDER BY 2, 1"""
#: Of the tables' schemas, and public, those in which nobody can make anything who could not make a trigger, too.
_TRUSTED: t.Final = """
SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE (n.nspname = 'public' OR n.oid IN (SELECT relnamespace
FROM pg_class WHERE oid::bigint = ANY(%s))) AND NOT EXISTS (SELECT 1 FROM pg_roles r, pg_class c
WHERE c.oid::bigint = ANY(%s) AND NOT r.rolsuper AND has_schema_privilege(r.oid, n.oid, 'CREATE')
AND NOT pg_has_role(r.oid, c.relowner, 'USAGE')) ORDER BY n.nspname = 'public', 1"""


@contextlib.contextmanager
def as_written(
    session: Session, live: Live, hold: t.Callable[[Session, t.Sequence[str], str], None]
) -> t.Iterator[bool]:
    """A row goes into the tables as it was saved: triggers of the application that run before that, and may give it
    another time or refuse it, are off in this transaction. Nobody else writes meanwhile, so nobody misses them. The
    others find the application's tables as in its own sessions. True: one of them waits for the commit."""
    found = session.rows(_TRIGGERS, homes(live))
    off = [(table, trigger, how) for table, trigger, how, before, _late in found if before]
    if off:
        hold(session, sorted({table for table, _trigger, _how in off}), "SHARE ROW EXCLUSIVE")
    for table, trigger, _how in off:
        session.say(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
    if len(found) > len(off):
        schemas = [row[0] for row in session.rows(_TRUSTED, homes(live), homes(live))]
        session.say(f"SET LOCAL search_path = {', '.join(['pg_catalog', *schemas])}")
    yield any(late for *_rest, late in found)
    settled(session)  # no table is altered before that
    if len(found) > len(off):
        session.say("SET LOCAL search_path = pg_catalog")
    for table, trigger, how in off:
        session.say(f"ALTER TABLE {table} {how} TRIGGER {trigger}")


def settled(session: Session) -> None:
    """What waits for the commit, a trigger that may change a row or a foreign key, runs now: so that rows that are read
    back afterwards are those that stay. Errors: OutOfOrder."""
    session.say("SET CONSTRAINTS ALL IMMEDIATE")


def changing(session: Session, live: Live) -> tuple[str, str]:
    """(what may have changed a row that was put, what to do about it)."""
    found = session.rows(_AFTER, homes(live))
    if not found:
        return "a rule of the application changes it, or its columns are others now", (
            "look for rules on its tables, and compare their columns with those when the snapshot was taken"
        )
    named = ", ".join(f"{trigger} on {table}" for trigger, table in found)
    off = "; ".join(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}" for trigger, table in found)
    return f"a trigger of the application changes it ({named})", (
        f"have the owner of the tables say {off}; then run the same command again, and ENABLE afterwards"
    )
