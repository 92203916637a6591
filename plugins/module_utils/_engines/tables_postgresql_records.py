# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing the rows of another application's tables: by compare-and-set, each record with its companions.

PRIVATE to the collection. Rows come back by COPY into a temporary table and from there into their own, so that values
keep every bit, embeddings too, and nothing is computed anew.
"""
from __future__ import annotations

import abc
import struct
import typing as t

from .._errors import CannotProceed, InvalidInput, OutOfOrder
from .._model import Change, Claim, Row
from .._table_records import RecordName, TableRows, pack_row, parse_name, unpack
from .._words import counted
from .applications_own import ISOLATED
from .postgresql_arrays import Blobs, Ints, Texts
from .postgresql_operators import Operators
from .postgresql_rows import escaped
from .postgresql_schema import literal, quoted
from .postgresql_session import Session
from .tables_postgresql_others import deferred, itself, may_go, referring, spare, stands_alone
from .tables_postgresql_reader import Live, key_columns
from .tables_postgresql_room import make_room
from .tables_postgresql_schema import LiveRoot, Table
from .tables_postgresql_triggers import as_written, changing, settled

PART = 500  # records that one change looks at
T = t.TypeVar("T")
Shape = t.Tuple[t.Tuple[str, str], ...]  # name and type of each column
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)


class Prepared(t.NamedTuple):
    """Records of one root as COPY takes them."""

    number: int  # of the root
    first_key: str
    records: int
    tables: dict[str, tuple[Shape, bytes]]


class TablesRecords(Operators):
    """The part of ``Store`` that changes records."""

    live: Live
    _waiting = False  # rows may refer to each other in any order now

    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        for change in changes:
            self._check_row(change.row)
        with self._operating(claim, unfenced=True) as session:
            number = self._own_generation(session, claim, generation)
            if number != self._namespace(session, claim.namespace).generation:
                return self._change_inactive(session, claim, number, changes)
            with as_written(session, self.live, self._hold) as late:
                refused = self._in_any_order(session, lambda: self._change_all(session, claim, changes))
                if late:
                    settled(session)
                    last = {c.key: c.row for c in changes if c.key not in refused}
                    self._prove(session, claim.namespace, [row for row in last.values() if row is not None])
        return refused

    def _change_all(self, session: Session, claim: Claim, changes: t.Sequence[Change]) -> list[str]:
        refused: list[str] = []
        part: dict[str, Change] = {}
        for change in changes:
            # a key's second change sees its first; where rows wait for each other, all go together
            if change.key in part or (len(part) >= PART and not self._waiting):
                refused += self._change_live(session, claim, part)
                part = {}
            part[change.key] = change
        return refused + self._change_live(session, claim, part)

    def _in_any_order(self, session: Session, work: t.Callable[[], T]) -> T:
        """Where rows refer to rows that come later, or two have changed what only one may have, once more with foreign
        keys that wait: which keeps other writers from the tables meanwhile, and is seldom needed."""
        session.say("SAVEPOINT memops_order")
        try:
            return work()
        except OutOfOrder:
            session.say("ROLLBACK TO SAVEPOINT memops_order")
        with deferred(session, self.live, self._hold):
            self._waiting = True
            try:
                return work()
            finally:
                self._waiting = False

    @abc.abstractmethod
    def _hold(self, session: Session, names: t.Sequence[str], mode: str = "") -> None:
        """Wait in turns for a lock on these tables."""

    def _change_inactive(
        self, session: Session, claim: Claim, number: int, changes: t.Sequence[Change]
    ) -> list[str]:
        refused: list[str] = []
        for change in changes:
            refused += self._change(session, claim, number, {change.key: change})
        return refused

    def _change_live(self, session: Session, claim: Claim, part: dict[str, Change]) -> list[str]:
        name = claim.namespace
        there = self.live.rows_of(session, name, list(part), "FOR UPDATE OF r")
        refused: list[str] = []
        apply: list[Change] = []
        for key, change in part.items():
            live, row = there.get(key), None if change.row is None else tuple(change.row)
            if row == live:
                continue
            if live is None:
                if change.expected is not None or row is None:
                    refused += [] if row is None else [key]
                    continue
            elif change.expected is None or live[9] != change.expected:
                refused.append(key)
                continue
            apply.append(change)
        aside = [(there[c.key], c.aside) for c in apply if c.aside is not None and c.key in there]
        if aside:
            self._rows_aside(session, claim, aside)
        rows, gone = [c.row for c in apply if c.row is not None], [c.key for c in apply if c.row is None]
        first = bool(gone) and itself(referring(session, self.live))
        if not first:
            self._take_away(session, name, gone)
        self._put_live(session, name, rows)
        if first:
            self._take_away(session, name, gone)
        self._no_longer_aside(session, name, [row for row in rows if row[0] not in there])
        return refused

    def _check_row(self, row: Row | None) -> None:
        """Errors: InvalidInput for what no record of this store can be."""
        if row is not None and (row[6] is not None or row[7]):
            raise InvalidInput(
                f"The record {row[0]!r:.80} is none of the layout {self.live.layout.name}.",
                "take it from a snapshot of this store",
            )

    # --- aside --------------------------------------------------------------------------------------------------
    def _rows_aside(self, session: Session, claim: Claim, rows: t.Sequence[tuple[Row, str]]) -> None:
        session.run(
            f"INSERT INTO {self.sql.aside} (namespace, incident, reason, at, epoch, sequence, created, updated, "
            "expires, key, key_id, payload, checksum) SELECT %s, %s, w.reason, %s, 0, 0, w.created, w.updated, "
            "w.expires, w.key, '', w.payload, w.checksum FROM unnest(%s, %s, %s, %s, %s, %s, %s) "
            "AS w(key, reason, created, updated, expires, payload, checksum)",
            escaped(claim.namespace), claim.incident, self.clock(),
            Blobs([row[0].encode() for row, _why in rows]), Blobs([escaped(why) for _row, why in rows]),
            Ints([row[3] for row, _why in rows]), Ints([row[4] for row, _why in rows]),
            Ints([row[5] for row, _why in rows]), Blobs([row[8] for row, _why in rows]),
            Blobs([row[9] for row, _why in rows]),
        )  # fmt: skip

    def _no_longer_aside(self, session: Session, namespace: str, rows: t.Sequence[Row]) -> None:
        """What was isolated and is back in its place lies aside no more: the application may delete it now."""
        if rows:
            session.run(
                f"DELETE FROM {self.sql.aside} a USING unnest(%s, %s) AS w(key, checksum) WHERE a.namespace = %s "
                "AND a.key = w.key AND a.checksum = w.checksum AND starts_with(convert_from(a.reason, 'UTF8'), %s)",
                Blobs([row[0].encode() for row in rows]), Blobs([row[9] for row in rows]), escaped(namespace), ISOLATED,
            )  # fmt: skip

    # --- rows ---------------------------------------------------------------------------------------------------
    def _named(self, namespace: str, key: str) -> tuple[int, RecordName]:
        roots = [live.root for live in self.live.roots]
        name = parse_name(roots, namespace, key)
        return roots.index(name.root), name

    def _take_away(self, session: Session, namespace: str, keys: t.Sequence[str]) -> None:
        """Remove records with their companions; what refers to others first."""
        wanted: dict[int, list[RecordName]] = {}
        for key in keys:
            number, name = self._named(namespace, key)
            wanted.setdefault(number, []).append(name)
        others = referring(session, self.live) if wanted else []
        for number in sorted(wanted, reverse=True):
            live, names = self.live.roots[number], wanted[number]
            later = self._later(session, namespace, number)
            columns = key_columns(live)
            arrays = [Texts([name.columns[column] for name in names]) for column in columns]
            heads = ", ".join(f"c{n}" for n in range(len(columns)))
            given = f"unnest({', '.join(['%s'] * len(columns))}) AS w({heads})"
            same = " AND ".join(
                f"r.{quoted(column)} = w.c{n}::{live.table.column(column).base}" for n, column in enumerate(columns)
            )
            inside = self.live.sql[number].inside(namespace)
            spare(session, live, others, given, f"{same} AND {inside}", arrays)
            for companion, table in live.companions:
                pairs = " AND ".join(f"x.{quoted(own)} = r.{quoted(parent)}" for own, parent in companion.parent)
                session.run(
                    f"DELETE FROM {table.name} x USING {given}, {live.table.name} r "
                    f"WHERE {same} AND {inside} AND {pairs}",
                    *arrays,
                )
            session.run(f"DELETE FROM {live.table.name} r USING {given} WHERE {same} AND {inside}", *arrays)
            if self._later(session, namespace, number) != later:
                raise CannotProceed(
                    f"To remove a row of {live.table.plain} of {namespace!r:.80} would remove rows that belong to it.",
                    "remove those first, or rebuild the namespace with memory_strategy=hard",
                )

    def _later(self, session: Session, namespace: str, number: int) -> list[int]:
        """How many rows the tables have that may refer to this one."""
        return [
            session.row(f"SELECT count(*) FROM {sql.live.table.name} r WHERE {sql.inside(namespace)}")[0]
            for sql in self.live.sql[number + 1 :]
        ]

    def _put_live(
        self, session: Session, namespace: str, rows: t.Sequence[Row], prove: bool = True, away: bool = False
    ) -> None:
        """Insert or replace records. Errors: CannotProceed when a row cannot be put as it was, and nothing is.
        ``prove``: read them back; who does not looks at all of them before the commit. ``away``: only make room for
        those that wait for each other."""
        for part in self.prepared(namespace, rows):
            self._put_root(session, namespace, part, away)
        if prove:
            self._prove(session, namespace, rows)

    def _prove(self, session: Session, namespace: str, rows: t.Sequence[Row]) -> None:
        """Errors: CannotProceed when a record does not lie there as it was put."""
        back = self.live.rows_of(session, namespace, [row[0] for row in rows])
        for row in rows:
            found = back.get(row[0])
            if found is None or found[9] != row[9]:
                why, remedy = changing(session, self.live)
                raise CannotProceed(
                    f"The record {row[0]!r:.80} does not lie in the tables as it was put there: {why}.", remedy
                )

    def prepared(self, namespace: str, rows: t.Sequence[Row]) -> list[Prepared]:
        """What is put of these records, in the order in which their tables refer to each other. Asks no server.
        Errors: InvalidInput, CannotProceed."""
        # records whose tables had the same columns go together
        parts: dict[tuple[int, t.Any], list[tuple[Row, list[TableRows]]]] = {}
        for row in rows:
            number, _name = self._named(namespace, row[0])
            engine, tables = unpack(row[8])
            if engine != "postgresql" or tables[0].name != self.live.roots[number].table.plain:
                raise InvalidInput(
                    f"The record {row[0]!r:.80} is of {tables[0].name} ({engine}), which this store does not have.",
                    "take it from a snapshot of this store",
                )
            shape = tuple((one.name, one.columns) for one in tables)
            parts.setdefault((number, shape), []).append((row, tables))
        return [self._gathered(number, parts[number, shape]) for number, shape in sorted(parts)]

    def _gathered(self, number: int, some: t.Sequence[tuple[Row, list[TableRows]]]) -> Prepared:
        live = self.live.roots[number]
        known = {table.plain: table for table in live.tables}
        tables: dict[str, tuple[Shape, list[bytes]]] = {}
        for row, its in some:
            for one in its:
                table = known.get(one.name)
                data = tables.setdefault(one.name, (one.columns, [_COPY_HEAD]))[1]
                if table is None:
                    raise _other(row[0], one.name, "is not there")
                here = {column.name: column for column in table.columns}
                whose = [here.get(name) for name, _kind in one.columns]
                data += (pack_row([c.received(v) if c else v for c, v in zip(whose, cells)]) for cells in one.rows)
        copied = {name: (columns, b"".join([*data, b"\xff\xff"])) for name, (columns, data) in tables.items()}
        return Prepared(number, some[0][0][0], len(some), copied)

    def _put_root(self, session: Session, namespace: str, part: Prepared, away: bool) -> None:
        live, gathered = self.live.roots[part.number], part.tables
        known = {table.plain: table for table in live.tables}
        for name, (columns, data) in gathered.items():
            self._fill(session, known[name], columns, data, part.first_key)
        inside = self.live.sql[part.number].inside(namespace, "t")
        own = [name for name, _kind in gathered[live.table.plain][0]]
        target = ", ".join(map(quoted, live.target))
        mine = [live.table.column(name) for name in own]
        keys = " AND ".join(f"t.{quoted(c)} = {live.table.column(c).taken('w.')}" for c in live.target)
        fixed = [c for c in mine if c.always and c.name not in live.target]
        if fixed:  # a row whose identity is another one cannot be given it
            other = " OR ".join(f"t.{quoted(c.name)} IS DISTINCT FROM w.{quoted(c.name)}" for c in fixed)
            same = f"{_temporary(live.table)} w WHERE {keys} AND {inside}"
            session.run(f"DELETE FROM {live.table.name} t USING {same} AND ({other})")
        alone = len(live.table.unique) > 1 and stands_alone(session, live)
        # what is unique beside the key may have changed places among these rows
        if alone or (self._waiting and may_go(session, live)):
            session.run(f"DELETE FROM {live.table.name} t USING {_temporary(live.table)} w WHERE {keys} AND {inside}")
        elif self._waiting:
            make_room(session, live, own, f"{_temporary(live.table)} w WHERE {keys} AND {inside}")
        if away:
            return
        free = [quoted(c.name) for c in mine if c.name not in live.target and not c.always]
        sets = ", ".join(f"{c} = excluded.{c}" for c in free)
        done = session.run(
            f"INSERT INTO {live.table.name} AS t ({', '.join(map(quoted, own))}) OVERRIDING SYSTEM VALUE "
            f"SELECT {', '.join(c.taken() for c in mine)} FROM {_temporary(live.table)} ON CONFLICT ({target}) DO "
            + (f"UPDATE SET {sets} WHERE {inside}" if sets else "NOTHING")
        )
        if done != part.records and sets:
            raise CannotProceed(
                f"{counted(part.records - done, 'record')} of {namespace!r:.80} cannot come back: rows with such "
                "keys belong to another namespace now.",
                "restore into another database in which the application made its tables (memory_store.url), or, where "
                "these rows are not needed, remove them first (an export names the keys)",
            )
        for companion, table in live.companions:
            same = " AND ".join(f"x.{quoted(o)} = {live.table.column(p).taken('w.')}" for o, p in companion.parent)
            session.run(f"DELETE FROM {table.name} x USING {_temporary(live.table)} w WHERE {same}")
            if table.plain in gathered:
                given = [table.column(name) for name, _kind in gathered[table.plain][0]]
                session.run(
                    f"INSERT INTO {table.name} ({', '.join(quoted(c.name) for c in given)}) OVERRIDING SYSTEM VALUE "
                    f"SELECT {', '.join(c.taken() for c in given)} FROM {_temporary(table)}"
                )
        for name in gathered:
            self._number_on(session, known[name], [one for one, _kind in gathered[name][0]])

    def _fill(
        self, session: Session, table: Table, columns: Shape, data: bytes, key: str
    ) -> None:
        """A temporary table with these rows."""
        kinds = {column.name: column.kind for column in table.columns}
        for name, kind in columns:
            if name not in kinds:
                raise _other(key, table.plain, f"has no column {name} now")
            if kinds[name] != kind:
                raise _other(key, table.plain, f"has {name} as {kinds[name]} now, which was {kind}")
        names = ", ".join(quoted(name) for name, _kind in columns)
        temporary = _temporary(table)
        # One for all parts of a transaction: each one takes room in the server's table of locks until its end.
        held = ", ".join(quoted(c.name) + (f"::text AS {quoted(c.name)}" if c.as_text else "") for c in table.columns)
        empty = f"AS SELECT {held} FROM {table.name} LIMIT 0"
        session.say(f"CREATE TEMPORARY TABLE IF NOT EXISTS {temporary} ON COMMIT DROP {empty}")
        session.say(f"TRUNCATE {temporary}")
        session.copy(f"COPY {temporary} ({names}) FROM STDIN (FORMAT binary)", data)

    def _number_on(self, session: Session, table: Table, columns: t.Sequence[str]) -> None:
        """A sequence never gives out again what a row that came back has."""
        for column in table.columns:
            if column.sequence is not None and column.name in columns:
                session.rows(
                    f"SELECT setval({literal(column.sequence)}::regclass, w.top) FROM "
                    f"(SELECT max({quoted(column.name)}) AS top FROM {_temporary(table)}) AS w, {column.sequence} AS s "
                    "WHERE w.top > s.last_value OR (w.top = s.last_value AND NOT s.is_called)"
                )


def _temporary(table: Table) -> str:
    return "pg_temp." + quoted(f"memops_{table.oid}")


def _other(key: str, table: str, why: str) -> CannotProceed:
    return CannotProceed(
        f"The record {key!r:.80} cannot come back: the table {table} {why}.",
        "bring the tables to the framework's version that the snapshot was taken with, then run the same command again",
    )


def begins(live: LiveRoot) -> str:
    """What keys of this root's records begin with; all of the key where there is one record."""
    root = live.root
    return root.label if not root.key else f"{root.label}/" if root.label else ""


def of_root(live: LiveRoot, key: str) -> bool:
    return key.startswith(begins(live)) if live.root.key else key == begins(live)
