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
import time
import typing as t

from .._errors import CannotProceed, StoreUnavailable
from .._extra_vars import run
from .._layouts.tables import Namespaces
from .._model import Claim
from .._table_records import overlap
from .postgresql_arrays import Ints, Texts
from .postgresql_control import lost_rows
from .postgresql_operators import HOLD, QUARANTINE_TTL
from .postgresql_rows import escaped, lenient
from .postgresql_schema import literal
from .postgresql_session import APPLICATION, Session
from .tables_postgresql_reader import Live
from .tables_postgresql_records import TablesRecords
from .tables_postgresql_roles import acts_as_owner
from .tables_postgresql_rules import Rules, fenced_tables, known_as, lost_of
from .tables_postgresql_schema import Table

TURN = "100ms"  # for how long others may wait behind us
PAUSE = 0.05  # seconds between two turns


class TablesFence(TablesRecords):
    """The fence's part of ``Store``."""

    live: Live

    def _log(self, session: Session, claim: Claim, operation: str, reason: str) -> None:
        """There is no access log to keep."""

    def fence(self, claim: Claim) -> bool:
        with self._operating(claim, alone=True) as session:
            self._in_turn(session)
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

    def _in_turn(self, session: Session) -> None:
        """Who changes the fence next waits until this transaction ends, so that each makes the rules of all."""
        lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
        session.rows(lock, f"memops fence {self.sql.plain_schema}")

    def _alone(self, session: Session, namespace: str) -> None:
        """Errors: CannotProceed while another incident has rows of this namespace under its fence."""
        rule = self.live.roots[0].root.namespace
        for other, incident in self._fenced(session):
            if other != namespace and overlap(rule, namespace, other):
                raise CannotProceed(
                    f"Rows of namespace {namespace!r:.80} belong to {other!r:.80} too, which is quarantined "
                    f"(incident {incident}).",
                    f"finish that incident first: {run('rebuild', memory_namespace=other)}",
                )

    def _fenced(self, session: Session) -> list[tuple[str, str | None]]:
        rows = session.rows(
            f"SELECT name, incident FROM {self.sql.namespace} WHERE state <> 'serving' AND name <> ''::bytea "
            "ORDER BY name"
        )
        # of a namespace whose control row is gone nobody knows: what fenced it stays
        lost: list[tuple[str, str | None]] = [(name, None) for name in lost_rows(session, self.sql)]
        return sorted([(lenient(name), incident) for name, incident in rows] + lost)

    def _rules(self, session: Session) -> Rules:
        owner = session.row(
            "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = %s", self.sql.plain_schema
        )
        names = [name for name, _incident in self._fenced(session)]
        return Rules(self.live, self.sql.schema, "" if owner is None else owner[0], names)

    def fence_lost(self, session: Session) -> list[str]:
        """What of the fence is not as it should be; nothing where none should stand."""
        while True:
            rules = self._rules(session)
            lost = self._lost(session, rules) if rules.names else []
            if not lost or self._rules(session).names == rules.names:  # another one has changed it meanwhile
                return lost

    def _lost(self, session: Session, rules: Rules) -> list[str]:
        lost = lost_of(session, rules)
        for table, _rule in rules.tables:
            forced = "SELECT relforcerowsecurity FROM pg_class WHERE oid = %s::bigint::oid"
            if self._owns(session, table) and not session.row(forced, table.oid)[0]:
                said = f"row-level security of {table.plain} does not bind the application, which reads as its owner"
                lost.append(said)
        return lost

    def _carry_out(self, session: Session) -> bool:
        """Make the tables' rules those of the fenced namespaces; whether anything was to be done."""
        self._in_turn(session)
        rules = self._rules(session)
        noted = {row[0]: row[1:] for row in session.rows(f"SELECT name, enabled, forced FROM {self._notes}")}
        if (not rules.names and not noted) or (rules.names and not self._lost(session, rules)):
            return False
        self._own_tables(session)
        self._hold(session, [table.name for table, _rule in rules.tables])
        for table, rule in rules.tables if rules.names else self._to_free(session, rules, noted):
            if not rules.names:
                for text in rules.removal(table):
                    session.say(text)
                self._as_it_was(session, table, *noted.get(known_as(table), (True, True)))
                continue
            before = noted.get(known_as(table)) or self._note(session, table)
            for text in rules.statements(table, rule, self._passing(session, table, *before)):
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
        session.run(f"INSERT INTO {self._notes} VALUES (%s, %s, %s)", known_as(table), *row)
        return bool(row[0]), bool(row[1])

    def _passing(self, session: Session, table: Table, enabled: bool, forced: bool) -> str:
        """Who sees all rows without a fence, and would not any more when row-level security is enabled, or forced."""
        if not enabled:
            return "PUBLIC"
        if forced or not self._owns(session, table):
            return ""
        owner = "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = %s::bigint::oid"
        return str(session.row(owner, table.oid)[0])

    def _to_free(
        self, session: Session, rules: Rules, noted: t.Iterable[str]
    ) -> list[tuple[Table, Namespaces]]:
        """Partitions before their tables, and before those what was a partition when the fence was raised."""
        now = {known_as(table) for table, _rule in rules.tables}
        first, rule = rules.tables[0]
        left = [
            (dataclasses.replace(first, name=name, plain=name, oid=oid, parts=(), home=first.oid), rule)
            for name, oid in session.rows(
                "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.oid::bigint FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE 'partition ' || c.oid = ANY(%s)",
                Texts([name for name in noted if name not in now]),
            )
        ]
        if left:
            self._hold(session, [table.name for table, _rule in left])
        return left + sorted(rules.tables, key=lambda one: not one[0].home)

    def _as_it_was(self, session: Session, table: Table, enabled: bool, forced: bool) -> None:
        if not enabled and not self._took_up_rules(session, table):
            session.say(f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY")
        if not forced:
            session.say(f"ALTER TABLE {table.name} NO FORCE ROW LEVEL SECURITY")

    def _took_up_rules(self, session: Session, table: Table) -> bool:
        """Whether the application has made rules for rows since the first fence: those go on holding, as without it."""
        row = session.row(
            f"SELECT 1 FROM pg_policy p JOIN {self._notes} n ON n.name = %s WHERE p.polrelid = %s::bigint::oid "
            "AND NOT starts_with(p.polname::text, 'memops_') AND age(p.xmin) < age(n.xmin)",
            known_as(table), table.oid,
        )  # fmt: skip
        return row is not None

    def _owns(self, session: Session, table: Table) -> bool:
        """Whether the application reads as the table's owner, so that only FORCE binds it."""
        return acts_as_owner(session, table.oid, self.application_user)

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

    def _hold(self, session: Session, names: t.Sequence[str], mode: str = "ACCESS EXCLUSIVE") -> None:
        """All transactions at work on these tables have ended, and the next ones wait. In short turns: who comes
        meanwhile stands behind us. Errors: StoreUnavailable that names who does not end."""
        deadline, turn = time.monotonic() + self.address.busy_timeout, TURN
        while True:
            session.say(f"SAVEPOINT memops_hold; SET LOCAL lock_timeout = '{turn}'")
            try:
                session.say(f"LOCK TABLE {', '.join(names)} IN {mode} MODE")
                session.say(f"SET LOCAL lock_timeout = '{max(1, int(self.address.busy_timeout * 1000))}ms'")
                return
            except StoreUnavailable:
                if session.state not in ("55P03", "40P01") or not session.usable:  # two that wait for each other, too
                    raise
                session.say("ROLLBACK TO SAVEPOINT memops_hold")
                if time.monotonic() > deadline:
                    what = "fenced" if mode == "ACCESS EXCLUSIVE" else "repaired"
                    raise self._unended(f"The table {names[0]}", session, what) from None
                turn = self._next_turn(session)
            time.sleep(PAUSE)

    def _next_turn(self, session: Session) -> str:
        """An automatic vacuum goes away for whoever has waited as long as the server does before it looks for a
        deadlock: turns that end before that leave it at work, perhaps for hours."""
        vacuum, patience = session.row(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE granted AND mode = 'ShareUpdateExclusiveLock' "
            "AND pid <> pg_backend_pid() AND relation::bigint = ANY(%s)), "
            "(extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000)::int",
            self._homes(),
        )
        return f"{patience + 200}ms" if vacuum else TURN

    def _homes(self) -> Ints:
        return Ints([table.oid for table, _rule in fenced_tables(self.live)])

    def _unended(self, what: str, session: Session, done: str = "fenced") -> StoreUnavailable:
        rows = session.rows(
            "SELECT a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), "
            "bool_or(l.mode = 'ShareUpdateExclusiveLock') FROM pg_locks l "
            "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND l.pid <> pg_backend_pid() "
            "AND l.relation::bigint = ANY(%s) GROUP BY 1, 2, 3 ORDER BY 1 LIMIT 5",
            self._homes(),
        )
        prepared = session.rows(  # one that was prepared has no session
            "SELECT DISTINCT p.gid FROM pg_prepared_xacts p JOIN pg_locks x ON x.transactionid = p.transaction AND "
            "x.pid IS NULL JOIN pg_locks l ON l.pid IS NULL AND l.virtualtransaction = x.virtualtransaction "
            "WHERE l.relation::bigint = ANY(%s) LIMIT 5",
            self._homes(),
        )
        named = [
            f"pid {pid}, {f'{user} {program}'.strip() or ('a vacuum or an index that is made' if vacuum else '')}"
            for pid, user, program, vacuum in rows
        ]
        who = "; ".join([one.rstrip(", ") for one in named] + [f"prepared as {gid!r:.80}" for (gid,) in prepared])
        ends = [f"SELECT pg_terminate_backend({row[0]})" for row in rows if row[2] != APPLICATION]
        ends += [f"ROLLBACK PREPARED {literal(gid)}, or COMMIT PREPARED" for (gid,) in prepared]
        next_step = "end it, then run the same command again: " + (ends[0] if ends else "see pg_stat_activity")
        if rows and not ends:
            next_step = "it is another run of this collection: wait for its end, then run the same command again"
        return StoreUnavailable(
            f"{what} cannot be {done} yet: a transaction that is at work on it does not end"
            + (f" ({who})." if who else "."),
            next_step,
        )
