# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Incidents of a PostgreSQL store: who may change a namespace, and for how long.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import typing as t
import zlib

from .._errors import LeaseHeld
from .._model import AsideRows, Claim, IncidentState
from .._store import WHOLE
from .control_rows import facts_of, incident_astray
from .leases import believed_end, held_by, incident_closed, left_fenced, same_incident, still_open
from .postgresql_arrays import Blobs
from .postgresql_connect import Connected
from .postgresql_rows import escaped, lenient
from .postgresql_session import Session

COLUMNS = "incident, namespace, state, attempt, owner, token, opened, renewed, lease_until, facts"
CLAIMS = 0x6D656D  # the first number of the advisory lock between claims of one namespace and of the whole store
ONE = "WHERE namespace = %s AND incident = %s"
DROP_ROWS = 1000  # that one transaction drops


def _state(row: tuple[t.Any, ...]) -> IncidentState:
    incident, namespace, state, attempt, owner, token, opened, renewed, lease_until, facts = row
    return IncidentState(
        incident, lenient(namespace), state, attempt, owner, token, opened, renewed, lease_until,
        _facts(namespace, incident, facts),
    )  # fmt: skip


def _facts(namespace: bytes, incident: str, text: str) -> dict[str, t.Any]:
    """Errors: NamespaceDamaged."""
    found = facts_of(text)
    if found is None:
        raise incident_astray(lenient(namespace), incident)
    return found


class Incidents(Connected):
    """The incidents' part of ``Store``."""

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        where = "" if namespace is None else "WHERE namespace = %s"
        values = () if namespace is None else (escaped(namespace),)
        with self._asking() as session:
            rows = session.rows(
                f"SELECT {COLUMNS} FROM {self.sql.incident} {where} ORDER BY opened DESC, number DESC", *values
            )
        # of all namespaces those that can be read; what of others cannot is a finding
        return [_state(row) for row in rows if namespace is not None or not row[1] or facts_of(row[9]) is not None]

    def claim(
        self,
        namespace: str,
        attempt: str,
        owner: str,
        *,
        incident: str | None = None,
        new_incident: str,
        takeover: str | None = None,
        lease: float = 60.0,
    ) -> Claim:
        held: LeaseHeld | None = None
        with self._transaction() as session:
            self._of_operator(session)
            now, length = self.clock(), int(lease * 1_000_000)
            if namespace == WHOLE:
                self._claim_all(session, attempt, takeover, now)
            else:
                # One claim at a time: the namespace's row may be held by a write, so its other row serves here.
                state = self._namespace(session, namespace)
                self._claim_one(session, attempt, takeover, now)
                session.row(f"SELECT id FROM {self.sql.generation} WHERE id = %s FOR UPDATE", state.generation)
            row = session.row(
                "SELECT incident, attempt, owner, token, claimed, lease, lease_until "
                f"FROM {self.sql.incident} WHERE namespace = %s AND state = 'open' FOR UPDATE",
                escaped(namespace),
            )
            if row is None:
                return self._open(session, namespace, incident or new_incident, attempt, owner, now, length)
            name, former = row[0], row[1]
            same_incident(namespace, incident, name)
            until = believed_end(row[6], now, row[5])
            token = row[3]
            if former != attempt and former and until > now and takeover != former:
                session.run(
                    f"UPDATE {self.sql.incident} SET lease_until = %s {ONE} AND lease_until <> %s",
                    until, escaped(namespace), name, until,
                )  # fmt: skip
                held = held_by(namespace, name, former, row[2], row[4], until)
            else:
                own = former == attempt
                if not own:
                    token = self._next_token(session)
                    session.run(
                        f"UPDATE {self.sql.incident} SET attempt = %s, owner = %s, token = %s, claimed = %s {ONE}",
                        attempt, owner, token, now, escaped(namespace), name,
                    )  # fmt: skip
                self._extend(session, namespace, name, now, length)
        if held is not None:
            raise held
        return Claim(namespace, name, attempt, token, resumed=not own)

    def _claim_all(self, session: Session, attempt: str, takeover: str | None, now: int) -> None:
        """Nobody else works on any namespace, and who once did cannot go on. Errors: LeaseHeld."""
        session.rows(f"SELECT pg_advisory_xact_lock({CLAIMS}, %s)", self._claims_lock())
        rows = session.rows(
            "SELECT namespace, incident, attempt, owner, claimed, lease, lease_until "
            f"FROM {self.sql.incident} WHERE state = 'open' AND namespace <> %s AND attempt NOT IN ('', %s) "
            "ORDER BY namespace FOR UPDATE",
            escaped(WHOLE), attempt,
        )  # fmt: skip
        for name, incident, former, owner, claimed, length, until in rows:
            until = believed_end(until, now, length)
            if until > now and takeover != former:
                raise held_by(lenient(name), incident, former, owner, claimed, until)
        session.run(
            f"UPDATE {self.sql.incident} SET attempt = '' WHERE state = 'open' AND namespace <> %s "
            "AND attempt NOT IN ('', %s)",
            escaped(WHOLE), attempt,
        )  # fmt: skip

    def _claim_one(self, session: Session, attempt: str, takeover: str | None, now: int) -> None:
        """Errors: LeaseHeld, CannotProceed while another attempt works on the whole store, or left it fenced."""
        session.rows(f"SELECT pg_advisory_xact_lock_shared({CLAIMS}, %s)", self._claims_lock())
        row = session.row(
            f"SELECT incident, attempt, owner, claimed, lease, lease_until, facts FROM {self.sql.incident} "
            "WHERE namespace = %s AND state = 'open'",
            escaped(WHOLE),
        )
        if row is not None and row[1] != attempt:
            until = believed_end(row[5], now, row[4])
            if row[1] and until > now and takeover != row[1]:
                raise held_by(WHOLE, row[0], row[1], row[2], row[3], until)
            if "stood_by" in _facts(escaped(WHOLE), row[0], row[6]):
                raise left_fenced(row[0], row[2])

    def _claims_lock(self) -> int:
        return zlib.crc32(self.sql.plain_schema.encode()) - 2**31

    def _open(
        self, session: Session, namespace: str, name: str, attempt: str, owner: str, now: int, length: int
    ) -> Claim:
        if session.row(f"SELECT 1 FROM {self.sql.incident} {ONE}", escaped(namespace), name):
            raise incident_closed(namespace, name)
        token = self._next_token(session)
        session.run(
            f"INSERT INTO {self.sql.incident} (namespace, incident, state, attempt, owner, token, opened, claimed, "
            "renewed, lease, lease_until, facts) VALUES (%s, %s, 'open', %s, %s, %s, %s, %s, %s, %s, %s, '{}')",
            escaped(namespace), name, attempt, owner, token, now, now, now, length, now + length,
        )  # fmt: skip
        return Claim(namespace, name, attempt, token)

    def _next_token(self, session: Session) -> int:
        return int(session.row(f"UPDATE {self.sql.store} SET token = token + 1 RETURNING token")[0])

    def _extend(self, session: Session, namespace: str, incident: str, now: int, length: int) -> None:
        session.run(
            f"UPDATE {self.sql.incident} SET renewed = %s, lease = %s, lease_until = %s {ONE}",
            now, length, now + length, escaped(namespace), incident,
        )  # fmt: skip

    def renew(self, claim: Claim, lease: float = 60.0) -> None:
        with self._operating(claim, alone=True) as session:
            self._extend(session, claim.namespace, claim.incident, self.clock(), int(lease * 1_000_000))

    def incident(self, claim: Claim) -> IncidentState:
        names = (escaped(claim.namespace), claim.incident)
        with self._asking() as session:
            self._check(session, claim)
            return _state(session.row(f"SELECT {COLUMNS} FROM {self.sql.incident} {ONE}", *names))

    def note(self, claim: Claim, **facts: t.Any) -> None:
        with self._operating(claim, alone=True) as session:
            names = (escaped(claim.namespace), claim.incident)
            known = _facts(*names, session.row(f"SELECT facts FROM {self.sql.incident} {ONE}", *names)[0])
            merged = {name: value for name, value in {**known, **facts}.items() if value is not None}
            if merged != known:
                session.run(f"UPDATE {self.sql.incident} SET facts = %s {ONE}", json.dumps(merged), *names)

    def end_lease(self, claim: Claim) -> None:
        with self._operating(claim, alone=True) as session:
            session.run(
                f"UPDATE {self.sql.incident} SET attempt = '', lease_until = %s {ONE}",
                self.clock(), escaped(claim.namespace), claim.incident,
            )  # fmt: skip

    def close_incident(self, claim: Claim) -> None:
        names = (escaped(claim.namespace), claim.incident)
        with self._transaction() as session:
            row = session.row(f"SELECT state, attempt, token FROM {self.sql.incident} {ONE} FOR UPDATE", *names)
            if row == ("closed", claim.attempt, claim.token):
                return
            self._check(session, claim)
            session.run(
                f"UPDATE {self.sql.incident} SET state = 'closed', lease_until = %s {ONE}", self.clock(), *names
            )

    def drop_aside(self, which: AsideRows, check: bool = False) -> int:
        rows = f"FROM {self.sql.aside} WHERE namespace = %s AND incident = ANY (%s) AND at < %s AND reason <> ALL (%s)"
        kept = Blobs([escaped(reason) for reason in which.keeping])
        values = (escaped(which.namespace), list(which.incidents), which.before, kept)
        with self._asking() as session:
            there = int(session.row(f"SELECT count(*) {rows}", *values)[0])
        if check or not there:
            return there
        dropped, gone = 0, DROP_ROWS
        while gone == DROP_ROWS:
            with self._transaction() as session:
                self._not_open(session, which.namespace, which.incidents)
                gone = session.run(
                    f"DELETE FROM {self.sql.aside} WHERE id IN (SELECT id {rows} LIMIT {DROP_ROWS})", *values
                )
            dropped += gone
        return dropped

    def keep_facts(self, namespace: str, incident: str, facts: t.Mapping[str, t.Any] | None) -> None:
        names = (escaped(namespace), incident)
        with self._transaction() as session:
            self._not_open(session, namespace, [incident])
            if facts is None:
                session.run(f"DELETE FROM {self.sql.incident} {ONE}", *names)
            else:
                session.run(f"UPDATE {self.sql.incident} SET facts = %s {ONE}", json.dumps(dict(facts)), *names)

    def _not_open(self, session: Session, namespace: str, incidents: t.Sequence[str]) -> None:
        """Errors: CannotProceed."""
        row = session.row(
            f"SELECT incident FROM {self.sql.incident} WHERE namespace = %s AND state = 'open'", escaped(namespace)
        )
        if row is not None and row[0] in incidents:
            raise still_open(namespace, row[0])
