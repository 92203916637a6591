# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Incidents of a SQLite store: who may change a namespace, and for how long.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import sqlite3
import typing as t

from .._errors import LeaseHeld
from .._model import AsideRows, Claim, IncidentState
from .control_rows import facts_of, incident_astray
from .leases import believed_end, held_by, incident_closed, same_incident, still_open
from .sqlite_connect import Opened, sqlite_errors
from .sqlite_control import close_unread

COLUMNS = "incident, namespace, state, attempt, owner, token, opened, renewed, lease_until, facts"
ONE = "WHERE namespace = ? AND incident = ?"
DROP_ROWS = 1000  # that one transaction drops


def _state(row: tuple[t.Any, ...]) -> IncidentState:
    incident, namespace, state, attempt, owner, token, opened, renewed, lease_until, facts = row
    return IncidentState(
        incident, namespace, state, attempt, owner, token, opened, renewed, lease_until,
        _facts(namespace, incident, facts),
    )  # fmt: skip


def _facts(namespace: str, incident: str, text: str) -> dict[str, t.Any]:
    """Errors: NamespaceDamaged."""
    found = facts_of(text)
    if found is None:
        raise incident_astray(namespace, incident)
    return found


class Incidents(Opened):
    """The incidents' part of ``Store``."""

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        with sqlite_errors(self.path):
            rows = self._con.execute(
                f"SELECT {COLUMNS} FROM memops_incident WHERE ? IS NULL OR namespace = ? "
                "ORDER BY opened DESC, rowid DESC",
                (namespace, namespace),
            ).fetchall()
        # of all namespaces those that can be read; what of others cannot is a finding
        return [_state(row) for row in rows if namespace is not None or facts_of(row[9]) is not None]

    def lead_back(self) -> list[str]:
        """See _store_optional.ControlRows."""
        with self._transaction() as con:
            return close_unread(con, self.clock()) + self._lead_back(con)

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
        with self._transaction() as con:
            self._namespace(con, namespace)
            now, length = self.clock(), int(lease * 1_000_000)
            row = con.execute(
                "SELECT incident, attempt, owner, token, claimed, lease, lease_until FROM memops_incident "
                "WHERE namespace = ? AND state = 'open'",
                (namespace,),
            ).fetchone()
            if row is None:
                return self._open(con, namespace, incident or new_incident, attempt, owner, now, length)
            name, former = row[0], row[1]
            same_incident(namespace, incident, name)
            until = believed_end(row[6], now, row[5])
            token = row[3]
            if former != attempt and former and until > now and takeover != former:
                con.execute(
                    "UPDATE memops_incident SET lease_until = ? "
                    "WHERE namespace = ? AND incident = ? AND lease_until <> ?",
                    (until, namespace, name, until),
                )
                held = held_by(namespace, name, former, row[2], row[4], until)
            else:
                own = former == attempt
                if not own:
                    token = self._next_token(con)
                    con.execute(
                        "UPDATE memops_incident SET attempt = ?, owner = ?, token = ?, claimed = ? "
                        "WHERE namespace = ? AND incident = ?",
                        (attempt, owner, token, now, namespace, name),
                    )
                self._extend(con, namespace, name, now, length)
        if held is not None:
            raise held
        return Claim(namespace, name, attempt, token, resumed=not own)

    def _open(
        self, con: sqlite3.Connection, namespace: str, name: str, attempt: str, owner: str, now: int, length: int
    ) -> Claim:
        if con.execute(f"SELECT 1 FROM memops_incident {ONE}", (namespace, name)).fetchone():
            raise incident_closed(namespace, name)
        token = self._next_token(con)
        con.execute(
            "INSERT INTO memops_incident (namespace, incident, state, attempt, owner, token, opened, claimed, renewed, "
            "lease, lease_until, facts) VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, '{}')",
            (namespace, name, attempt, owner, token, now, now, now, length, now + length),
        )
        return Claim(namespace, name, attempt, token)

    def _next_token(self, con: sqlite3.Connection) -> int:
        con.execute("UPDATE memops_store SET token = token + 1")
        return int(con.execute("SELECT token FROM memops_store").fetchone()[0])

    def _extend(self, con: sqlite3.Connection, namespace: str, incident: str, now: int, length: int) -> None:
        con.execute(
            "UPDATE memops_incident SET renewed = ?, lease = ?, lease_until = ? WHERE namespace = ? AND incident = ?",
            (now, length, now + length, namespace, incident),
        )

    def renew(self, claim: Claim, lease: float = 60.0) -> None:
        with self._operating(claim) as con:
            self._extend(con, claim.namespace, claim.incident, self.clock(), int(lease * 1_000_000))

    def incident(self, claim: Claim) -> IncidentState:
        with sqlite_errors(self.path):
            self._check(self._con, claim)
            row = self._con.execute(
                f"SELECT {COLUMNS} FROM memops_incident {ONE}",
                (claim.namespace, claim.incident),
            ).fetchone()
        return _state(row)

    def note(self, claim: Claim, **facts: t.Any) -> None:
        with self._operating(claim) as con:
            names = (claim.namespace, claim.incident)
            row = con.execute(f"SELECT facts FROM memops_incident {ONE}", names).fetchone()
            known = _facts(*names, row[0])
            merged = {name: value for name, value in {**known, **facts}.items() if value is not None}
            if merged != known:
                con.execute(f"UPDATE memops_incident SET facts = ? {ONE}", (json.dumps(merged), *names))

    def end_lease(self, claim: Claim) -> None:
        with self._operating(claim) as con:
            con.execute(
                "UPDATE memops_incident SET attempt = '', lease_until = ? WHERE namespace = ? AND incident = ?",
                (self.clock(), claim.namespace, claim.incident),
            )

    def close_incident(self, claim: Claim) -> None:
        with self._transaction() as con:
            row = con.execute(
                "SELECT state, attempt, token FROM memops_incident WHERE namespace = ? AND incident = ?",
                (claim.namespace, claim.incident),
            ).fetchone()
            if row == ("closed", claim.attempt, claim.token):
                return
            self._check(con, claim)
            con.execute(
                "UPDATE memops_incident SET state = 'closed', lease_until = ? WHERE namespace = ? AND incident = ?",
                (self.clock(), claim.namespace, claim.incident),
            )

    def drop_aside(self, which: AsideRows, check: bool = False) -> int:
        names, reasons = (", ".join("?" * len(values)) for values in (which.incidents, which.keeping))
        rows = (
            f"FROM memops_aside WHERE namespace = ? AND incident IN ({names}) AND at < ? AND reason NOT IN ({reasons})"
        )
        values = (which.namespace, *which.incidents, which.before, *which.keeping)
        with sqlite_errors(self.path):
            there = int(self._con.execute(f"SELECT count(*) {rows}", values).fetchone()[0])
        if check or not there:
            return there
        dropped, gone = 0, DROP_ROWS
        while gone == DROP_ROWS:
            with self._transaction() as con:
                self._not_open(con, which.namespace, which.incidents)
                gone = con.execute(
                    f"DELETE FROM memops_aside WHERE id IN (SELECT id {rows} LIMIT {DROP_ROWS})", values
                ).rowcount
            dropped += gone
        return dropped

    def keep_facts(self, namespace: str, incident: str, facts: t.Mapping[str, t.Any] | None) -> None:
        with self._transaction() as con:
            self._not_open(con, namespace, [incident])
            if facts is None:
                con.execute(f"DELETE FROM memops_incident {ONE}", (namespace, incident))
            else:
                con.execute(
                    f"UPDATE memops_incident SET facts = ? {ONE}", (json.dumps(dict(facts)), namespace, incident)
                )

    def _not_open(self, con: sqlite3.Connection, namespace: str, incidents: t.Sequence[str]) -> None:
        """Errors: CannotProceed."""
        row = con.execute(
            "SELECT incident FROM memops_incident WHERE namespace = ? AND state = 'open'", (namespace,)
        ).fetchone()
        if row is not None and row[0] in incidents:
            raise still_open(namespace, row[0])
