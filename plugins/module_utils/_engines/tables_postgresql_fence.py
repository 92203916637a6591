# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence around namespaces of another application's tables: row-level security and triggers, while it stands.

PRIVATE to the collection.

Which namespaces are fenced says the control table; the rules that carry it out are made from it in the same
transaction, with the names written into them, so that an application needs no right to anything of ours and a row of
any other namespace costs one comparison. They are made under a lock that waits for every transaction at work on the
tables, asked for in short turns, so that nobody stands behind us for long. Reads meet a restrictive rule; a write meets
a trigger, and for rows that the rule hides another rule that raises and is asked first, since row-level security by
itself would answer "UPDATE 0". When the last fence goes, all of it goes, and row-level security is as it was.
"""
from __future__ import annotations

import dataclasses
import hashlib
import time
import typing as t

from .._errors import CannotProceed, StoreUnavailable
from .._layouts.tables import Namespaces
from .._model import Claim
from .._table_records import overlap
from .leases import settable
from .postgresql_arrays import Ints
from .postgresql_errors import FENCE_MESSAGE, FENCE_STATE
from .postgresql_fence import OPERATING
from .postgresql_operators import HOLD, QUARANTINE_TTL
from .postgresql_rows import escaped, lenient
from .postgresql_schema import literal, quoted
from .postgresql_session import Session
from .tables_postgresql_reader import Live
from .tables_postgresql_records import TablesRecords
from .tables_postgresql_schema import LiveRoot, Table
from .tables_postgresql_sql import inside

TURN = "100ms"  # for how long others may wait behind us
PAUSE = 0.05  # seconds between two turns
#: Which rows a trigger looks at. It asks before anything of ours is called: that costs others next to nothing.
_EVENTS: t.Final = {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",), "truncate": ()}


def fenced_tables(live: Live) -> list[tuple[Table, Namespaces]]:
    """Every table with the rule by which its own columns tell the namespace."""
    found: dict[int, tuple[Table, Namespaces]] = {}
    for root in live.roots:
        found[root.table.oid] = (root.table, root.root.namespace)
        for companion, table in root.companions:
            own = {parent: column for column, parent in companion.parent}
            columns = tuple(own[column] for column in root.root.namespace.columns)
            found[table.oid] = (table, dataclasses.replace(root.root.namespace, columns=columns))
    return list(found.values())


def carries_namespace(root: LiveRoot) -> bool:
    return all(
        {parent for _own, parent in companion.parent} >= set(root.root.namespace.columns)
        for companion, _table in root.companions
    )


def _operator(owner: str) -> str:
    """Whether it is the operator who asks: the one who logged in, as a cascade acts as the owner of its table."""
    member = f"pg_catalog.pg_has_role(session_user, {literal(owner)}, 'USAGE')"
    return f"pg_catalog.current_setting('{OPERATING}', true) OPERATOR(pg_catalog.=) 'on' AND {member}"


class Rules:
    """What the fence around these namespaces is made of."""

    def __init__(self, live: Live, schema: str, owner: str, names: t.Sequence[str]) -> None:
        self.tables = fenced_tables(live)
        self.schema, self.owner, self.names = schema, owner, names
        self.operator = _operator(owner)

    def condition(self, table: Table, rule: Namespaces, alias: str) -> str:
        return " OR ".join(inside(rule, table, alias, name) for name in self.names) or "false"

    def body(self) -> str:
        """What is called for a row of a fenced namespace."""
        return f"""
BEGIN
  IF {self.operator} THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    RAISE EXCEPTION '{FENCE_MESSAGE}: this table takes no truncate' USING ERRCODE = '{FENCE_STATE}';
  END IF;
  RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no %', lower(TG_OP) USING ERRCODE = '{FENCE_STATE}';
END
"""

    def mark(self, table: Table, rule: Namespaces) -> str:
        """By which rules that are other than these are known."""
        text = f"{self.condition(table, rule, 'x')} {self.owner} {self.schema} by rows"
        return "memops " + hashlib.sha256(text.encode()).hexdigest()[:16]

    def policies(self, table: Table, rule: Namespaces) -> dict[str, str]:
        free = f"({self.condition(table, rule, quoted(table.plain))}) IS NOT TRUE"
        refuse = f"{free} OR {self.schema}.memops_refused()"
        return {
            "memops_read": f"AS RESTRICTIVE FOR SELECT USING ({free} OR {self.schema}.memops_hidden())",
            "memops_update": f"AS RESTRICTIVE FOR UPDATE USING ({refuse}) WITH CHECK (true)",
            "memops_delete": f"AS RESTRICTIVE FOR DELETE USING ({refuse})",
        }

    def statements(self, table: Table, rule: Namespaces, pass_all: bool) -> list[str]:
        function, name = f"{self.schema}.memops_fence_{table.oid}", table.name
        said = [
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog "
            f"AS $memops${self.body()}$memops$"
        ]
        mark = self.mark(table, rule)
        for verb, sides in _EVENTS.items():
            trigger = f"memops_fence_{verb}"
            rows = " OR ".join(f"({self.condition(table, rule, side)})" for side in sides)
            when = f"AFTER {verb.upper()} ON {name} FOR EACH ROW WHEN ({rows})"
            said.append(
                f"DROP TRIGGER IF EXISTS {trigger} ON {name}; CREATE TRIGGER {trigger} "
                + (when if sides else f"BEFORE {verb.upper()} ON {name} FOR EACH STATEMENT")
                + f" EXECUTE FUNCTION {function}(); ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}"
            )
        said.append(  # the conditions that were made are known again
            f"DO $memops$ DECLARE g record; BEGIN FOR g IN SELECT * FROM pg_trigger WHERE tgrelid = {table.oid} "
            f"AND tgname LIKE 'memops_fence_%' LOOP EXECUTE format('COMMENT ON TRIGGER %I ON {name} IS %L', g.tgname, "
            f"'{mark} ' || coalesce(md5(g.tgqual::text), '')); END LOOP; END $memops$"
        )
        policies = self.policies(table, rule)
        if pass_all:  # without any such rule everything would be hidden
            policies["memops_pass"] = "FOR ALL USING (true) WITH CHECK (true)"
        for policy, text in policies.items():
            said.append(
                f"DROP POLICY IF EXISTS {policy} ON {name}; CREATE POLICY {policy} ON {name} {text}; "
                f"COMMENT ON POLICY {policy} ON {name} IS '{mark}'"
            )
        return said

    def removal(self, table: Table) -> list[str]:
        said = [f"DROP TRIGGER IF EXISTS memops_fence_{verb} ON {table.name}" for verb in _EVENTS]
        rules = ("read", "update", "delete", "pass")
        said += [f"DROP POLICY IF EXISTS memops_{what} ON {table.name}" for what in rules]
        return [*said, f"DROP FUNCTION IF EXISTS {self.schema}.memops_fence_{table.oid}()"]


def helpers(schema: str, owner: str) -> list[str]:
    """The functions that every rule asks, and the table that notes what was there before. The one that raises is the
    cheaper, so that PostgreSQL asks it before the rule that hides."""
    operator = _operator(owner)
    return [
        f"CREATE OR REPLACE FUNCTION {schema}.memops_hidden() RETURNS boolean LANGUAGE plpgsql STABLE COST 10 AS "
        f"$memops$BEGIN RETURN coalesce({operator}, false); END$memops$",
        f"CREATE OR REPLACE FUNCTION {schema}.memops_refused() RETURNS boolean LANGUAGE plpgsql STABLE COST 1 AS "
        f"$memops$BEGIN IF {operator} THEN RETURN true; END IF; "
        f"RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no update or delete' "
        f"USING ERRCODE = '{FENCE_STATE}'; END$memops$",
        f"CREATE TABLE IF NOT EXISTS {schema}.memops_tables (name text PRIMARY KEY, enabled boolean NOT NULL, "
        "forced boolean NOT NULL)",
    ]


class TablesFence(TablesRecords):
    """The fence's part of ``Store``."""

    live: Live

    def _log(self, session: Session, claim: Claim, operation: str, reason: str) -> None:
        """There is no access log to keep."""

    def fence(self, claim: Claim) -> bool:
        with self._operating(claim, alone=True) as session:
            space = self._namespace(session, claim.namespace, HOLD)
            changed = space.state != "quarantined" or space.incident != claim.incident
            if space.state != "quarantined":
                self._alone(session, claim.namespace)
                session.run(
                    f"UPDATE {self.sql.namespace} SET prior_state = state, prior_ttl = serving_ttl, "
                    "state = 'quarantined', serving_ttl = %s, incident = %s WHERE name = %s",
                    QUARANTINE_TTL, claim.incident, escaped(claim.namespace),
                )  # fmt: skip
            elif changed:
                session.run(  # left by an incident that was closed without a release
                    f"UPDATE {self.sql.namespace} SET incident = %s WHERE name = %s",
                    claim.incident, escaped(claim.namespace),
                )  # fmt: skip
            return self._carry_out(session) or changed

    def unfence(self, claim: Claim) -> bool:
        with self._operating(claim, alone=True) as session:
            if self._namespace(session, claim.namespace, HOLD).state != "quarantined":
                return False
            session.run(
                f"UPDATE {self.sql.namespace} SET state = prior_state, serving_ttl = prior_ttl, incident = NULL, "
                "prior_state = NULL, prior_ttl = NULL WHERE name = %s",
                escaped(claim.namespace),
            )
            self._carry_out(session)
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        settable(state)
        with self._operating(claim, alone=True) as session:
            space = self._namespace(session, claim.namespace, HOLD)
            column = "prior_state" if space.state == "quarantined" else "state"
            if getattr(space, column) == state:
                return False
            session.run(
                f"UPDATE {self.sql.namespace} SET {column} = %s WHERE name = %s", state, escaped(claim.namespace)
            )
            self._carry_out(session)
        return True

    def _alone(self, session: Session, namespace: str) -> None:
        """Errors: CannotProceed while another incident has rows of this namespace under its fence."""
        rule = self.live.roots[0].root.namespace
        for other, incident in self._fenced(session):
            if other != namespace and overlap(rule, namespace, other):
                raise CannotProceed(
                    f"Rows of namespace {namespace!r:.80} belong to {other!r:.80} too, which is quarantined "
                    f"(incident {incident}).",
                    f"finish that incident first: memory_namespace={other}",
                )

    def _fenced(self, session: Session) -> list[tuple[str, str | None]]:
        rows = session.rows(
            f"SELECT name, incident FROM {self.sql.namespace} WHERE state <> 'serving' AND name <> ''::bytea "
            "ORDER BY name"
        )
        return [(lenient(name), incident) for name, incident in rows]

    def _rules(self, session: Session) -> Rules:
        owner = session.row(
            "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = %s", self.sql.plain_schema
        )
        names = [name for name, _incident in self._fenced(session)]
        return Rules(self.live, self.sql.schema, "" if owner is None else owner[0], names)

    def fence_lost(self, session: Session) -> list[str]:
        """What of the fence is not as it should be; nothing where none should stand."""
        rules = self._rules(session)
        return lost_of(session, rules) if rules.names else []

    def _carry_out(self, session: Session) -> bool:
        """Make the tables' rules those of the fenced namespaces; whether anything was to be done."""
        rules = self._rules(session)
        noted = {row[0]: row[1:] for row in session.rows(f"SELECT name, enabled, forced FROM {self._notes}")}
        if (not rules.names and not noted) or (rules.names and not lost_of(session, rules)):
            return False
        self._own_tables(session)
        self._hold(session, [table.name for table, _rule in rules.tables])
        for table, rule in rules.tables:
            if not rules.names:
                for text in rules.removal(table):
                    session.say(text)
                self._as_it_was(session, table, *noted.get(table.plain, (True, True)))
                continue
            before = noted.get(table.plain) or self._note(session, table)
            for text in rules.statements(table, rule, pass_all=not before[0]):
                session.say(text)
            session.say(f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY")
            if self._owns(session, table):
                session.say(f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY")
        if not rules.names:
            session.run(f"DELETE FROM {self._notes}")
        return True

    @property
    def _notes(self) -> str:
        return self.sql.name("memops_tables")

    def _note(self, session: Session, table: Table) -> tuple[bool, bool]:
        """How row-level security was before the first fence."""
        row = session.row(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::bigint::oid", table.oid
        )
        session.run(f"INSERT INTO {self._notes} VALUES (%s, %s, %s)", table.plain, *row)
        return bool(row[0]), bool(row[1])

    def _as_it_was(self, session: Session, table: Table, enabled: bool, forced: bool) -> None:
        if not enabled:
            session.say(f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY")
        if not forced:
            session.say(f"ALTER TABLE {table.name} NO FORCE ROW LEVEL SECURITY")

    def _owns(self, session: Session, table: Table) -> bool:
        """Whether the application owns the table, so that only FORCE binds it."""
        row = session.row(
            "SELECT pg_has_role(r.oid, c.relowner, 'USAGE') FROM pg_class c, pg_roles r "
            "WHERE c.oid = %s::bigint::oid AND r.rolname = %s",
            table.oid, self.application_user,
        )  # fmt: skip
        return bool(row and row[0])

    def _own_tables(self, session: Session) -> None:
        """Errors: CannotProceed when this user may not put rules on the tables."""
        for table, _rule in fenced_tables(self.live):
            row = session.row(
                "SELECT pg_has_role(relowner, 'USAGE'), pg_get_userbyid(relowner)::text, current_user::text "
                "FROM pg_class WHERE oid = %s::bigint::oid",
                table.oid,
            )
            if row is None or not row[0]:
                raise CannotProceed(
                    f"Only the owner of the table {table.plain} can fence it, which is {row[1] if row else 'nobody'}.",
                    f"make the operator a member of that role: GRANT {row[1]} TO {row[2]}" if row else "look at it",
                )

    def _hold(self, session: Session, names: t.Sequence[str]) -> None:
        """All transactions at work on these tables have ended, and the next ones wait. In short turns: who comes
        meanwhile stands behind us. Errors: StoreUnavailable that names who does not end."""
        deadline = time.monotonic() + self.address.busy_timeout
        while True:
            session.say(f"SAVEPOINT memops_hold; SET LOCAL lock_timeout = '{TURN}'")
            try:
                session.say(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
                session.say(f"SET LOCAL lock_timeout = '{max(1, int(self.address.busy_timeout * 1000))}ms'")
                return
            except StoreUnavailable:
                if session.state != "55P03" or not session.usable:
                    raise
                session.say("ROLLBACK TO SAVEPOINT memops_hold")
                if time.monotonic() > deadline:
                    raise self._unended(f"The table {names[0]}", session) from None
            time.sleep(PAUSE)

    def _unended(self, what: str, session: Session) -> StoreUnavailable:
        rows = session.rows(
            "SELECT DISTINCT a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, '') FROM pg_locks l "
            "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND l.pid <> pg_backend_pid() "
            "AND l.relation::bigint = ANY(%s) ORDER BY 1 LIMIT 5",
            Ints([table.oid for table, _rule in fenced_tables(self.live)]),
        )
        who = "; ".join(f"pid {pid}, {user} {program}".rstrip() for pid, user, program in rows)
        return StoreUnavailable(
            f"{what} cannot be fenced yet: a transaction that is at work on it does not end"
            + (f" ({who})." if who else "."),
            "end it, then run the same command again: "
            + (f"SELECT pg_terminate_backend({rows[0][0]})" if rows else "see pg_stat_activity"),
        )


def lost_of(session: Session, rules: Rules) -> list[str]:
    """What of these rules is missing or another."""
    lost = []
    for table, rule in rules.tables:
        row = session.row(
            "SELECT c.relrowsecurity, (SELECT p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE n.nspname = %s AND p.proname = %s), "
            "(SELECT count(*) FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid WHERE g.tgrelid = c.oid "
            "AND g.tgname LIKE 'memops_fence_%%' AND g.tgenabled = 'A' AND p.proname = %s AND "
            "obj_description(g.oid, 'pg_trigger') = %s || ' ' || coalesce(md5(g.tgqual::text), '')), "
            "(SELECT count(*) FROM pg_policy o WHERE o.polrelid = c.oid AND NOT o.polpermissive "
            "AND o.polroles = '{0}'::oid[] AND o.polname IN ('memops_read', 'memops_update', 'memops_delete') "
            "AND obj_description(o.oid, 'pg_policy') = %s) FROM pg_class c WHERE c.oid = %s::bigint::oid",
            rules.schema.strip('"').replace('""', '"'), f"memops_fence_{table.oid}", f"memops_fence_{table.oid}",
            rules.mark(table, rule), rules.mark(table, rule), table.oid,
        )  # fmt: skip
        if row is None or not row[0]:
            lost.append(f"row-level security of {table.plain} is off")
        if row is None or row[1] != rules.body() or row[2] != len(_EVENTS):
            lost.append(f"the fence's triggers on {table.plain} are missing or changed")
        if row is None or row[3] != 3:
            lost.append(f"the fence's rules on {table.plain} are missing or changed")
    return lost
