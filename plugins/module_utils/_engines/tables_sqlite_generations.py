# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing records of another application's tables in a SQLite file: in place by compare-and-set, or all at once.

PRIVATE to the collection. A generation that is not in the application's tables lies in those that hold rows; so does
the active one of a quarantined namespace, where a switch is one number.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import CannotProceed, InvalidInput, RepositoryRefused
from .._extra_vars import for_namespace
from .._model import Change, Claim, NamespaceState, Row
from .sqlite_connect import sqlite_errors
from .sqlite_own_generations import DROP_ROWS, OwnGenerations, compared, parts
from .tables_sqlite_connect import TablesOpened, any_row
from .tables_sqlite_rows import Records
from .tables_sqlite_sql import HELD, Schema
from .tables_sqlite_triggers import suspended

PART = 200  # keys that one change looks at
COPY = 0  # the generation under which a namespace is copied into temporary tables


class TablesGenerations(TablesOpened, OwnGenerations):
    """The part of ``Store`` that changes records."""

    _copied: str | None = None  # the namespace whose rows lie in temporary tables for a copy

    # --- in place -----------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            number = space.generation if generation is None else generation
            if number != space.generation:
                self._own(con, claim, number)
            self._holding(con)
            live = number == space.generation and not self.held(space)
            with contextlib.ExitStack() as stack:
                if live:
                    stack.enter_context(self._lifted(con, space))
                    stack.enter_context(suspended(con, self.schema(con)))
                for part in parts(changes, PART):
                    refused += self._change(con, claim, number, live, part)
        return refused

    def _change(
        self, con: sqlite3.Connection, claim: Claim, number: int, live: bool, part: t.Mapping[str, Change]
    ) -> list[str]:
        records, namespace = self.records(con), claim.namespace
        put: list[Row] = []
        gone: list[str] = []
        there = _present(records, namespace, number, live, list(part))
        wanted, refused = compared(part, there)
        for change, now, row in wanted:
            if row is not None:
                if records.place(namespace, row[0]) is None:
                    raise InvalidInput(f"{row[0]!r:.80} is no key of {namespace!r:.80}.", "verify the snapshot")
                records.cells(row)
                put.append(row)
                if now is None:
                    self._no_longer_aside(con, namespace, row)
            if now is not None and change.aside is not None:
                self._set_aside(con, claim, change.aside, now)
            if row is None:
                gone.append(change.key)
        if live:
            for key in gone:
                records.take_live(namespace, key)
            for row in put:
                records.put_live(namespace, row)
        else:
            records.take_held(number, gone)
            records.put_held(number, put)
        return refused

    @contextlib.contextmanager
    def _lifted(self, con: sqlite3.Connection, space: NamespaceState) -> t.Iterator[None]:
        """The application's tables take this transaction's rows of a namespace that takes no application's writes."""
        if space.state == "serving":
            yield
            return
        self._unfence_writes(con, space.name)
        yield
        self._fence_writes(con, space.name)

    # --- generations --------------------------------------------------------------------------------------------
    def _prepare(self, con: sqlite3.Connection) -> None:
        self._holding(con)

    def generations(self, namespace: str) -> list[int]:
        with sqlite_errors(self.path):
            found = self._con.execute("SELECT 1 FROM sqlite_master WHERE name = 'memops_generation'").fetchone()
            if found is None:
                return [0]
            rows = self._con.execute(
                "SELECT id FROM memops_generation WHERE namespace = ? ORDER BY id", (namespace,)
            ).fetchall()
        return [row[0] for row in rows]

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        with self._operating(claim) as con:
            self._inactive(con, claim, generation)
            self._holding(con)
            records = self.records(con)
            for row in rows:
                if records.place(claim.namespace, row[0]) is None:
                    raise InvalidInput(f"{row[0]!r:.80} is no key of {claim.namespace!r:.80}.", "verify the snapshot")
            records.put_held(generation, rows)

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        try:
            return self._copy_part(claim, source, target, after, limit, excluding)
        except BaseException:
            self._copied = None  # the temporary tables are rolled back, too
            raise

    def _copy_part(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        if excluding is None:
            return self._copy(claim, source, target, after, limit, "")
        with self._attached(excluding):
            without = " AND NOT EXISTS (SELECT 1 FROM memops_plan.plan p WHERE p.key = h.memops_key)"
            return self._copy(claim, source, target, after, limit, without)

    def _copy(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, without: str
    ) -> str | None:
        with self._operating(claim) as con:
            space = self._inactive(con, claim, target)
            schema = self._holding(con)
            where, number = "main", source
            if source != space.generation:
                self._own(con, claim, source)
            elif not self.held(space):  # a namespace that serves is copied as it was when the copy began
                where, number = "temp", COPY
                self._copied_of(con, claim.namespace, again=after is None)
            if after is None:
                self._copy_rest(con, schema, where, number, target)
            bound = (number, "" if after is None else after)
            part = "memops_generation = ? AND memops_key > ?"
            # of several roots each has keys of its own
            keys = " UNION ".join(f"SELECT memops_key FROM {root.held(where)} WHERE {part}" for root in schema.roots)
            last = con.execute(
                f"SELECT max(memops_key) FROM (SELECT memops_key FROM ({keys}) ORDER BY memops_key LIMIT ?)",
                (*(value for _root in schema.roots for value in bound), limit),
            ).fetchone()[0]
            if last is None:
                return None
            for table in schema.tables:
                own = table if table.is_root else schema.named(table.root.name)
                if own is None:
                    raise AssertionError(table.name)
                whole = "" if table.is_root else (  # rows without a record stay behind
                    f" AND EXISTS (SELECT 1 FROM {own.held(where)} r WHERE r.memops_generation = {int(number)} "
                    "AND r.memops_key = h.memops_key)"
                )
                con.execute(
                    f"DELETE FROM {table.held()} WHERE memops_generation = ? AND memops_key > ? AND memops_key <= ?",
                    (target, bound[1], last),
                )
                con.execute(
                    f"INSERT INTO {table.held()} (memops_generation, memops_key, memops_rowid, {table.listed}) "
                    f"SELECT {int(target)}, memops_key, memops_rowid, {table.listed} FROM {table.held(where)} h "
                    f"WHERE {part} AND memops_key <= ?{whole}{without}",
                    (*bound, last),
                )
        return str(last)

    def _copy_rest(self, con: sqlite3.Connection, schema: Schema, where: str, number: int, target: int) -> None:
        """Rows of the namespace that are no records stay with it."""
        for table in schema.tables:
            con.execute(f"DELETE FROM {table.held()} WHERE memops_generation = ? AND memops_key IS NULL", (target,))
            con.execute(
                f"INSERT INTO {table.held()} (memops_generation, memops_key, memops_rowid, {table.listed}) "
                f"SELECT {int(target)}, NULL, memops_rowid, {table.listed} FROM {table.held(where)} "
                "WHERE memops_generation = ? AND memops_key IS NULL",
                (number,),
            )

    def _copied_of(self, con: sqlite3.Connection, namespace: str, again: bool) -> None:
        records = self.records(con)
        records.hold()
        if again or self._copied != namespace:
            for table in records.schema.tables:
                con.execute(f"DELETE FROM {table.held('temp')}")
            records.bring(namespace, COPY)
            self._copied = namespace

    def _exchange(self, con: sqlite3.Connection, space: NamespaceState, generation: int) -> None:
        if self.held(space):
            return
        if space.state == "serving" and any_row(con, self.schema(con), space.name):
            raise CannotProceed(
                f"Applications can reach the rows of namespace {space.name!r:.80}; they are not replaced under their "
                "hands.",
                f"isolate it first: ansible-playbook memops.agent_memory.isolate {for_namespace(space.name)}",
            )
        with self._lifted(con, space):
            self._take_out(con, space.name, space.generation)
            self._put_in(con, space.name, generation)

    def _drop_some(self, con: sqlite3.Connection, generation: int) -> tuple[int, int]:
        records = gone = 0
        for table in self._holding(con).tables:
            rows = con.execute(
                f"DELETE FROM {table.held()} WHERE rowid IN (SELECT rowid FROM {table.held()} "
                "WHERE memops_generation = ? LIMIT ?)",
                (generation, DROP_ROWS),
            ).rowcount
            records += rows if table.is_root else 0
            gone += rows
        return records, gone

    def adopt_lineage(self, lineage: str) -> bool:
        with self._transaction() as con:
            own = con.execute("SELECT lineage FROM memops_store").fetchone()[0]
            if own == lineage:
                return False
            schema = self.schema(con)
            held = {row[0] for row in con.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
            places = [root.plain for root in schema.roots]
            places += [root.held() for root in schema.roots if HELD + root.name in held]
            if any(con.execute(f"SELECT 1 FROM {place} LIMIT 1").fetchone() for place in places):
                raise RepositoryRefused(
                    f"The store {self.path} has records of its own, of lineage {own}; the snapshot's is {lineage}.",
                    "restore into an empty store, or name the repository that belongs to this store",
                )
            con.execute("UPDATE memops_store SET lineage = ?", (lineage,))
        return True


def _present(records: Records, namespace: str, number: int, live: bool, keys: t.Sequence[str]) -> dict[str, Row]:
    if live:
        return records.live(namespace, keys)
    return {row[0]: row for rows in records.scan("main", number, namespace, keys=keys) for row in rows}
