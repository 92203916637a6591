# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the fence around another application's tables holds: tried as that application's own user, all rolled back.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._layouts.tables import Root
from .._table_records import namespace_columns, namespace_fields
from .postgresql_arrays import Ints
from .postgresql_fence import OPERATING
from .postgresql_proof import _attempt, _refused
from .postgresql_roles import unbound_role
from .postgresql_schema import quoted
from .postgresql_servers import standbys_behind
from .postgresql_session import WRITING, Session
from .tables_postgresql_fence import TablesFence
from .tables_postgresql_roles import not_fenced, open_views
from .tables_postgresql_schema import Column, LiveRoot, Table, text_literal
from .tables_postgresql_triggers import rewriting

PROBE = "memops-probe"
#: What a column of this type takes, where a row needs something.
_SAMPLES: t.Final = {
    "jsonb": "'{}'", "json": "'{}'", "uuid": "'6d656d6f-7073-4000-8000-000000000000'", "boolean": "false",
    "smallint": "-1", "integer": "-1", "bigint": "-1", "numeric": "-1", "real": "0", "double precision": "0",
    "bytea": r"'\x'", "date": "'2000-01-01'", "interval": "'0'", "inet": "'0.0.0.0'", "cidr": "'0.0.0.0'",
}  # fmt: skip


class _Probe(t.NamedTuple):
    insert: str  # "": none is known that the table would take
    where: str  # "": there is no such row
    there: bool


class TablesProof(TablesFence):
    """The proof's part of ``Store``."""

    made: bool

    def prove(self, namespace: str) -> dict[str, t.Any]:
        detail: list[str] = []
        beside: list[str] = []
        session, _nothing = self._borrow(WRITING)
        try:
            # before an operator changed anything there is no control table to ask, and nothing is fenced
            state = self._namespace(session, namespace).state if self.made else "serving"
            lost = self.fence_lost(session) if self.made else []
            refused, seen, role = True, False, ""
            for live in self.live.roots:
                rules = rewriting(session, Ints([live.table.oid]))
                beside += [f"what the rule {one.name} of {one.table} does in place of {one.event}" for one in rules
                           if one.instead]  # fmt: skip
                probe = self._possible(session, live, namespace, detail)
                name = live.table.name
                column = quoted(next(c.name for c in live.table.columns if not c.always))
                role = self._become_application(session, detail)
                if probe.there:
                    detail.append(f"raw INSERT on {live.table.plain}: not tried, as the only row it can have is there")
                elif probe.insert:
                    refused &= _refused(session, f"INSERT on {live.table.plain}", role, probe.insert, (), detail)
                session.say("RESET ROLE")
                session.rows(f"SELECT set_config('{OPERATING}', 'on', true)")
                if not probe.where:
                    continue
                if probe.insert:
                    session.say(f"{probe.insert} ON CONFLICT DO NOTHING")  # what follows needs a row to be there
                self._become_application(session, [])
                for verb, text in (
                    ("UPDATE", f"UPDATE {name} SET {column} = {column} WHERE {probe.where}"),
                    ("DELETE", f"DELETE FROM {name} WHERE {probe.where}"),
                ):
                    rule = next((one.name for one in rules if one.instead and one.event == verb), None)
                    if rule:
                        what = f"raw {verb} on {live.table.plain}"
                        detail.append(f"{what}: not tried, as its rule {rule} does something else")
                        continue
                    refused &= _refused(session, f"{verb} on {live.table.plain}", role, text, (), detail)
                found: list[t.Any] = []
                with _attempt(session, keep=True) as outcome:
                    found = session.rows(f"SELECT 1 FROM {name} WHERE {probe.where}")
                seen |= bool(found)
                said = "refused" if outcome else f"sees {'rows' if found else 'nothing'}"
                detail.append(f"raw SELECT on {live.table.plain} as {role}: {said}")
                session.say("RESET ROLE")
                session.rows(f"SELECT set_config('{OPERATING}', 'on', true)")
            session.roll_back()
            behind = standbys_behind(session)
            views = open_views(session, self._homes(), self.application_user)
            beside += not_fenced(session, self._homes(), self.application_user)
        finally:
            self._take_back(session)
        application = self.application_user or role
        bound = self._raw_reads_fenced()
        if role != application:
            seen = seen or not bound
        open_to = [] if bound else [f"{application}: row-level security does not bind that role"]
        fenced = state == "quarantined"
        return {
            "writes_refused": refused and not lost,
            "reads_refused": fenced and bound and not seen and not lost and not views,
            "reads_accepted": not fenced and seen,
            "detail": views + detail + lost,
            "not_fenced": [*open_to, *views, *beside, *self._unbound_tables(), *behind],
        }

    def _become_application(self, session: Session, detail: list[str]) -> str:
        session.rows(f"SELECT set_config('{OPERATING}', '', true)")
        return self._become(session, detail)

    def _possible(self, session: Session, live: LiveRoot, namespace: str, detail: list[str]) -> _Probe:
        """A row that the table takes; where rules of the application refuse ours, one that is there."""
        probe = self._probe(session, live, namespace)
        with _attempt(session, keep=True) as outcome:
            session.say("SAVEPOINT memops_possible")
            session.say(f"{probe.insert} ON CONFLICT DO NOTHING")
            session.say("ROLLBACK TO SAVEPOINT memops_possible")
        if not outcome:
            return probe
        detail.append(f"raw INSERT on {live.table.plain}: not tried, as no row is known that it takes")
        inside = self.live.sql[self.live.roots.index(live)].inside(namespace)
        row = session.row(f"SELECT r.tableoid::bigint, r.ctid::text FROM {live.table.name} r WHERE {inside} LIMIT 1")
        if row is None:
            detail.append(f"raw UPDATE and DELETE on {live.table.plain}: not tried, as {namespace} has no row there")
            return _Probe("", "", False)
        return _Probe("", f"tableoid = {row[0]}::oid AND ctid = '{row[1]}'::tid", False)

    def _probe(self, session: Session, live: LiveRoot, namespace: str) -> _Probe:
        """A row that the namespace could have, of this transaction alone."""
        table = live.table
        fixed = fixed_columns(live.root, table, namespace)
        values = {}
        real = self._of_a_row(session, live, namespace)
        for column in table.columns:
            free = column.name not in fixed and column.name not in live.root.key
            absent = free and not self._needed(session, table, column)
            sample = real.get(column.name) or self._value(session, column)
            values[column.name] = "NULL" if absent else fixed.get(column.name) or sample
        names = ", ".join(map(quoted, values))
        casts = ", ".join(f"{text}::{table.column(name).base}" for name, text in values.items())
        which = live.target or fixed
        where = " AND ".join(f"{quoted(name)} = {values[name]}::{table.column(name).base}" for name in which)
        return _Probe(
            f"INSERT INTO {table.name} ({names}) OVERRIDING SYSTEM VALUE VALUES ({casts})",
            where,
            session.row(f"SELECT 1 FROM {table.name} WHERE {where}") is not None,
        )

    def _of_a_row(self, session: Session, live: LiveRoot, namespace: str) -> dict[str, str]:
        """What a row that is there has, but for what makes it the only one: an application's checks take that."""
        unique = {name for index in live.table.unique for name in index}
        names = [c.name for c in live.table.columns if c.name not in unique and c.name not in live.root.key]
        if not names:
            return {}
        inside = self.live.sql[self.live.roots.index(live)].inside(namespace)
        look = f"SELECT {', '.join(f'r.{quoted(name)}::text' for name in names)} FROM {live.table.name} r"
        row = session.row(f"{look} WHERE {inside} LIMIT 1") or session.row(f"{look} LIMIT 1")
        return {name: text_literal(text) for name, text in zip(names, row or ()) if text is not None}

    def _value(self, session: Session, column: Column) -> str:
        """What a column of this type takes. Of a type that is not known its first value, or an empty one."""
        known = _sample(column.kind, column.base)
        if known is not None:
            return known
        row = session.row(
            "SELECT t.typtype::text, t.typsend = 'array_send'::regproc, (SELECT e.enumlabel::text FROM pg_enum e "
            "WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder LIMIT 1) FROM pg_type t WHERE t.oid = to_regtype(%s)",
            column.base,
        )
        if row is None or row[0] not in ("r", "m", "e"):
            return "'{}'" if row and row[1] else "''"
        return {"r": "'empty'", "m": "'{}'"}.get(row[0]) or text_literal(row[2] or "")

    def _needed(self, session: Session, table: Table, column: Column) -> bool:
        row = session.row(
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::bigint::oid AND attname = %s",
            table.oid, column.name,
        )  # fmt: skip
        return bool(row and row[0])

    def _raw_reads_fenced(self) -> bool:
        """Whether row-level security can bind the role that the application uses."""
        if self.application_user is None:
            return False
        with self._asking() as session:
            row = session.row(
                "SELECT NOT rolsuper AND NOT rolbypassrls AND rolname <> current_user "
                "AND NOT pg_has_role(oid, current_user, 'USAGE') FROM pg_roles WHERE rolname = %s",
                self.application_user,
            )
            return bool(row and row[0]) and unbound_role(session, self.application_user) is None

    def _unbound_tables(self) -> list[str]:
        """Who reads in spite of the quarantine. An owner does not where the fence forces the rules on him, too: that it
        does for an application that owns its tables (see _owns)."""
        with self._asking() as session:
            rows = session.rows(
                "SELECT DISTINCT r.rolname::text, CASE WHEN r.rolsuper THEN 'superuser' WHEN r.rolbypassrls THEN "
                "'BYPASSRLS' ELSE 'owner of the tables' END FROM pg_class c, pg_roles r WHERE c.relname = %s AND "
                "r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls OR c.oid = to_regclass(%s) "
                "AND pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity AND NOT EXISTS "
                "(SELECT 1 FROM pg_roles a WHERE a.rolname = %s AND pg_has_role(a.oid, c.relowner, 'USAGE'))) "
                "ORDER BY 1",
                self.live.roots[0].table.plain, self.live.roots[0].table.name, self.application_user,
            )  # fmt: skip
        who = ", ".join(f"{name} ({why})" for name, why in rows)
        return [
            *([f"raw readers: row-level security does not bind {who}"] if who else []),
            "the owner of the tables and superusers, who can drop the rules",
            "a transaction that began to read before the fence, or a cursor WITH HOLD from before, goes on seeing that",
            "a raw MERGE changes nothing, but is told so by its count of 0 rows only",
        ]

    def unbound_application(self) -> str | None:
        """Why the application cannot be fenced, in words."""
        if self.application_user is None:
            return "no memory_store.application_user is set: nothing can be fenced, so nothing can be isolated"
        if not self._raw_reads_fenced():
            return (
                f"row-level security cannot bind the application's user {self.application_user}, which "
                f"{self._why_unbound()}: nothing can be isolated until it has a plain role of its own"
            )
        return None

    def _why_unbound(self) -> str:
        with self._asking() as session:
            row = session.row(
                "SELECT CASE WHEN rolname = current_user THEN 'is the operator''s own' WHEN rolsuper THEN "
                "'is a superuser' WHEN rolbypassrls THEN 'has BYPASSRLS' ELSE 'is a member of the operator' END "
                "FROM pg_roles WHERE rolname = %s",
                self.application_user,
            )
            other = unbound_role(session, str(self.application_user))
        if row is None:
            return "is not there"
        return f"may act as {other}" if other else str(row[0])


def fixed_columns(root: Root, table: Table, namespace: str) -> dict[str, str]:
    """SQL values of the columns that make a probe a row of this namespace."""
    rule = root.namespace
    fixed = {key: text_literal(PROBE) for key in root.key if table.column(key).kind.startswith(("text", "char"))}
    if rule.kind == "json":
        pairs = ", ".join(
            f"{text_literal(name)}, {text_literal(value)}" for name, value in namespace_fields(rule, namespace).items()
        )
        fixed[rule.columns[0]] = f"jsonb_build_object({pairs})"
    else:
        fixed.update((name, text_literal(value)) for name, value in namespace_columns(rule, namespace).items())
    return fixed


def _sample(kind: str, base: str) -> str | None:
    if kind.startswith("vector("):
        return "'[" + ",".join(["0"] * int(kind[7:-1])) + "]'"
    if base.startswith("timestamp"):
        return "'2000-01-01'"
    return "''" if base.startswith(("text", "char")) else _SAMPLES.get(base)
