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

from .._errors import CannotProceed, RepositoryRefused
from .._extra_vars import for_namespace
from .._model import Change, Claim, NamespaceState, Row
from .jsonl_connect import LinesOpened
from .jsonl_file import file_errors
from .sqlite_connect import sqlite_errors
from .sqlite_own_generations import DROP_ROWS, OwnGenerations, compared, parts

PART: t.Final = 400  # keys that one change looks at


class LinesGenerations(LinesOpened, OwnGenerations):
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
                for part in parts(changes, PART):
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
        there = rows.get_many(number, namespace, list(part))
        wanted, refused = compared(part, there)
        for change, now, row in wanted:
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

    # --- generations --------------------------------------------------------------------------------------------
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
        self._make()
        with self._attached(excluding):
            without = " AND NOT EXISTS (SELECT 1 FROM memops_plan.plan p WHERE p.key = l.key)"
            return self._copy(claim, source, target, after, limit, without)

    def _copy(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, without: str
    ) -> str | None:
        with self._operating(claim) as con:
            space = self._inactive(con, claim, target)
            if source == space.generation and not self.held(space):
                raise CannotProceed(
                    f"The application has the lines of {claim.namespace!r:.80} in its hands.",
                    f"isolate it first: ansible-playbook memops.agent_memory.isolate {for_namespace(claim.namespace)}",
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

    def _exchange(self, con: sqlite3.Connection, space: NamespaceState, generation: int) -> None:
        if not self.held(space):
            self._replace_empty(con, space, generation)

    def _replace_empty(self, con: sqlite3.Connection, space: NamespaceState, generation: int) -> None:
        """A generation becomes the file of a namespace that serves and has nothing in it."""
        self._otherwise.append(self.files.of(space.name).give_back)
        self._take_in(con, space)
        if self.rows(con).count(space.generation):
            raise CannotProceed(
                f"Applications can reach the lines of namespace {space.name!r:.80}; they are not replaced under their "
                "hands.",
                f"isolate it first: ansible-playbook memops.agent_memory.isolate {for_namespace(space.name)}",
            )
        self._put_back(con, space, generation)

    def _drop_some(self, con: sqlite3.Connection, generation: int) -> tuple[int, int]:
        gone = con.execute(
            "DELETE FROM memops_line WHERE rowid IN (SELECT rowid FROM memops_line WHERE generation = ? LIMIT ?)",
            (generation, DROP_ROWS),
        ).rowcount
        return gone, gone

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


def _has_lines(path: str) -> bool:
    if not os.path.isfile(path):
        return os.path.isdir(path)  # what the fence keeps is not known here
    with open(path, "rb") as stream:
        return any(line.strip() for line in stream)
