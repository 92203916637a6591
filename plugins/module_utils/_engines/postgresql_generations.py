# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Generations of a namespace in a PostgreSQL store: fill a new one beside the active one, then switch.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._codec import encodable
from .._errors import CannotProceed, InvalidInput, RepositoryRefused
from .._model import Claim, Row
from .postgresql_connect import Connected
from .postgresql_copying import RECORD_COLUMNS, records
from .postgresql_operators import HOLD
from .postgresql_rows import escaped, lenient, names_of, split
from .postgresql_session import BAD_VALUE, Session, bad_record
from .sqlite_connect import sqlite_errors

DROP_ROWS = 5000  # rows that one dropping transaction deletes


class Generations(Connected):
    """The generations' part of ``Store``."""

    def begin_generation(self, claim: Claim) -> int:
        with self._operating(claim) as session:
            self._namespace(session, claim.namespace)
            row = session.row(
                f"INSERT INTO {self.sql.generation} (namespace, created, incident) VALUES (%s, %s, %s) RETURNING id",
                escaped(claim.namespace), self.clock(), claim.incident,
            )  # fmt: skip
        return int(row[0])

    def _inactive(self, session: Session, claim: Claim, generation: int) -> None:
        active = self._namespace(session, claim.namespace).generation
        known = session.row(
            f"SELECT 1 FROM {self.sql.generation} WHERE id = %s AND namespace = %s",
            generation, escaped(claim.namespace),
        )  # fmt: skip
        if known is None or generation == active:
            why = "is the active one" if known else "does not exist"
            raise CannotProceed(
                f"Generation {generation} of namespace {claim.namespace!r:.80} {why}.",
                "begin a new generation and use that",
            )

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        if not rows:
            return
        with self._operating(claim, unfenced=True, later=True) as session:
            self._inactive(session, claim, generation)
            self._load_rows(session, generation, rows)
            self._keep_up_with(session, rows)

    def _load_rows(self, session: Session, generation: int, rows: t.Sequence[Row]) -> None:
        """COPY where nothing is to be replaced, as in nearly every load; it costs the server half of an upsert."""
        s = self.sql
        try:
            data = records(generation, rows)
        except BAD_VALUE as exc:
            raise bad_record(self.path, exc) from None
        if data is not None:
            occupied = session.row(
                f"SELECT 1 FROM {s.table} WHERE generation = %s AND key >= %s AND key <= %s LIMIT 1",
                generation, min(row[0] for row in rows).encode(), max(row[0] for row in rows).encode(),
            )  # fmt: skip
            if not occupied:
                session.copy(f"COPY {s.table} ({RECORD_COLUMNS}) FROM STDIN (FORMAT binary)", data)
                self._sample(session, generation, rows)
                return
        self._put_rows(session, generation, rows)

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        s = self.sql
        with contextlib.ExitStack() as stack:
            plan = stack.enter_context(_plan_file(excluding)) if excluding is not None else None
            session = stack.enter_context(self._operating(claim, unfenced=True))
            self._inactive(session, claim, target)
            if self._namespace(session, claim.namespace, HOLD).generation != source:
                self._own(session, claim, source)
            keys = self._next_keys(session, source, "" if after is None else after, limit)
            if not keys:
                return None
            texts = [lenient(key) for key in keys]
            gone = _in_plan(plan, texts) if plan is not None else set()
            names = names_of([key for key, text in zip(keys, texts) if text not in gone])
            columns = s.stored
            updates = ", ".join(f"{c} = excluded.{c}" for c in columns.split(", ")[3:])
            session.run(
                f"INSERT INTO {s.table} (generation, {columns}) SELECT %s, r.{columns.replace(', ', ', r.')} "
                f"FROM unnest(%s, %s) AS w(key, mark) {s.probe} "
                f"ON CONFLICT (generation, key, key_mark) DO UPDATE SET {updates}",
                target, *names, source,
            )  # fmt: skip
            session.run(
                f"INSERT INTO {s.sample} SELECT %s, key FROM {s.sample} WHERE generation = %s AND key >= %s "
                "AND key <= %s ON CONFLICT DO NOTHING",
                target, source, keys[0], keys[-1],
            )  # fmt: skip
        return str(texts[-1])

    def _next_keys(self, session: Session, generation: int, after: str, limit: int) -> list[bytes]:
        s = self.sql
        query = f"SELECT EXISTS (SELECT 1 FROM {s.table} WHERE generation = %s AND key_mark <> '')"
        long = session.row(query, generation)
        head, rest = split(after)[:2]
        values: tuple[t.Any, ...] = (generation, head, head, rest) if long[0] else (generation, head)
        bound = "key >= %s AND (key, key_rest) > (%s, %s)" if long[0] else "key > %s"
        order = "key, key_rest" if long[0] else "key"
        rows = session.rows(
            f"SELECT key || key_rest FROM {s.table} WHERE generation = %s AND {bound} ORDER BY {order} "
            f"LIMIT {int(limit)}",
            *values,
        )
        return [row[0] for row in rows]

    def _own(self, session: Session, claim: Claim, generation: int) -> None:
        row = session.row(
            f"SELECT 1 FROM {self.sql.generation} WHERE id = %s AND namespace = %s",
            generation, escaped(claim.namespace),
        )  # fmt: skip
        if row is None:
            raise CannotProceed(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "name one that it has"
            )

    def finish_switch(self, claim: Claim) -> None:
        """A switch is one write."""

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        with self._operating(claim) as session:
            active = self._namespace(session, claim.namespace, HOLD).generation
            if active == generation:
                return False
            self._own(session, claim, generation)
            if active != expected:
                raise CannotProceed(
                    f"Namespace {claim.namespace!r:.80} is at generation {active}, not {expected}.",
                    "make the plan again from the present state",
                )
            session.run(
                f"UPDATE {self.sql.namespace} SET generation = %s WHERE name = %s",
                generation, escaped(claim.namespace),
            )  # fmt: skip
        return True

    def drop_generation(self, claim: Claim, generation: int) -> int:
        s = self.sql
        dropped = 0
        last = (b"", b"")  # on from there: what was deleted is still to be walked over until a vacuum
        while True:
            with self._operating(claim, unfenced=True) as session:
                if generation != self._namespace(session, claim.namespace).generation and not session.row(
                    f"SELECT 1 FROM {s.generation} WHERE id = %s", generation
                ):
                    return dropped
                self._inactive(session, claim, generation)
                keys = session.rows(
                    f"SELECT key, key_mark FROM {s.table} WHERE generation = %s AND (key, key_mark) > (%s, %s) "
                    f"ORDER BY key, key_mark LIMIT {DROP_ROWS}",
                    generation, *last,
                )  # fmt: skip
                if keys:
                    dropped += session.run(
                        f"DELETE FROM {s.table} WHERE generation = %s AND (key, key_mark) > (%s, %s) "
                        "AND (key, key_mark) <= (%s, %s)",
                        generation, *last, *keys[-1],
                    )  # fmt: skip
                    last = keys[-1]
                    continue
                session.run(f"DELETE FROM {s.table} WHERE generation = %s AND key = ''", generation)
                session.run(f"DELETE FROM {s.sample} WHERE generation = %s", generation)
                session.run(f"DELETE FROM {s.generation} WHERE id = %s", generation)

    def generations(self, namespace: str) -> list[int]:
        with self._asking() as session:
            self._namespace(session, namespace)
            rows = session.rows(
                f"SELECT id FROM {self.sql.generation} WHERE namespace = %s ORDER BY id", escaped(namespace)
            )
        return [row[0] for row in rows]

    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        with self._operating(claim) as session:
            session.run(
                f"UPDATE {self.sql.namespace} SET restored_snapshot = %s, restored_epoch = %s, "
                "restored_sequence = %s, restored_at = %s, restored_digest = %s WHERE name = %s",
                snapshot, epoch, sequence, at, digest, escaped(claim.namespace),
            )  # fmt: skip
            self._keep_up(session, epoch, sequence, at)

    def adopt_lineage(self, lineage: str) -> bool:
        s = self.sql
        with self._transaction() as session:
            own, sequence = session.row(f"SELECT lineage, sequence FROM {s.store} {HOLD}")
            if own == lineage:
                return False
            if sequence or session.row(f"SELECT 1 FROM {s.table} LIMIT 1"):
                raise RepositoryRefused(
                    f"The store {self.path} has records of its own, of lineage {own}; the snapshot's is {lineage}.",
                    "restore into an empty store, or name the repository that belongs to this store",
                )
            session.run(f"UPDATE {s.store} SET lineage = %s", lineage)
        return True


@contextlib.contextmanager
def _plan_file(path: str) -> t.Iterator[sqlite3.Connection]:
    """Errors: InvalidInput."""
    if not os.path.isfile(path):
        raise InvalidInput(f"There is no plan file {path}.", "make the plan first")
    uri = "file:" + urllib.parse.quote(os.path.abspath(path)) + "?mode=ro"
    with sqlite_errors(path):
        con = sqlite3.connect(uri, uri=True)
    with contextlib.closing(con):
        yield con


def _in_plan(plan: sqlite3.Connection, keys: list[str]) -> set[str]:
    """Those of these ascending keys that the plan names."""
    found: set[str] = set()
    wanted = [key for key in keys if encodable(key)]
    for start in range(0, len(wanted), 400):
        part = wanted[start : start + 400]
        found.update(
            row[0] for row in plan.execute(f"SELECT key FROM plan WHERE key IN ({', '.join('?' * len(part))})", part)
        )
    return found
