# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Generations of a namespace in a SQLite store: fill a new one beside the active one, then switch.

PRIVATE to the collection.
"""
from __future__ import annotations

import sqlite3
import typing as t
from itertools import chain

from .._errors import CannotProceed, RepositoryRefused
from .._model import Claim, Row
from .sqlite_connect import Connected, sqlite_errors
from .sqlite_numbered import NumberedGenerations

DROP_ROWS = 5000  # rows that one dropping transaction deletes
BULK_CACHE_KIB = 6 << 10
ROWS_PER_INSERT = 90  # ten values each; every build of SQLite takes 999


def adapt_at_once() -> None:
    """Tell the driver that bytes and None need no adapter: looking for one costs it a fifth of a bulk insert."""
    sqlite3.register_adapter(bytes, bytes)
    sqlite3.register_adapter(type(None), t.cast(t.Any, {}.get))


class Generations(NumberedGenerations, Connected):
    """The generations' part of ``Store``."""

    def _inactive(self, con: sqlite3.Connection, claim: Claim, generation: int) -> None:
        active = self._namespace(con, claim.namespace).generation
        known = con.execute(
            "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, claim.namespace)
        ).fetchone()
        if known is None or generation == active:
            why = "is the active one" if known else "does not exist"
            raise CannotProceed(
                f"Generation {generation} of namespace {claim.namespace!r:.80} {why}.",
                "begin a new generation and use that",
            )

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        if not rows:
            return
        adapt_at_once()
        self._need_little()
        with self._relaxed(), self._undo_in_memory(), self._operating(claim, unfenced=True) as con:
            self._inactive(con, claim, generation)
            many = self.sql.insert(generation, ROWS_PER_INSERT)
            whole = len(rows) - len(rows) % ROWS_PER_INSERT
            for start in range(0, whole, ROWS_PER_INSERT):
                con.execute(many, tuple(chain.from_iterable(rows[start : start + ROWS_PER_INSERT])))
            con.executemany(self.sql.insert(generation), rows[whole:])
            self._sample(con, generation, rows)
            self._keep_up_with(con, rows)

    def _need_little(self) -> None:
        """Pages pass once; and the check that comes next runs in processes that inherit what is held here."""
        with sqlite_errors(self.path):
            self._con.execute(f"PRAGMA cache_size = -{BULK_CACHE_KIB}")

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        s = self.sql
        if excluding is None:
            return self._copy(claim, source, target, after, limit, "")
        with self._attached(excluding):
            without = f" AND NOT EXISTS (SELECT 1 FROM memops_plan.plan p WHERE p.key = {s.table}.{s.key})"
            return self._copy(claim, source, target, after, limit, without)

    def _copy(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, without: str
    ) -> str | None:
        s = self.sql
        self._need_little()
        with self._relaxed(), self._operating(claim, unfenced=True) as con:
            self._inactive(con, claim, target)
            self._own(con, claim, source)
            # The empty key is smaller than any, and a blob greater than any: keys that are no text stay behind.
            # (The sign: SQLite shall not take this bound, and not ``key <= ?``, for the end of the range.)
            part = f"{s.generation} = ? AND {s.key} > ? AND +{s.key} < x''"
            start = "" if after is None else after
            row = con.execute(
                f"SELECT max({s.key}) FROM (SELECT {s.key} FROM main.{s.table} WHERE {part} ORDER BY {s.key} LIMIT ?)",
                (source, start, limit),
            ).fetchone()
            if row[0] is None:
                return None
            con.execute(
                f"INSERT OR REPLACE INTO main.{s.table} ({s.generation}, {s.columns}) SELECT ?, {s.columns} "
                f"FROM main.{s.table} WHERE {part} AND {s.key} <= ?{without} ORDER BY {s.key}",
                (target, source, start, row[0]),
            )
            con.execute(
                "INSERT OR IGNORE INTO main.memops_sample SELECT ?, key FROM main.memops_sample "
                "WHERE generation = ? AND key > ? AND key <= ?",
                (target, source, start, row[0]),
            )
        return str(row[0])

    def _own(self, con: sqlite3.Connection, claim: Claim, generation: int) -> None:
        row = con.execute(
            "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, claim.namespace)
        ).fetchone()
        if row is None:
            raise CannotProceed(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "name one that it has"
            )

    def finish_switch(self, claim: Claim) -> None:
        """A switch is one write."""

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        with self._operating(claim) as con:
            active = self._namespace(con, claim.namespace).generation
            if active == generation:
                return False
            self._own(con, claim, generation)
            if active != expected:
                raise CannotProceed(
                    f"Namespace {claim.namespace!r:.80} is at generation {active}, not {expected}.",
                    "make the plan again from the present state",
                )
            con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (generation, claim.namespace))
        return True

    def drop_generation(self, claim: Claim, generation: int) -> int:
        s = self.sql
        dropped = 0
        while True:
            with self._operating(claim, unfenced=True) as con:
                if generation != self._namespace(con, claim.namespace).generation and not con.execute(
                    "SELECT 1 FROM memops_generation WHERE id = ?", (generation,)
                ).fetchone():
                    return dropped
                self._inactive(con, claim, generation)
                rows = con.execute(
                    f"DELETE FROM {s.table} WHERE {s.generation} = ? AND {s.key} IN "
                    f"(SELECT {s.key} FROM {s.table} WHERE {s.generation} = ? LIMIT ?)",
                    (generation, generation, DROP_ROWS),
                ).rowcount
                dropped += rows
                if not rows:
                    con.execute("DELETE FROM memops_sample WHERE generation = ?", (generation,))
                    con.execute("DELETE FROM memops_generation WHERE id = ?", (generation,))

    def generations(self, namespace: str) -> list[int]:
        with sqlite_errors(self.path):
            self._namespace(self._con, namespace)
            rows = self._con.execute(
                "SELECT id FROM memops_generation WHERE namespace = ? ORDER BY id", (namespace,)
            ).fetchall()
        return [row[0] for row in rows]

    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        with self._operating(claim) as con:
            con.execute(
                "UPDATE memops_namespace SET restored_snapshot = ?, restored_epoch = ?, restored_sequence = ?, "
                "restored_at = ?, restored_digest = ? WHERE name = ?",
                (snapshot, epoch, sequence, at, digest, claim.namespace),
            )
            self._keep_up(con, epoch, sequence, at)

    def adopt_lineage(self, lineage: str) -> bool:
        with self._transaction() as con:
            own, sequence = con.execute("SELECT lineage, sequence FROM memops_store").fetchone()
            if own == lineage:
                return False
            if sequence or con.execute(f"SELECT 1 FROM {self.sql.table} LIMIT 1").fetchone():
                raise RepositoryRefused(
                    f"The store {self.path} has records of its own, of lineage {own}; the snapshot's is {lineage}.",
                    "restore into an empty store, or name the repository that belongs to this store",
                )
            con.execute("UPDATE memops_store SET lineage = ?", (lineage,))
        return True
