# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What operators do with a namespace of a PostgreSQL store: fence it, change records by compare-and-set.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import hashlib
import typing as t

from .._errors import InvalidInput, MemoryOpsError, StoreUnavailable
from .._model import Change, Claim, NamespaceState, to_be_made
from .leases import settable
from .postgresql_arrays import Blobs
from .postgresql_fence import missing
from .postgresql_log import append, append_operator, newest_given, reserved
from .postgresql_proof import Proof
from .postgresql_rows import decoded, escaped, names_of
from .postgresql_schema import literal
from .postgresql_session import BAD_VALUE, Session, bad_record

QUARANTINE_TTL = 1.0
KEYS_PER_QUERY = 2000
HOLD = "FOR NO KEY UPDATE"  # of the namespace's row: whoever writes its records waits


class Operators(Proof):
    """The operators' part of ``Store``, but for generations."""

    def _log(self, session: Session, claim: Claim, operation: str, reason: str) -> None:
        at = max(self.clock(), session.row(f"SELECT newest FROM {self.sql.store}")[0])
        entry = (0, at, claim.namespace, operation, None, None, None, None, None, claim.attempt, reason, b"")
        append(session, self.sql, [entry], self.path)

    # --- the fence ----------------------------------------------------------------------------------------------
    def fence(self, claim: Claim) -> bool:
        changed = self._fence(claim)
        with contextlib.suppress(MemoryOpsError):  # the proof tells what is missing still
            changed = self._raise_again() or changed
        return changed

    def _raise_again(self) -> bool:
        """What somebody dropped or changed of the fence is made again; whether there was anything."""
        with self._transaction() as session:
            lost = [text for kind, _name, text in missing(session, self.sql) if kind not in ("table", "index")]
            for text in lost:
                session.say(text)
        return bool(lost)

    def _fence(self, claim: Claim) -> bool:
        with self._operating(claim, alone=True) as session:
            space = self._wait_for_writers(session, claim.namespace)
            if space.state == "quarantined":
                if space.incident == claim.incident:
                    return False
                session.run(  # left by an incident that was closed without a release
                    f"UPDATE {self.sql.namespace} SET incident = %s WHERE name = %s",
                    claim.incident, escaped(claim.namespace),
                )  # fmt: skip
            else:
                session.run(
                    f"UPDATE {self.sql.namespace} SET prior_state = state, prior_ttl = serving_ttl, "
                    "state = 'quarantined', serving_ttl = %s, incident = %s WHERE name = %s",
                    QUARANTINE_TTL, claim.incident, escaped(claim.namespace),
                )  # fmt: skip
            self._log(session, claim, "fence", claim.incident)
        return True

    def _wait_for_writers(self, session: Session, namespace: str) -> NamespaceState:
        """Every transaction that has written to the namespace holds its row until it ends; the next ones see the
        fence. Errors: StoreUnavailable that names the sessions which did not end in time."""
        try:
            return self._namespace(session, namespace, HOLD)
        except StoreUnavailable:
            if session.state != "55P03":  # lock timeout
                raise
        raise self._unended(f"Namespace {namespace!r:.80}", session)

    def _unended(self, what: str, session: Session) -> StoreUnavailable:
        """Ends the transaction."""
        session.roll_back()
        rows = session.rows(
            "SELECT a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), "
            "coalesce(to_char(a.xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS'), '') FROM pg_stat_activity a "
            "WHERE a.pid <> pg_backend_pid() AND a.pid IN (SELECT l.pid FROM pg_locks l WHERE l.granted "
            "AND l.relation = to_regclass(%s) AND l.mode IN ('RowShareLock', 'RowExclusiveLock')) "
            "ORDER BY a.xact_start LIMIT 5",
            self.sql.namespace,
        )
        prepared = session.rows(  # one that was prepared has no session
            "SELECT DISTINCT p.gid FROM pg_prepared_xacts p JOIN pg_locks x ON x.transactionid = p.transaction AND "
            "x.pid IS NULL JOIN pg_locks l ON l.pid IS NULL AND l.virtualtransaction = x.virtualtransaction "
            "WHERE l.relation = to_regclass(%s) LIMIT 5",
            self.sql.namespace,
        )
        named = [f"pid {pid}, {user} {program}, since {since} UTC" for pid, user, program, since in rows]
        who = "; ".join(named + [f"prepared as {gid!r:.80}" for (gid,) in prepared])
        ends = [f"SELECT pg_terminate_backend({row[0]})" for row in rows]
        ends += [f"ROLLBACK PREPARED {literal(gid)}, or COMMIT PREPARED" for (gid,) in prepared]
        return StoreUnavailable(
            f"{what} cannot be fenced yet: a transaction that has written to it does not end"
            + (f" ({who})." if who else "."),
            "end it, then run the same command again: " + (ends[0] if ends else "see pg_stat_activity"),
        )

    def unfence(self, claim: Claim) -> bool:
        with self._operating(claim, alone=True) as session:
            if self._namespace(session, claim.namespace, HOLD).state != "quarantined":
                return False
            session.run(
                f"UPDATE {self.sql.namespace} SET state = prior_state, serving_ttl = prior_ttl, incident = NULL, "
                "prior_state = NULL, prior_ttl = NULL WHERE name = %s",
                escaped(claim.namespace),
            )
            self._log(session, claim, "release", claim.incident)
            self._carry_out(session)
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        """In a quarantine this sets the state that the release brings back: nothing is served in between."""
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

    def _carry_out(self, session: Session) -> bool:
        """Make the fence what the control rows say, where it is not they themselves; whether it changed."""
        return False

    # --- records ------------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        with self._operating(claim, unfenced=True) as session:
            number = self._own_generation(session, claim, generation)
            part: dict[str, Change] = {}
            for change in changes:
                if change.key in part or len(part) >= KEYS_PER_QUERY:  # a key's second change sees its first
                    refused += self._change(session, claim, number, part)
                    part = {}
                part[change.key] = change
            refused += self._change(session, claim, number, part)
        return refused

    def _own_generation(self, session: Session, claim: Claim, generation: int | None) -> int:
        active = self._namespace(session, claim.namespace, HOLD).generation
        if generation is None or generation == active:
            return active
        row = session.row(
            f"SELECT 1 FROM {self.sql.generation} WHERE id = %s AND namespace = %s",
            generation, escaped(claim.namespace),
        )  # fmt: skip
        if row is None:
            raise InvalidInput(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "begin a generation first"
            )
        return generation

    def _change(self, session: Session, claim: Claim, number: int, part: dict[str, Change]) -> list[str]:
        """One query's worth of distinct keys; the refused ones. Live payloads stay in the server: only their digests
        are compared."""
        s = self.sql
        try:
            names = names_of(part)
        except BAD_VALUE as exc:
            raise bad_record(self.path, exc) from None
        live_rows = session.rows(
            f"SELECT {s.whole.replace('r.payload AS', 'sha256(r.payload) AS')} "
            f"FROM unnest(%s, %s) AS w(key, mark) {s.probe}",
            *names, number,
        )  # fmt: skip
        apply, refused = to_be_made(part, decoded(live_rows), _digested)
        aside = [(change.key, change.aside) for change in apply if change.aside is not None]
        if aside:
            self._set_aside(session, claim.namespace, claim.incident, number, aside)
        gone = [change.key for change in apply if change.row is None]
        if gone:
            self._remove(session, number, gone)
        rows = [change.row for change in apply if change.row is not None]
        if rows:
            self._put_rows(session, number, rows)
            self._keep_up_with(session, rows)
            self._log_tombstones(session, claim, [change for change in apply if change.row is not None])
        return refused

    def _log_tombstones(self, session: Session, claim: Claim, changes: list[Change]) -> None:
        """A tombstone with a reserved sequence is the operator's own: its log entry belongs into the transaction."""
        graves = [(c.row, c.aside) for c in changes if c.row and c.row[6] is not None]
        own = reserved(session, self.sql, [(row[1], row[2]) for row, dummy in graves])
        fresh = [(row, why) for row, why in graves if (row[1], row[2]) in own]
        if not fresh:
            return
        lock = session.row(
            f"UPDATE {self.sql.namespace} SET lock_number = lock_number + 1 WHERE name = %s RETURNING lock_number",
            escaped(claim.namespace),
        )[0]
        entries = [
            (0, row[4], claim.namespace, "delete", row[0], row[1], row[2], row[9], lock, claim.attempt, why, b"")
            for row, why in fresh
        ]
        append_operator(session, self.sql, entries, self.path)

    def reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        if not rows:
            return []
        s = self.sql
        key_ids, payloads, checksums, keys, expected = zip(*rows)
        with self._operating(claim, unfenced=True, later=True) as session:
            number = self._namespace(session, claim.namespace).generation
            try:
                names = names_of(keys)
                values = (
                    Blobs([k.encode() for k in key_ids]), Blobs(payloads), Blobs(checksums), *names, Blobs(expected)
                )  # fmt: skip
            except BAD_VALUE as exc:
                raise bad_record(self.path, exc) from None
            done = session.run(
                f"UPDATE {s.table} t SET key_id = x.key_id, payload = x.payload, checksum = x.checksum "
                "FROM (SELECT w.key_id, w.payload, w.checksum, w.expected, r.place "
                "FROM unnest(%s, %s, %s, %s, %s, %s) AS w(key_id, payload, checksum, key, mark, expected) "
                f"{s.probe} OFFSET 0) AS x WHERE t.ctid = x.place AND t.checksum = x.expected",
                *values, number,
            )  # fmt: skip
            if done == len(rows):
                return []
            live = session.rows(
                f"SELECT r.key || r.key_rest, r.checksum FROM unnest(%s, %s) AS w(key, mark) {s.probe}",
                *names, number,
            )  # fmt: skip
        found = dict(live)
        return [key for key, checksum in zip(keys, checksums) if found.get(key.encode()) != checksum]

    def settle(self) -> None:
        with self._transaction() as session:  # a commit that waits for the disk takes all before it along
            session.rows(f"SELECT one FROM {self.sql.store} {HOLD}")

    def reserve(self, claim: Claim, count: int) -> tuple[int, int]:
        with self._operating(claim) as session:
            stands = session.row(f"SELECT epoch, sequence FROM {self.sql.store} {HOLD}")
            epoch, sequence = max((stands[0], stands[1]), newest_given(session, self.sql))
            if count > 0:
                session.run(f"UPDATE {self.sql.store} SET epoch = %s, sequence = %s", epoch, sequence + count)
                session.run(
                    f"INSERT INTO {self.sql.reserved} VALUES (%s, %s, %s, %s)",
                    escaped(claim.namespace), epoch, sequence + 1, sequence + count,
                )  # fmt: skip
        return epoch, sequence + 1

    def raise_epoch(self, claim: Claim, above: int) -> int:
        with self._operating(claim, alone=True) as session:
            epoch = max(above, session.row(f"SELECT epoch FROM {self.sql.store} {HOLD}")[0]) + 1
            session.run(f"UPDATE {self.sql.store} SET epoch = %s", epoch)
            self._log(session, claim, "promote", f"epoch {epoch}")
        return int(epoch)


def _digested(row: t.Sequence[t.Any]) -> tuple[t.Any, ...]:
    return (*row[:8], hashlib.sha256(row[8]).digest(), row[9])
