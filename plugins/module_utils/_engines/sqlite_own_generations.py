# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Generations of records that are an application's own, as far as control tables in SQLite tell of them.

PRIVATE to the collection. Where the rows of a generation lie is the engine's business.
"""
from __future__ import annotations

import abc
import sqlite3
import typing as t

from .._errors import CannotProceed
from .._model import Change, Claim, NamespaceState, Row
from .applications_own import ISOLATED
from .sqlite_numbered import NumberedGenerations
from .sqlite_schema import ASIDE_COLUMNS

DROP_ROWS: t.Final = 5000  # rows that one dropping transaction deletes


def parts(changes: t.Iterable[Change], most: int) -> t.Iterator[dict[str, Change]]:
    """The changes by key, at most so many at once. A key's second change comes later than its first."""
    part: dict[str, Change] = {}
    for change in changes:
        if change.key in part or len(part) >= most:
            yield part
            part = {}
        part[change.key] = change
    yield part


def compared(
    part: t.Mapping[str, Change], there: t.Mapping[str, Row]
) -> tuple[list[tuple[Change, Row | None, Row | None]], list[str]]:
    """Compare-and-set: (what is to be done, with the record that is there and the one that shall be; the keys of the
    changes that are refused, as another record is there than was expected)."""
    wanted: list[tuple[Change, Row | None, Row | None]] = []
    refused: list[str] = []
    for change in part.values():
        now, row = there.get(change.key), None if change.row is None else tuple(change.row)
        if row == now:
            continue
        if change.expects(now):
            wanted.append((change, now, row))
        else:
            refused.append(change.key)
    return wanted, refused


class OwnGenerations(NumberedGenerations, abc.ABC):
    """The part of ``Store`` that keeps count of generations."""

    def _own(self, con: sqlite3.Connection, claim: Claim, generation: int) -> None:
        row = con.execute(
            "SELECT 1 FROM memops_generation WHERE id = ? AND namespace = ?", (generation, claim.namespace)
        ).fetchone()
        if row is None:
            raise CannotProceed(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "begin a generation first"
            )

    def _inactive(self, con: sqlite3.Connection, claim: Claim, generation: int) -> NamespaceState:
        space = self._namespace(con, claim.namespace)
        self._own(con, claim, generation)
        if generation == space.generation:
            raise CannotProceed(
                f"Generation {generation} of namespace {claim.namespace!r:.80} is the active one.",
                "begin a new generation and use that",
            )
        return space

    def finish_switch(self, claim: Claim) -> None:
        """A switch is one transaction."""

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            active = space.generation
            if active == generation:
                return False
            self._own(con, claim, generation)
            first = con.execute(
                "SELECT min(id) FROM memops_generation WHERE namespace = ?", (claim.namespace,)
            ).fetchone()[0]
            if active != (expected or first):  # 0: it was seen when it had no control row yet
                raise CannotProceed(
                    f"Namespace {claim.namespace!r:.80} is at generation {active}, not {expected}.",
                    "make the plan again from the present state",
                )
            self._exchange(con, space, generation)
            con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (generation, claim.namespace))
        return True

    @abc.abstractmethod
    def _exchange(self, con: sqlite3.Connection, space: NamespaceState, generation: int) -> None:
        """Put the generation in the active one's place, where that is more than a number. Errors: CannotProceed."""

    def drop_generation(self, claim: Claim, generation: int) -> int:
        dropped = 0
        while True:
            with self._operating(claim) as con:
                if con.execute("SELECT 1 FROM memops_generation WHERE id = ?", (generation,)).fetchone() is None:
                    return dropped
                self._inactive(con, claim, generation)
                records, gone = self._drop_some(con, generation)
                dropped += records
                if not gone:
                    con.execute("DELETE FROM memops_generation WHERE id = ?", (generation,))

    @abc.abstractmethod
    def _drop_some(self, con: sqlite3.Connection, generation: int) -> tuple[int, int]:
        """Delete at most DROP_ROWS of each table: how many records, and how many rows."""

    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        with self._operating(claim) as con:
            con.execute(
                "UPDATE memops_namespace SET restored_snapshot = ?, restored_epoch = ?, restored_sequence = ?, "
                "restored_at = ?, restored_digest = ? WHERE name = ?",
                (snapshot, epoch, sequence, at, digest, claim.namespace),
            )

    def raise_epoch(self, claim: Claim, above: int) -> int:
        with self._operating(claim) as con:
            epoch = max(above, con.execute("SELECT epoch FROM memops_store").fetchone()[0]) + 1
            con.execute("UPDATE memops_store SET epoch = ?", (epoch,))
        return int(epoch)

    # --- what lies aside ----------------------------------------------------------------------------------------
    def _set_aside(self, con: sqlite3.Connection, claim: Claim, reason: str, row: Row) -> None:
        con.execute(
            f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) "
            f"VALUES ({', '.join('?' * 14)})",
            (claim.namespace, claim.incident, reason, self.clock(), *row),
        )

    def _no_longer_aside(self, con: sqlite3.Connection, namespace: str, row: Row) -> None:
        """What was isolated and is back in its place lies aside no more: the application may delete it now."""
        con.execute(
            "DELETE FROM memops_aside WHERE namespace = ? AND key = ? AND checksum = ? AND substr(reason, 1, ?) = ?",
            (namespace, row[0], row[9], len(ISOLATED), ISOLATED),
        )
