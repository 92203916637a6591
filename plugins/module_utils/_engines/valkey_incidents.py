# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Incidents of a Valkey store: who may change a namespace, and for how long.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import typing as t

from .._errors import LeaseHeld, NamespaceQuarantined, StoreDamaged
from .._model import AsideRows, Claim, IncidentState
from .._store import WHOLE
from .control_rows import incident_astray
from .leases import believed_end, held_by, incident_closed, left_fenced, same_incident, still_open
from .valkey_control import Transaction, incident_field, incident_row, of_incident, space_of
from .valkey_errors import valkey_errors
from .valkey_log import PAGE, aside_of
from .valkey_transactions import Connected, repeated
from .valkey_values import AT_ONCE, Names


def _state(row: t.Mapping[str, t.Any]) -> IncidentState:
    return IncidentState(
        row["incident"], row["namespace"], row["state"], row["attempt"], row["owner"], row["token"], row["opened"],
        row["renewed"], row["lease_until"], dict(row["facts"]),
    )  # fmt: skip


def _not_held(row: t.Mapping[str, t.Any], takeover: str | None, now: int) -> None:
    """Errors: LeaseHeld."""
    until = believed_end(row["lease_until"], now, row["lease"])
    if row["attempt"] and until > now and takeover != row["attempt"]:
        raise held_by(row["namespace"], row["incident"], row["attempt"], row["owner"], row["claimed"], until)


def _beside_the_whole(rows: t.Sequence[dict[str, t.Any]], attempt: str, takeover: str | None, now: int) -> None:
    """Errors: LeaseHeld, CannotProceed while another attempt works on the whole store, or left it fenced."""
    for row in rows:
        if row["namespace"] == WHOLE and row["state"] == "open" and row["attempt"] != attempt:
            _not_held(row, takeover, now)
            if "stood_by" in row["facts"]:
                raise left_fenced(row["incident"], row["owner"])


def may_be_new(tx: Transaction, names: Names) -> None:
    """Errors: NamespaceQuarantined while all namespaces stand by."""
    raw = tx.read("HGETALL", names.incidents)
    for row in [incident_row(value) for field, value in zip(raw[::2], raw[1::2]) if of_incident(field)[0] == WHOLE]:
        if row["state"] == "open" and "stood_by" in row["facts"]:
            raise NamespaceQuarantined(
                f"The whole store is fenced by a failover (incident {row['incident']}) and takes no new namespace.",
                "try again when it has ended",
            )


class Incidents(Connected):
    """The incidents' part of ``Store``."""

    def _all(self, read: t.Callable[..., t.Any], namespace: str | None = None) -> list[dict[str, t.Any]]:
        """Errors: NamespaceDamaged where a row of this namespace cannot be read, StoreDamaged where one of the whole
        store cannot; other ones are left out."""
        rows = []
        raw = read("HGETALL", self.names.incidents)
        for field, value in zip(raw[::2], raw[1::2]):
            try:
                rows.append(incident_row(value))
            except StoreDamaged:
                name, incident = of_incident(field)
                if name in (WHOLE, namespace):
                    raise incident_astray(name, incident) from None
        return sorted(rows, key=lambda row: (row["opened"], row["number"]), reverse=True)

    def _write(self, tx: Transaction, row: t.Mapping[str, t.Any]) -> None:
        field = incident_field(row["namespace"], row["incident"])
        tx.add("HSET", self.names.incidents, field, json.dumps(row))

    def _own(self, tx: Transaction, claim: Claim) -> dict[str, t.Any]:
        """The row of the claim's incident, which ``_operating`` found to be there."""
        row = self._incident(tx.read, claim.namespace, claim.incident)
        self._check(row, claim)
        return row or {}

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        return [_state(row) for row in self._all(self._ask, namespace) if namespace in (None, row["namespace"])]

    @repeated
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
        with self._transaction() as tx:
            now, length = self.clock(), int(lease * 1_000_000)
            everything = self._all(tx.read, namespace)
            if namespace == WHOLE:
                self._claim_all(tx, everything, attempt, takeover, now)
            else:
                self._namespace(tx, namespace)
                _beside_the_whole(everything, attempt, takeover, now)
            known = [row for row in everything if row["namespace"] == namespace]
            row = next((row for row in known if row["state"] == "open"), None)
            if row is None:
                name = incident or new_incident
                if any(one["incident"] == name for one in known):
                    raise incident_closed(namespace, name)
                return self._open(tx, namespace, name, attempt, owner, now, length)
            name, former = row["incident"], row["attempt"]
            same_incident(namespace, incident, name)
            until = believed_end(row["lease_until"], now, row["lease"])
            own = former == attempt
            if not own and former and until > now and takeover != former:
                if row["lease_until"] != until:
                    row["lease_until"] = until
                    self._write(tx, row)
                held = held_by(namespace, name, former, row["owner"], row["claimed"], until)
            else:
                if not own:
                    row.update(attempt=attempt, owner=owner, token=self._next_token(tx), claimed=now)
                row.update(renewed=now, lease=length, lease_until=now + length)
                self._write(tx, row)
        if held is not None:
            raise held
        return Claim(namespace, name, attempt, row["token"], resumed=not own)

    def _claim_all(
        self, tx: Transaction, rows: t.Sequence[dict[str, t.Any]], attempt: str, takeover: str | None, now: int
    ) -> None:
        """Nobody else works on any namespace, and who once did cannot go on. Errors: LeaseHeld."""
        others = [
            row for row in rows
            if row["namespace"] != WHOLE and row["state"] == "open" and row["attempt"] not in ("", attempt)
        ]  # fmt: skip
        for row in others:
            _not_held(row, takeover, now)
        for row in others:
            row["attempt"] = ""
            self._write(tx, row)

    def _open(
        self, tx: Transaction, namespace: str, name: str, attempt: str, owner: str, now: int, length: int
    ) -> Claim:
        number = tx.numbers["incident"] = tx.numbers["incident"] + 1
        token = self._next_token(tx)
        self._write(
            tx,
            {
                "incident": name, "namespace": namespace, "state": "open", "attempt": attempt, "owner": owner,
                "token": token, "opened": now, "claimed": now, "renewed": now, "lease": length,
                "lease_until": now + length, "facts": {}, "number": number,
            },
        )  # fmt: skip
        return Claim(namespace, name, attempt, token)

    def _next_token(self, tx: Transaction) -> int:
        tx.numbers["token"] += 1
        return tx.numbers["token"]

    @repeated
    def renew(self, claim: Claim, lease: float = 60.0) -> None:
        with self._operating(claim) as tx:
            row, now, length = self._own(tx, claim), self.clock(), int(lease * 1_000_000)
            row.update(renewed=now, lease=length, lease_until=now + length)
            self._write(tx, row)

    def incident(self, claim: Claim) -> IncidentState:
        with valkey_errors(self.place):
            row = self._incident(self._ask, claim.namespace, claim.incident)
        self._check(row, claim)
        return _state(row or {})

    @repeated
    def note(self, claim: Claim, **facts: t.Any) -> None:
        with self._operating(claim) as tx:
            row = self._own(tx, claim)
            merged = {name: value for name, value in {**row["facts"], **facts}.items() if value is not None}
            if merged != row["facts"]:
                row["facts"] = merged
                self._write(tx, row)

    @repeated
    def end_lease(self, claim: Claim) -> None:
        with self._operating(claim) as tx:
            row = self._own(tx, claim)
            row.update(attempt="", lease_until=self.clock())
            self._write(tx, row)

    @repeated
    def close_incident(self, claim: Claim) -> None:
        with self._transaction() as tx:
            row = self._incident(tx.read, claim.namespace, claim.incident)
            if row and (row["state"], row["attempt"], row["token"]) == ("closed", claim.attempt, claim.token):
                return
            self._check(row, claim)
            if row:
                row.update(state="closed", lease_until=self.clock())
                self._write(tx, row)
            tx.durable = True

    def drop_aside(self, which: AsideRows, check: bool = False) -> int:
        stream, after, dropped = self.names.aside(which.namespace), b"-", 0
        names, reasons = frozenset(which.incidents), frozenset(which.keeping)
        raw = self._ask("HGET", self.names.namespaces, which.namespace)
        largest = 0 if raw is None else int(space_of(raw, which.namespace, self.path)["largest"])
        size = max(1, min(PAGE, AT_ONCE // max(largest, 1)))
        while page := self._ask("XRANGE", stream, after, f"({which.before // 1000}-0", "COUNT", size):
            after = b"(" + page[-1][0]
            gone = []
            for place, fields in page:
                name, reason, _member = aside_of(self.envelopes, fields)
                if name in names and reason not in reasons:
                    gone.append(place)
            if gone and not check:
                self._drop_places(which, gone)
            dropped += len(gone)
        return dropped

    @repeated
    def _drop_places(self, which: AsideRows, places: t.Sequence[bytes]) -> None:
        with self._transaction() as tx:
            for row in self._all(tx.read):
                under_way = row["namespace"] == which.namespace and row["state"] == "open"
                if under_way and row["incident"] in which.incidents:
                    raise still_open(which.namespace, row["incident"])
            tx.add("XDEL", self.names.aside(which.namespace), *places)

    @repeated
    def keep_facts(self, namespace: str, incident: str, facts: t.Mapping[str, t.Any] | None) -> None:
        with self._transaction() as tx:
            row = self._incident(tx.read, namespace, incident)
            if row is not None and row["state"] == "open":
                raise still_open(namespace, incident)
            if row is not None and facts is None:
                tx.add("HDEL", self.names.incidents, incident_field(namespace, incident))
            elif row is not None:
                self._write(tx, {**row, "facts": dict(facts or {})})
