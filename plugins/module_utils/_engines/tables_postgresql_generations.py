# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing a namespace of another application's tables all at once, from records that were staged and checked.

PRIVATE to the collection. A generation that is not the active one is rows of the collection's own. ``switch`` puts them
into the tables in one transaction, under the fence: what is the same in both stays where it is (no index is touched
for it), the rest goes and comes in the order in which the tables refer to each other; before it is committed, every
record is read back and compared. The former records become the former generation, for ``undo``.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed, InvalidInput
from .._extra_vars import run
from .._model import Claim, NamespaceState, Row
from .postgresql_arrays import Ints
from .postgresql_generations import Generations, _in_plan, _plan_file
from .postgresql_operators import HOLD
from .postgresql_rows import HEAD_BYTES, escaped
from .postgresql_session import Session
from .tables_postgresql_fence import TablesFence
from .tables_postgresql_indexes import MANY, analyze, built_after
from .tables_postgresql_others import itself, referring
from .tables_postgresql_reader import Live, record
from .tables_postgresql_records import Prepared, begins, of_root
from .tables_postgresql_schema import text_literal
from .tables_postgresql_triggers import as_written, changing, settled

PAGE = 1000  # records of one step of a switch
#: The key of a live record v as the collection's own table stores it: key, key_mark, and key_rest between them.
_HEAD: t.Final = f"substring(v.name FROM 1 FOR {HEAD_BYTES})"
_REST: t.Final = f"substring(v.name FROM {HEAD_BYTES + 1})"
_MARK: t.Final = f"CASE WHEN octet_length(v.name) > {HEAD_BYTES} THEN sha256({_REST}) ELSE ''::bytea END"


class TablesGenerations(TablesFence, Generations):
    """The generations' part of ``Store``."""

    live: Live

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        name = claim.namespace
        with contextlib.ExitStack() as stack:
            plan = stack.enter_context(_plan_file(excluding)) if excluding is not None else None
            session = stack.enter_context(self._operating(claim, unfenced=True))
            self._inactive(session, claim, target)
            if source != self._namespace(session, name, HOLD).generation:
                raise InvalidInput(f"Generation {source} is not the active one.", "copy the active one")
            edge = "" if after is None else f' WHERE q.name COLLATE "C" > {text_literal(after)}'
            found = session.rows(
                f"SELECT q.name, q.number, q.place FROM ({self.live.names(name)}) AS q{edge} "
                f'ORDER BY q.name COLLATE "C" LIMIT {int(limit)}'
            )
            if not found:
                return None
            gone = _in_plan(plan, [row[0] for row in found]) if plan is not None else set()
            places: dict[int, list[str]] = {}
            for key, number, place in found:
                if key not in gone:
                    places.setdefault(number, []).append(place)
            for number, some in places.items():
                for start in range(0, len(some), PAGE):
                    rows = self.live.at(session, name, number, some[start : start + PAGE])
                    self._put_rows(session, target, rows)
        return str(found[-1][0])

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        name, s = claim.namespace, self.sql
        with self._operating(claim, unfenced=True) as session:
            if not self._may_switch(session, claim, generation, expected):
                return False
            session.run(f"DELETE FROM {s.table} WHERE generation = %s", expected)
            session.run(
                f"INSERT INTO {s.table} (generation, key, key_rest, key_mark, epoch, sequence, created, updated, "
                f"expires, key_id, payload, checksum) SELECT %s, {_HEAD}, {_REST}, {_MARK}, 0, 0, v.created, "
                f"v.updated, v.expires, '', v.payload, v.checksum FROM ({self.live.records(name)}) AS v",
                expected,
            )
            with built_after(session, self, name, self._staged(session, generation)):
                with as_written(session, self.live, self._hold):
                    self._in_any_order(session, lambda: self._replace(session, name, generation, expected))
            self._compare(session, name, generation)
            session.run(f"DELETE FROM {s.table} WHERE generation = %s", generation)
            session.run(f"UPDATE {s.namespace} SET generation = %s WHERE name = %s", generation, escaped(name))
        return True

    def _may_switch(self, session: Session, claim: Claim, generation: int, expected: int) -> bool:
        """False when it is done. Errors: CannotProceed."""
        space = self._namespace(session, claim.namespace, HOLD)
        if space.generation == generation:
            return False
        self._own(session, claim, generation)
        if space.generation != expected:
            raise CannotProceed(
                f"Namespace {claim.namespace!r:.80} is at generation {space.generation}, not {expected}.",
                "make the plan again from the present state",
            )
        self._needs_fence(session, space)
        return True

    def _staged(self, session: Session, generation: int) -> int:
        return int(session.row(f"SELECT count(*) FROM {self.sql.table} WHERE generation = %s", generation)[0])

    # --- straight into the tables -------------------------------------------------------------------------------
    def arranged(self, namespace: str, rows: t.Sequence[Row]) -> t.Any:
        return self.prepared(namespace, rows)

    @contextlib.contextmanager
    def direct(self, claim: Claim, generation: int, expected: int, records: int) -> t.Iterator[_Direct | None]:
        name, s = claim.namespace, self.sql
        with self._operating(claim, unfenced=True) as session:
            if not self._may_switch(session, claim, generation, expected) or not self._in_key_order(session, name):
                yield None
                return
            session.run(f"DELETE FROM {s.table} WHERE generation = %s", expected)
            with built_after(session, self, name, records), as_written(session, self.live, self._hold):
                yield _Direct(self, session, name)
            session.run(f"UPDATE {s.namespace} SET generation = %s WHERE name = %s", generation, escaped(name))

    def _in_key_order(self, session: Session, name: str) -> bool:
        """Whether the namespace has no rows, and rows can come in the order of their keys: none refers to one that
        comes later."""
        oids = Ints([table.oid for root in self.live.roots for table in root.tables])
        return len(self.live.roots) == 1 and not self.live.any(session, name) and not session.row(
            "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND conrelid = confrelid "
            "AND conrelid::bigint = ANY(%s))",
            oids,
        )[0]  # fmt: skip

    def _sample(self, session: Session, generation: int, rows: t.Sequence[Row]) -> None:
        """Where to cut a namespace the application's own rows tell."""

    def _replace(self, session: Session, name: str, new: int, old: int) -> None:
        s = self.sql
        same = "o.key = n.key AND o.key_mark = n.key_mark"
        gone = [
            row[0].decode()
            for row in session.rows(
                f"SELECT o.key || o.key_rest FROM {s.table} o WHERE o.generation = %s AND NOT EXISTS (SELECT 1 FROM "
                f"{s.table} n WHERE n.generation = %s AND {same}) ORDER BY o.key, o.key_rest",
                old, new,
            )
        ]  # fmt: skip
        first = bool(gone) and itself(referring(session, self.live))
        if not first:
            self._take_all_away(session, name, gone)
        if self._waiting:  # what only one row may have may lie in another page
            self._replace_changed(session, name, new, old, away=True)
        self._replace_changed(session, name, new, old)
        if first:
            self._take_all_away(session, name, gone)

    def _take_all_away(self, session: Session, name: str, gone: t.Sequence[str]) -> None:
        for live in reversed(self.live.roots):
            away = [key for key in gone if of_root(live, key)]
            for start in range(0, len(away), PAGE):
                self._take_away(session, name, away[start : start + PAGE])

    def _replace_changed(self, session: Session, name: str, new: int, old: int, away: bool = False) -> None:
        s = self.sql
        same = "o.key = n.key AND o.key_mark = n.key_mark"
        put, known = 0, False
        for live in self.live.roots:
            head = begins(live).encode()
            after: list[t.Any] = [head[:-1], b""]
            mine = f"substring(n.key FROM 1 FOR {len(head)})" if live.root.key else "n.key"
            while True:
                rows = session.rows(
                    "SELECT n.key || n.key_rest, n.created, n.updated, n.expires, n.payload, n.checksum, n.key, "
                    f"n.key_mark FROM {s.table} n WHERE n.generation = %s AND (n.key, n.key_mark) > (%s, %s) "
                    f"AND {mine} = %s AND NOT EXISTS (SELECT 1 FROM {s.table} o "
                    f"WHERE o.generation = %s AND {same} AND o.checksum = n.checksum AND n.checksum <> ''::bytea) "
                    f"ORDER BY n.key, n.key_mark LIMIT {PAGE // 2}",
                    new, *after, head, old,
                )  # fmt: skip
                if not rows:
                    break
                after = list(rows[-1][6:8])
                self._put_live(session, name, [record(row[:6]) for row in rows], prove=False, away=away)
                put += 0 if away else len(rows)
                if put >= MANY and not known:
                    known = True
                    analyze(session, self.live)

    def _compare(self, session: Session, name: str, generation: int) -> None:
        """Errors: CannotProceed when the tables do not hold exactly the staged records."""
        s = self.sql
        there, equal = session.row(
            f"SELECT count(*), count(n.key) FROM ({self.live.records(name)}) AS v LEFT JOIN LATERAL (SELECT n.key FROM "
            f"{s.table} n WHERE n.generation = %s AND n.key = {_HEAD} AND n.key_mark = {_MARK} "
            "AND n.checksum = v.checksum OFFSET 0) AS n ON true",
            generation,
        )
        staged = self._staged(session, generation)
        if not there == equal == staged:
            why, remedy = changing(session, self.live)
            raise CannotProceed(
                f"The tables would not hold what was staged for {name!r:.80} ({equal} of {staged} records, among "
                f"{there}): {why}. Nothing was changed.",
                remedy,
            )

    def _needs_fence(self, session: Session, space: NamespaceState) -> None:
        """Errors: CannotProceed when applications may write while rows are replaced."""
        if space.state != "serving" and not self.fence_lost(session):
            return
        if space.state == "serving" and not self.live.any(session, space.name):
            return
        raise CannotProceed(
            f"Applications can reach the rows of {space.name!r:.80}; they are not replaced under their hands.",
            f"isolate it first: {run('isolate', memory_namespace=space.name)}",
        )


class _Direct:
    """See _store_optional.DirectRows."""

    def __init__(self, store: TablesGenerations, session: Session, namespace: str) -> None:
        self._store, self._session, self._namespace, self._done = store, session, namespace, 0

    def put(self, arranged: t.Sequence[Prepared]) -> None:
        for part in arranged:
            self._store._put_root(self._session, self._namespace, part, away=False)
            if self._done < MANY <= self._done + part.records:
                analyze(self._session, self._store.live)
            self._done += part.records

    def rows(self) -> t.Iterator[Row]:
        settled(self._session)
        return self._store.live.payloads(self._session, self._namespace)

    def waited_for(self) -> bool:
        return bool(
            self._session.row(
                "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database()) AND relation::bigint = ANY(%s))",
                self._store._homes(),
            )[0]
        )

    def changing(self) -> tuple[str, str]:
        return changing(self._session, self._store.live)
