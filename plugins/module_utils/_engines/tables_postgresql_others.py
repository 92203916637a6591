# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application has around its memory tables in PostgreSQL: rows of other tables that go with a memory,
foreign keys, and rows that belong to no namespace.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed
from .._words import counted
from .postgresql_arrays import Ints
from .postgresql_schema import quoted
from .postgresql_session import Session
from .tables_postgresql_reader import Live
from .tables_postgresql_schema import LiveRoot

#: Foreign keys by which a deletion reaches rows that refer to what is deleted: table, its oid, that of what it refers
#: to, what is done there, its columns, and those that they refer to.
_REFERRING: t.Final = """
SELECT f.conrelid::regclass::text, f.conrelid::bigint, f.confrelid::bigint, f.confdeltype::text,
  ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place),
  ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place)
FROM pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confdeltype IN ('c', 'n', 'd')
AND f.confrelid::bigint = ANY(%s) ORDER BY 1"""
_DOES: t.Final = {"c": "are deleted", "n": "forget it", "d": "forget it"}


def homes(live: Live) -> Ints:
    """Where rows lie: tables, and their partitions."""
    tables = [table for root in live.roots for table in root.tables]
    return Ints([oid for table in tables for oid in (table.oid, *(part[0] for part in table.parts))])


class Referring(t.NamedTuple):
    """A foreign key by which a deletion reaches further."""

    table: str
    oid: int
    home: int
    does: str
    pairs: tuple[tuple[str, str], ...]  # its column, and the one that this refers to


def referring(session: Session, live: Live) -> list[Referring]:
    """Those of tables that the layout does not know, and of root tables to themselves: what else refers to each other
    goes and comes together."""
    known = {table.oid: table.oid in {one.table.oid for one in live.roots} for r in live.roots for table in r.tables}
    found = [
        Referring(table, oid, home, _DOES[does], tuple(zip(own, theirs)))
        for table, oid, home, does, own, theirs in session.rows(_REFERRING, homes(live))
    ]
    return [one for one in found if one.oid not in known or (one.oid == one.home and known[one.oid])]


def itself(others: t.Sequence[Referring]) -> bool:
    """Whether a table refers to itself: then what is repaired goes in before what is removed goes out."""
    return any(one.oid == one.home for one in others)


def stands_alone(session: Session, live: LiveRoot) -> bool:
    """Whether no row but those of its own companions refers to a row of this table."""
    ours = Ints([table.oid for _companion, table in live.companions])
    return not session.row(
        "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND confrelid::bigint = %s "
        "AND conrelid::bigint <> ALL(%s))",
        live.table.oid, ours,
    )[0]  # fmt: skip


def spare(
    session: Session, live: LiveRoot, others: t.Sequence[Referring], given: str, which: str, arrays: t.Sequence[t.Any]
) -> None:
    """``given`` and ``which``: the rows r of the root that are to be removed. Errors: CannotProceed when rows of other
    tables would go with them: no snapshot has those."""
    for other in others:
        rows = "JOIN " + live.table.name + " r ON true"
        if other.home == live.table.oid:
            alias = "r"
        else:
            found = next(((c, table) for c, table in live.companions if table.oid == other.home), None)
            if found is None:
                continue
            alias = "x"
            pairs = " AND ".join(f"x.{quoted(own)} = r.{quoted(parent)}" for own, parent in found[0].parent)
            rows += f" JOIN {found[1].name} x ON {pairs}"
        same = " AND ".join(f"o.{quoted(own)} = {alias}.{quoted(theirs)}" for own, theirs in other.pairs)
        text = f"SELECT count(*) FROM {given} {rows} JOIN {other.table} o ON {same} WHERE {which}"
        if other.oid == other.home:
            gone = f"SELECT r.tableoid, r.ctid FROM {given} JOIN {live.table.name} r ON true WHERE {which}"
            text += f" AND (o.tableoid, o.ctid) NOT IN ({gone})"
        count = session.row(text, *arrays, *(arrays if other.oid == other.home else ()))[0]
        if count and other.oid == other.home:
            raise CannotProceed(
                f"To remove rows of {live.table.plain} would reach "
                f"{counted(count, 'other that refers', 'others that refer')} to them, which {other.does} then. "
                "Nothing was changed.",
                "narrow what is repaired (memory_keys, memory_pattern), or name those rows too",
            )
        if count:
            raise CannotProceed(
                f"To remove rows of {live.table.plain} would reach {counted(count, 'row')} of {other.table}, which "
                f"{other.does} then, and which no snapshot holds. Nothing was changed.",
                f"name {other.table} beside {live.table.plain} in memory_store.tables and back up, so that its rows go "
                "and come with their record, or remove those rows first",
            )


def told(session: Session, live: Live) -> list[str]:
    """Before it matters: which tables have rows that go with a memory."""
    names = {table.oid: table.plain for root in live.roots for table in root.tables}
    return [
        f"rows of {other.table} {other.does} when their row of {names.get(other.home, 'a partition')} is removed, and "
        "no snapshot holds them: a repair that would remove such a row refuses"
        for other in referring(session, live)
        if other.oid != other.home
    ]


#: Foreign keys of these tables, or to them, that are looked at row by row: the table, the key, and how it is made; only
#: where this user may change it. Inherited ones follow theirs.
_IMMEDIATE: t.Final = """
SELECT f.conrelid::regclass::text, quote_ident(f.conname),
  CASE WHEN f.condeferrable THEN 'DEFERRABLE INITIALLY IMMEDIATE' ELSE 'NOT DEFERRABLE' END
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid WHERE f.contype = 'f' AND f.conparentid = 0
AND NOT f.condeferred AND (f.conrelid::bigint = ANY(%s) OR f.confrelid::bigint = ANY(%s))
AND pg_has_role(c.relowner, 'USAGE') ORDER BY 1, 2"""


@contextlib.contextmanager
def deferred(
    session: Session, live: Live, hold: t.Callable[[Session, t.Sequence[str], str], None]
) -> t.Iterator[None]:
    """In this transaction rows may refer to each other in any order: it is looked at when all of them are there. Nobody
    else writes to the tables meanwhile. Errors: CannotProceed when a row refers to none then."""
    found = session.rows(_IMMEDIATE, homes(live), homes(live))
    if found:
        hold(session, sorted({table for table, _name, _how in found}), "SHARE ROW EXCLUSIVE")
    for table, name, _how in found:
        session.say(f"ALTER TABLE {table} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED")
    yield
    session.say("SET CONSTRAINTS ALL IMMEDIATE")
    for table, name, how in found:
        session.say(f"ALTER TABLE {table} ALTER CONSTRAINT {name} {how}")


def may_go(session: Session, live: LiveRoot) -> bool:
    """Whether rows of this table may go for a moment while ``deferred``: no row elsewhere, but those of its companions,
    would go or change with them."""
    ours = Ints([table.oid for _companion, table in live.companions])
    return not session.row(
        "SELECT EXISTS (SELECT 1 FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid WHERE f.contype = 'f' "
        "AND f.confrelid::bigint = %s AND f.conrelid::bigint <> ALL(%s) AND (f.confdeltype <> 'a' "
        "OR NOT f.condeferred AND NOT pg_has_role(c.relowner, 'USAGE')))",
        live.table.oid, ours,
    )[0]  # fmt: skip


def unsaved(session: Session, live: Live) -> list[str]:
    """Rows that are no records, in words."""
    lines = []
    for root in live.roots:
        rule, table = root.root.namespace, root.table
        odd = [f"r.{quoted(key)} IS NULL" for key in root.root.key if table.column(key).empty]
        if rule.kind == "json":
            column = f"r.{quoted(rule.columns[0])}"
            fields = ", ".join("'" + field.replace("'", "''").replace("%", "%%") + "'" for field in rule.fields)
            odd.append(f"NOT coalesce({column}::jsonb ?| ARRAY[{fields}], false)")
        else:
            odd += [f"r.{quoted(name)} IS NULL" for name in rule.columns if table.column(name).empty]
            if len(rule.columns) == 1 and table.column(rule.columns[0]).base in ("text", "character varying"):
                odd.append(f"r.{quoted(rule.columns[0])} = ''")
        if odd:
            count = session.row(f"SELECT count(*) FROM {table.name} r WHERE {' OR '.join(odd)}")[0]
            if count:
                lines.append(
                    f"{counted(count, 'row')} of {table.plain} {'belongs' if count == 1 else 'belong'} to no namespace "
                    f"or {'has' if count == 1 else 'have'} no key: no snapshot holds {'it' if count == 1 else 'them'}"
                )
    return lines
