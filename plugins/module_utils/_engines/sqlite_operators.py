# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What operators do with a namespace of a SQLite store: fence it, prove the fence, change records by compare-and-set.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import InvalidInput, NamespaceQuarantined, StoreDamaged
from .._model import Change, Claim, to_be_made
from .leases import settable
from .sqlite_connect import Connected, connect, decoding_leniently, sqlite_errors, translate
from .sqlite_log import append, append_operator, position, reserved
from .sqlite_schema import QUARANTINE_TTL
from .sqlite_structure import missing

PROBE_KEY = "\x00memops/probe"
KEYS_PER_QUERY = 200


class Operators(Connected):
    """The operators' part of ``Store``, but for generations."""

    def _log(self, con: sqlite3.Connection, claim: Claim, operation: str, reason: str) -> None:
        at = max(self.clock(), con.execute("SELECT newest FROM memops_store").fetchone()[0])
        entry = (0, at, claim.namespace, operation, None, None, None, None, None, claim.attempt, reason, b"")
        append(con, self.sql, [entry])

    # --- the fence ----------------------------------------------------------------------------------------------
    def fence(self, claim: Claim) -> bool:
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            mended = self._raise_again(con)
            if space.state == "quarantined":
                if space.incident == claim.incident:
                    return mended
                con.execute(  # left by an incident that was closed without a release
                    "UPDATE memops_namespace SET incident = ? WHERE name = ?", (claim.incident, claim.namespace)
                )
            else:
                con.execute(
                    "UPDATE memops_namespace SET prior_state = state, prior_ttl = serving_ttl, state = 'quarantined', "
                    "serving_ttl = ?, incident = ? WHERE name = ?",
                    (QUARANTINE_TTL, claim.incident, claim.namespace),
                )
            self._log(con, claim, "fence", claim.incident)
        return True

    def _raise_again(self, con: sqlite3.Connection) -> bool:
        """Triggers that somebody dropped or changed are made again; whether there were any."""
        lost = {kind for kind, _name, _text in missing(con, self.sql)}
        if "trigger" not in lost or "table" in lost:
            return False
        self._drop_fence(con)
        self._raise_fence(con)
        return True

    def unfence(self, claim: Claim) -> bool:
        with self._operating(claim) as con:
            if self._namespace(con, claim.namespace).state != "quarantined":
                return False
            con.execute(
                "UPDATE memops_namespace SET state = prior_state, serving_ttl = prior_ttl, incident = NULL, "
                "prior_state = NULL, prior_ttl = NULL WHERE name = ?",
                (claim.namespace,),
            )
            self._log(con, claim, "release", claim.incident)
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        """In a quarantine this sets the state that the release brings back: nothing is served in between."""
        settable(state)
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            column = "prior_state" if space.state == "quarantined" else "state"
            if getattr(space, column) == state:
                return False
            con.execute(f"UPDATE memops_namespace SET {column} = ? WHERE name = ?", (state, claim.namespace))
        return True

    def prove(self, namespace: str) -> dict[str, t.Any]:
        s = self.sql
        detail: list[str] = []
        with sqlite_errors(self.path):
            con = connect(self.path, self.busy_timeout)  # a client of its own, with nothing that Memory checks
            try:
                con.execute("BEGIN IMMEDIATE")
                space = self._namespace(con, namespace)
                number = space.generation
                key, damaged = self._any_key(number)
                probe = (PROBE_KEY, 0, 0, 0, 0, None, None, "", b"", b"")
                insert = s.insert(number)
                one = f"WHERE {s.generation} = {number} AND {s.key} = ?"
                refused = [
                    self._refused(con, "INSERT", insert.replace(" OR REPLACE", "", 1), probe, detail),
                    self._refused(con, "INSERT OR REPLACE", insert, probe, detail),
                ]
                if key is None and not damaged:
                    # UPDATE and DELETE need a row; this one is rolled back with everything else.
                    fences = con.execute(
                        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (s.plain_table,)
                    ).fetchall()
                    for name, _sql in fences:
                        con.execute(f'DROP TRIGGER "{name}"')
                    con.execute(insert, probe)
                    for _name, text in fences:
                        con.execute(text)
                    key = PROBE_KEY
                lost = {name for _kind, name, _sql in missing(con, s)}
                readable = not damaged
                for verb, text in (
                    ("UPDATE", f"UPDATE {s.table} SET {s.updated} = {s.updated} {one}"),
                    ("DELETE", f"DELETE FROM {s.table} {one}"),
                ):
                    if key is not None:
                        refused.append(self._refused(con, verb, text, (key,), detail))
                        continue
                    refused.append(f"memops_fence_{verb.lower()}" not in lost)
                    placed = "in place" if refused[-1] else "missing"
                    detail.append(f"raw {verb}: not tried, no row can be read; its trigger is {placed}")
            finally:
                with contextlib.suppress(sqlite3.Error):  # closing rolls back too, and must happen
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                con.close()
        if readable:
            detail.append("raw SELECT: the records are there to be read")
        detail.append(f"Memory reads nothing of a namespace that is quarantined; this one is {space.state}")
        return {
            "writes_refused": all(refused),
            "reads_refused": space.state == "quarantined",
            "reads_accepted": space.state != "quarantined" and readable,
            "detail": detail,
            "not_fenced": [
                "raw readers: a program that opens the SQLite file without Memory can still read the sealed records",
                "a program with write access to the file that drops the triggers or changes the control tables",
            ],
        }

    def _any_key(self, generation: int) -> tuple[t.Any, bool]:
        """(the first key, or the last one when the first page is damaged; whether no row can be read for damage)."""
        s = self.sql
        damaged = False
        for order in ("ASC", "DESC"):
            # A connection that met a damaged page refuses much else afterwards: one for each try.
            with contextlib.closing(connect(self.path, self.busy_timeout, read_only=True)) as con:
                try:
                    row = con.execute(
                        f"SELECT {s.key} FROM {s.table} WHERE {s.generation} = ? ORDER BY {s.key} {order} LIMIT 1",
                        (generation,),
                    ).fetchone()
                    return (None if row is None else row[0]), False
                except sqlite3.DatabaseError as exc:
                    if not isinstance(translate(exc, self.path), StoreDamaged) and "decode" not in str(exc):
                        raise
                    damaged = True
        return None, damaged

    def _refused(
        self, con: sqlite3.Connection, verb: str, text: str, values: tuple[t.Any, ...], detail: list[str]
    ) -> bool:
        con.execute("SAVEPOINT memops_probe")
        try:
            con.execute(text, values)
            detail.append(f"raw {verb}: accepted")
            return False
        except sqlite3.Error as exc:
            error = translate(exc, self.path)
            if not isinstance(error, NamespaceQuarantined):
                raise
            detail.append(f"raw {verb}: refused ({exc})")
            return True
        finally:
            if con.in_transaction:
                con.execute("ROLLBACK TO memops_probe")
                con.execute("RELEASE memops_probe")

    # --- records ------------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        with self._operating(claim, unfenced=True) as con:
            number = self._own_generation(con, claim, generation)
            part: dict[str, Change] = {}
            for change in changes:
                if change.key in part or len(part) >= KEYS_PER_QUERY:  # a key's second change sees its first
                    refused += self._change(con, claim, number, part)
                    part = {}
                part[change.key] = change
            refused += self._change(con, claim, number, part)
        return refused

    def _own_generation(self, con: sqlite3.Connection, claim: Claim, generation: int | None) -> int:
        active = self._namespace(con, claim.namespace).generation
        if generation is None or generation == active:
            return active
        row = con.execute(
            "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, claim.namespace)
        ).fetchone()
        if row is None:
            raise InvalidInput(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "begin a generation first"
            )
        return generation

    def _change(self, con: sqlite3.Connection, claim: Claim, number: int, part: dict[str, Change]) -> list[str]:
        """One query's worth of distinct keys; the refused ones. Live rows are looked at one by one: they may be big."""
        s = self.sql
        with decoding_leniently(con):
            live = con.execute(
                f"SELECT {s.columns} FROM {s.table} WHERE {s.generation} = ? AND {s.key} IN "
                f"({', '.join('?' * len(part))})",
                (number, *part),
            )
            apply, refused = to_be_made(part, live)
        aside = [(change.key, change.aside) for change in apply if change.aside is not None]
        if aside:
            self._set_aside(con, claim.namespace, claim.incident, number, aside)
        gone = [(number, change.key) for change in apply if change.row is None]
        if gone:
            con.executemany(f"DELETE FROM {s.table} WHERE {s.generation} = ? AND {s.key} = ?", gone)
        rows = [change.row for change in apply if change.row is not None]
        if rows:
            self._put_rows(con, number, rows)
            self._keep_up_with(con, rows)
            self._log_tombstones(con, claim, [change for change in apply if change.row is not None])
        return refused

    def _log_tombstones(self, con: sqlite3.Connection, claim: Claim, changes: list[Change]) -> None:
        """A tombstone with a reserved sequence is the operator's own: its log entry belongs into the transaction."""
        fresh = [
            (c.row, c.aside) for c in changes if c.row and c.row[6] is not None and reserved(con, c.row[1], c.row[2])
        ]
        if not fresh:
            return
        con.execute("UPDATE memops_namespace SET lock_number = lock_number + 1 WHERE name = ?", (claim.namespace,))
        lock = con.execute("SELECT lock_number FROM memops_namespace WHERE name = ?", (claim.namespace,)).fetchone()[0]
        entries = [
            (0, row[4], claim.namespace, "delete", row[0], row[1], row[2], row[9], lock, claim.attempt, why, b"")
            for row, why in fresh
        ]
        append_operator(con, self.sql, entries)

    def reserve(self, claim: Claim, count: int) -> tuple[int, int]:
        with self._operating(claim) as con:
            epoch, sequence = position(con)
            if count > 0:
                con.execute("UPDATE memops_store SET epoch = ?, sequence = ?", (epoch, sequence + count))
                con.execute(
                    "INSERT INTO memops_reserved VALUES (?, ?, ?, ?)",
                    (claim.namespace, epoch, sequence + 1, sequence + count),
                )
        return epoch, sequence + 1

    def raise_epoch(self, claim: Claim, above: int) -> int:
        with self._operating(claim) as con:
            epoch = max(above, con.execute("SELECT epoch FROM memops_store").fetchone()[0]) + 1
            con.execute("UPDATE memops_store SET epoch = ?", (epoch,))
            self._log(con, claim, "promote", f"epoch {epoch}")
        return int(epoch)
