# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing records of another application's JSON Lines file: in place by compare-and-set, or all at once.

PRIVATE to the collection. The active generation of a namespace that serves lies in the application's file; all others,
and that of a quarantined one, in the control file, where a switch is one number. A change to a file that serves takes
it for a moment: calls of the application fail meanwhile, and nothing that it was told is written gets lost.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._errors import CannotProceed, InvalidInput, RepositoryRefused
from .._model import Change, Claim, NamespaceState, Row
from .jsonl_connect import LinesOpened
from .jsonl_file import file_errors
from .sqlite_connect import sqlite_errors
from .sqlite_schema import ASIDE_COLUMNS

DROP_ROWS: t.Final = 5000  # rows that one dropping transaction deletes
PART: t.Final = 400  # keys that one change looks at
ISOLATED: t.Final = "isolated "  # the beginning of reasons under which records lie aside that come back as they are


class LinesGenerations(LinesOpened):
    """The part of ``Store`` that changes records."""

    # --- in place -----------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            number = space.generation if generation is None else generation
            if number != space.generation:
                self._own(con, claim, number)
            with self._in_hand(con, space) if number == space.generation else contextlib.nullcontext([False]) as done:
                part: dict[str, Change] = {}
                for change in changes:
                    if change.key in part or len(part) >= PART:  # a key's second change sees its first
                        refused += self._change(con, claim, number, part, done)
                        part = {}
                    part[change.key] = change
                refused += self._change(con, claim, number, part, done)
        return refused

    @contextlib.contextmanager
    def _in_hand(self, con: sqlite3.Connection, space: NamespaceState) -> t.Iterator[list[bool]]:
        """The lines of the active generation are here; those of a file that serves go back, changed if the body says
        so."""
        changed = [False]
        if self.held(space):
            yield changed
            return
        file = self.files.of(space.name)
        self._otherwise.append(file.give_back)
        self._take_in(con, space)
        yield changed
        if changed[0]:
            self._put_back(con, space)
        else:
            self.rows(con).clear(space.generation)
            self._after.append(file.give_back)

    def _change(
        self, con: sqlite3.Connection, claim: Claim, number: int, part: t.Mapping[str, Change], done: list[bool]
    ) -> list[str]:
        rows, namespace = self.rows(con), claim.namespace
        refused: list[str] = []
        there = rows.get_many(number, namespace, list(part))
        for change in part.values():
            now, row = there.get(change.key), None if change.row is None else tuple(change.row)
            if row == now:
                continue
            if now is None and (change.expected is not None or row is None):
                refused += [] if row is None else [change.key]
                continue
            if now is not None and (change.expected is None or now[9] != change.expected):
                refused.append(change.key)
                continue
            if now is not None and change.aside is not None:
                self._set_aside(con, claim, change.aside, now)
            if row is None:
                rows.take(number, change.key)
            else:
                rows.put(number, row)
                if now is None:
                    self._no_longer_aside(con, namespace, row)
            done[0] = True
        return refused

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

    # --- generations --------------------------------------------------------------------------------------------
    def begin_generation(self, claim: Claim) -> int:
        with self._operating(claim) as con:
            self._namespace(con, claim.namespace)
            number = con.execute(
                "INSERT INTO memops_generation (namespace, created, incident) VALUES (?, ?, ?)",
                (claim.namespace, self.clock(), claim.incident),
            ).lastrowid
        if number is None:
            raise AssertionError("number")
        return number

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

    def generations(self, namespace: str) -> list[int]:
        with sqlite_errors(self.path):
            con = self.control()
            rows = [] if con is None else con.execute(
                "SELECT id FROM memops_generation WHERE namespace = ? ORDER BY id", (namespace,)
            ).fetchall()  # fmt: skip
        return [row[0] for row in rows] or [0]

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        with self._operating(claim) as con:
            space = self._inactive(con, claim, generation)
            table = self.rows(con)
            for row in rows:
                table.put(generation, row, space.generation)

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        if excluding is None:
            return self._copy(claim, source, target, after, limit, "")
        if not os.path.isfile(excluding):
            raise InvalidInput(f"There is no plan file {excluding}.", "make the plan first")
        self._make()
        uri = "file:" + urllib.parse.quote(os.path.abspath(excluding)) + "?mode=ro"
        with sqlite_errors(excluding):
            self._con.execute("ATTACH ? AS memops_plan", (uri,))
        try:
            without = " AND NOT EXISTS (SELECT 1 FROM memops_plan.plan p WHERE p.key = l.key)"
            return self._copy(claim, source, target, after, limit, without)
        finally:
            with sqlite_errors(excluding):
                self._con.execute("DETACH memops_plan")

    def _copy(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, without: str
    ) -> str | None:
        with self._operating(claim) as con:
            space = self._inactive(con, claim, target)
            if source == space.generation and not self.held(space):
                raise CannotProceed(
                    f"The application has the lines of {claim.namespace!r:.80} in its hands.",
                    f"isolate it first: memory_namespace={claim.namespace}",
                )
            self._own(con, claim, source)
            part = "generation = ? AND key > ?"
            bound = (source, "" if after is None else after)
            last = con.execute(
                f"SELECT max(key) FROM (SELECT key FROM memops_line WHERE {part} AND n = 1 ORDER BY key LIMIT ?)",
                (*bound, limit),
            ).fetchone()[0]
            if last is None:
                return None
            con.execute(f"DELETE FROM memops_line WHERE {part} AND key <= ?", (target, bound[1], last))
            con.execute(
                f"INSERT INTO memops_line SELECT {int(target)}, key, n, place, sound, line FROM memops_line l "
                f"WHERE {part} AND key <= ?{without}",
                (*bound, last),
            )
        return str(last)

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
            if not self.held(space):
                self._replace_empty(con, space, generation)
            con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (generation, claim.namespace))
        return True

    def _replace_empty(self, con: sqlite3.Connection, space: NamespaceState, generation: int) -> None:
        """A generation becomes the file of a namespace that serves and has nothing in it."""
        self._otherwise.append(self.files.of(space.name).give_back)
        self._take_in(con, space)
        if self.rows(con).count(space.generation):
            raise CannotProceed(
                f"Applications can reach the lines of namespace {space.name!r:.80}; they are not replaced under their "
                "hands.",
                f"isolate it first: memory_namespace={space.name}",
            )
        self._put_back(con, space, generation)

    def drop_generation(self, claim: Claim, generation: int) -> int:
        dropped = 0
        while True:
            with self._operating(claim) as con:
                if con.execute("SELECT 1 FROM memops_generation WHERE id = ?", (generation,)).fetchone() is None:
                    return dropped
                self._inactive(con, claim, generation)
                gone = con.execute(
                    "DELETE FROM memops_line WHERE rowid IN "
                    "(SELECT rowid FROM memops_line WHERE generation = ? LIMIT ?)",
                    (generation, DROP_ROWS),
                ).rowcount
                dropped += gone
                if not gone:
                    con.execute("DELETE FROM memops_generation WHERE id = ?", (generation,))

    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        with self._operating(claim) as con:
            con.execute(
                "UPDATE memops_namespace SET restored_snapshot = ?, restored_epoch = ?, restored_sequence = ?, "
                "restored_at = ?, restored_digest = ? WHERE name = ?",
                (snapshot, epoch, sequence, at, digest, claim.namespace),
            )

    def adopt_lineage(self, lineage: str) -> bool:
        with self._transaction() as con:
            own = con.execute("SELECT lineage FROM memops_store").fetchone()[0]
            if own == lineage:
                return False
            held = con.execute("SELECT 1 FROM memops_line LIMIT 1").fetchone()
            with file_errors(self.files.path):
                full = [name for name in self.files.names() if _has_lines(self.files.of(name).path)]
            if held or full:
                raise RepositoryRefused(
                    f"The store {self.files.path} has records of its own, of lineage {own}; the snapshot's is "
                    f"{lineage}.",
                    "restore into an empty store, or name the repository that belongs to this store",
                )
            con.execute("UPDATE memops_store SET lineage = ?", (lineage,))
        return True

    def raise_epoch(self, claim: Claim, above: int) -> int:
        with self._operating(claim) as con:
            epoch = max(above, con.execute("SELECT epoch FROM memops_store").fetchone()[0]) + 1
            con.execute("UPDATE memops_store SET epoch = ?", (epoch,))
        return int(epoch)


def _has_lines(path: str) -> bool:
    if not os.path.isfile(path):
        return os.path.isdir(path)  # what the fence keeps is not known here
    with open(path, "rb") as stream:
        return any(line.strip() for line in stream)
