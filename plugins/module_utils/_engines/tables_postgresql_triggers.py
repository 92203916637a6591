# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The application's own triggers and rules on its tables, while an operator puts and removes rows there.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed
from .postgresql_arrays import Ints
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
#: One ON UPDATE is in the way of INSERT … ON CONFLICT even where it is switched off.
_RULES: t.Final = """
SELECT w.ev_class::regclass::text, quote_ident(w.rulename),
  CASE w.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END, w.is_instead FROM pg_rewrite w
WHERE w.ev_class::bigint = ANY(%s) AND (w.ev_type = '2' OR w.ev_type IN ('3', '4') AND w.ev_enabled IN ('O', 'A'))
ORDER BY 1, 2"""


class Rewriting(t.NamedTuple):
    """A rule (CREATE RULE) by which the server makes something else of a statement, or something more."""

    table: str
    name: str
    event: str
    instead: bool

    def off(self) -> str:
        return f"DROP RULE {self.name} ON {self.table}" if self.event == "UPDATE" else (
            f"ALTER TABLE {self.table} DISABLE RULE {self.name}"
        )  # fmt: skip


def rewriting(session: Session, tables: Ints) -> list[Rewriting]:
    return [Rewriting(*row) for row in session.rows(_RULES, tables)]


def _in_the_way(session: Session, live: Live) -> list[Rewriting]:
    """Those with which no row is surely put, or removed, as an operator says: PostgreSQL takes no INSERT … ON CONFLICT
    on a table with a rule for INSERT or UPDATE."""
    return [rule for rule in rewriting(session, homes(live)) if rule.instead or rule.event != "DELETE"]


def told_of_rules(session: Session, live: Live) -> list[str]:
    """Before it matters: with which rules nothing can be repaired."""
    return [
        f"the rule {rule.name} of {rule.table} rewrites each {rule.event}: a repair refuses until somebody says "
        f"{rule.off()}"
        for rule in _in_the_way(session, live)
    ]


def _refuse_rules(session: Session, live: Live) -> None:
    """Errors: CannotProceed. To switch a rule off keeps everybody from the table, readers too: that is its owner's to
    decide."""
    found = _in_the_way(session, live)
    if not found:
        return
    off = "; ".join(rule.off() for rule in found)
    named = ", ".join(f"{rule.name} on {rule.table} (ON {rule.event})" for rule in found)
    keep = ", and keep its text from pg_rules" if any(rule.event == "UPDATE" for rule in found) else ""
    raise CannotProceed(
        f"A rule of the application rewrites what is put into its tables or removed there: {named}. So nobody can put "
        "a row as it was, and nothing was changed.",
        f"have the owner of the tables say {off}{keep}; then run the same command again, and switch it on (make it "
        "again) afterwards",
    )


@contextlib.contextmanager
def as_written(
    session: Session, live: Live, hold: t.Callable[[Session, t.Sequence[str], str], None]
) -> t.Iterator[bool]:
    """A row goes into the tables as it was saved: triggers of the application that run before that, and may give it
    another time or refuse it, are off in this transaction. Nobody else writes meanwhile, so nobody misses them. The
    others find the application's tables as in its own sessions. True: one of them waits for the commit."""
    _refuse_rules(session, live)
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
