# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading another application's tables at one point in time.

PRIVATE to the collection. The names of a namespace's records are not in the order of any index, so a cursor sorts the
names once, with the places of their rows, and the rows come page by page by their places, which in one snapshot do not
change. Generations that are not the active one, and what lies aside, are the collection's own rows.
"""
from __future__ import annotations

import itertools
import typing as t

from .._codec import encodable
from .._errors import InvalidInput, NamespaceUnknown
from .._layouts.tables import TablesLayout
from .._model import NamespaceState, Row, StoreIdentity
from .._store_optional import Gap, Links
from .._table_records import RecordName, parse_name
from . import checkpoint_parents
from .applications_own import ReaderWithoutLog
from .postgresql_arrays import Texts
from .postgresql_reader import PostgresqlReader
from .postgresql_rows import BATCH_BYTES
from .postgresql_schema import RecordsSql, quoted
from .postgresql_session import Session
from .tables_postgresql_schema import LiveRoot, need_unique, text_literal
from .tables_postgresql_sql import RootSql, checksummed, listed

UNMADE = 0  # the generation of a namespace that no operator ever touched
_WHOLE: t.Final = {"smallint": 15, "integer": 31, "bigint": 63}


class Live:
    """The application's tables, and the SQL for each."""

    def __init__(self, layout: TablesLayout, roots: tuple[LiveRoot, ...], version: int) -> None:
        self.layout, self.roots = layout, roots
        self.sql = [RootSql(root, version) for root in roots]

    def names(self, namespace: str) -> str:
        """name, number of the root, place, size of every record."""
        self.need_unique()
        return " UNION ALL ".join(sql.names(namespace, number) for number, sql in enumerate(self.sql))

    def records(self, namespace: str) -> str:
        """Every record with its checksum; the roots one after the other."""
        return " UNION ALL ".join(checksummed(records, namespace) for records in self._roots(namespace))

    def payloads(self, session: Session, namespace: str) -> t.Iterator[Row]:
        """Every record without its checksum, in no order, as the server comes to it."""
        for row in session.stream(
            "SELECT convert_to(q.name, 'UTF8'), q.created, q.updated, q.expires, q.payload, ''::bytea "
            f"FROM ({' UNION ALL '.join(self._roots(namespace))}) AS q"
        ):
            yield record(row)

    def _roots(self, namespace: str) -> list[str]:
        self.need_unique()
        return [
            f"{sql.records(namespace, f'{sql.live.table.name} r')} WHERE {sql.inside(namespace)}{sql.named}"
            for sql in self.sql
        ]

    def need_unique(self) -> None:
        """Errors: InvalidInput."""
        for live in self.roots:
            need_unique(live)

    def any(self, session: Session, namespace: str) -> bool:
        """Whether the namespace has rows. One that cannot be has none."""
        if "\0" in namespace or not encodable(namespace):
            return False
        try:
            tests = [f"EXISTS (SELECT 1 FROM {s.live.table.name} r WHERE {s.inside(namespace)})" for s in self.sql]
        except InvalidInput:
            return False
        return bool(session.row(f"SELECT {' OR '.join(tests)}")[0])

    def at(self, session: Session, namespace: str, number: int, places: t.Sequence[str]) -> list[Row]:
        """The records whose rows lie at these places."""
        sql = self.sql[number]
        if not sql.live.table.partitioned:
            source = f"unnest(%s::text[]::tid[]) AS w(place) JOIN {sql.live.table.name} r ON r.ctid = w.place"
            text = checksummed(sql.records(namespace, source), namespace)
            return [record(row) for row in session.rows(text, Texts(list(places)))]
        # rows of several partitions have the same place, each in its own
        source = (
            "unnest(%s::text[]::oid[], %s::text[]::tid[]) AS w(home, place) "
            f"JOIN {sql.live.table.name} r ON r.ctid = w.place AND r.tableoid = w.home"
        )
        text = checksummed(sql.records(namespace, source), namespace)
        homes = [place.partition("(")[0] for place in places]
        return [record(row) for row in session.rows(text, Texts(homes), Texts([p[p.index("(") :] for p in places]))]

    def find(
        self, session: Session, namespace: str, keys: t.Sequence[str], lock: str = ""
    ) -> dict[str, tuple[int, str]]:
        """Of those of these keys that have a row: the number of its root, and its place."""
        self.need_unique()
        found: dict[str, tuple[int, str]] = {}
        wanted: dict[int, list[tuple[str, RecordName]]] = {}
        roots = [live.root for live in self.roots]
        for key in dict.fromkeys(keys):
            if encodable(key) and "\0" not in key:
                try:
                    name = parse_name(roots, namespace, key)
                except InvalidInput:
                    continue
                number = roots.index(name.root)
                if possible(self.roots[number], name):
                    wanted.setdefault(number, []).append((key, name))
        for number, some in wanted.items():
            sql = self.sql[number]
            columns = key_columns(self.roots[number])
            arrays = [Texts([name.columns[column] for _key, name in some]) for column in columns]
            heads = ", ".join(f"c{n}" for n in range(len(columns)))
            same = " AND ".join(
                f"r.{quoted(column)} = w.c{n}::{sql.live.table.column(column).base}" for n, column in enumerate(columns)
            )
            rows = session.rows(
                f"SELECT w.key, {sql.place} FROM unnest({', '.join(['%s'] * (len(columns) + 1))}) "
                f"AS w(key{', ' + heads if heads else ''}) JOIN {sql.live.table.name} r ON {same or 'true'} "
                f"AND {sql.inside(namespace)} {lock}",
                Texts([key for key, _name in some]), *arrays,
            )  # fmt: skip
            found.update((key, (number, place)) for key, place in rows)
        return found

    def rows_of(self, session: Session, namespace: str, keys: t.Sequence[str], lock: str = "") -> dict[str, Row]:
        """The records of these keys; with ``lock`` their rows are held, and read after that."""
        found: dict[str, Row] = {}
        for start in range(0, len(keys), 500):
            places: dict[int, list[str]] = {}
            for number, place in self.find(session, namespace, keys[start : start + 500], lock).values():
                places.setdefault(number, []).append(place)
            for number, some in places.items():
                found.update((row[0], row) for row in self.at(session, namespace, number, some))
        return found


def key_columns(live: LiveRoot) -> list[str]:
    """The columns whose values a name gives."""
    rule = live.root.namespace
    return [*(() if rule.kind == "json" else rule.columns), *live.root.key]


def possible(live: LiveRoot, name: RecordName) -> bool:
    """Whether the columns can have these values: no cast must fail over a name that somebody mistyped."""
    for column, text in name.columns.items():
        base = live.table.column(column).base
        if base in _WHOLE:
            if not text.lstrip("-").isdigit() or abs(int(text)) >> _WHOLE[base]:
                return False
        elif base == "uuid" and (len(text) != 36 or any(c not in "0123456789abcdef-" for c in text)):
            return False
    return True


def record(row: t.Sequence[t.Any]) -> Row:
    name, created, updated, expires, payload, checksum = row
    return (name.decode(), 0, 0, created, updated, expires, None, "", payload, checksum)


class TablesReader(ReaderWithoutLog, PostgresqlReader):
    """See _store.Reader. ``made``: whether there are control tables."""

    _numbers = itertools.count()

    def __init__(
        self,
        session: Session,
        where: str,
        sql: RecordsSql,
        identity: StoreIdentity,
        release: t.Callable[[Session], None],
        live: Live,
        made: bool,
    ) -> None:
        super().__init__(session, where, sql, identity, release)
        self._live, self._made = live, made

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        found = {state.name: state for state in super().namespaces() if state.name} if self._made else {}
        for root in self._live.roots:
            for (name,) in self._session.rows(listed(root)):
                if name:
                    found.setdefault(name, NamespaceState(name, "serving", UNMADE, None, None, None))
        return [found[name] for name in sorted(found, key=str.encode)]

    def namespace(self, name: str) -> NamespaceState:
        if name not in self._known:
            try:
                if not self._made:
                    raise NamespaceUnknown(
                        f"The tables of {self._where} have no namespace {name!r:.80}.",
                        "name one of those that the playbook memops.agent_memory.info lists",
                    )
                return super().namespace(name)
            except NamespaceUnknown:
                if not self._live.any(self._session, name):
                    raise
            self._known[name] = NamespaceState(name, "serving", UNMADE, None, None, None)
        return self._known[name]

    def _active(self, namespace: str, generation: int | None) -> bool:
        return generation is None or generation == self.namespace(namespace).generation

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        if not self._active(namespace, generation):
            return super().count(namespace, generation)
        parts = [
            f"(SELECT count(*) FROM {sql.live.table.name} r WHERE {sql.inside(namespace)}{sql.named})"
            for sql in self._live.sql
        ]
        return int(self._session.row(f"SELECT {' + '.join(parts)}")[0])

    def scan(
        self,
        namespace: str,
        *,
        after: str | None = None,
        until: str | None = None,
        generation: int | None = None,
        batch: int = 2000,
        descending: bool = False,
    ) -> t.Iterator[list[Row]]:
        if not self._active(namespace, generation):
            return super().scan(
                namespace, after=after, until=until, generation=generation, batch=batch, descending=descending
            )
        edges = [] if after is None else [f'q.name COLLATE "C" > {text_literal(after)}']
        edges += [] if until is None else [f'q.name COLLATE "C" <= {text_literal(until)}']
        where = f" WHERE {' AND '.join(edges)}" if edges else ""
        query = (
            f"SELECT q.name, q.number, q.place, q.size FROM ({self._live.names(namespace)}) AS q{where} "
            f'ORDER BY q.name COLLATE "C"{" DESC" if descending else ""}'
        )
        return self._walk(namespace, query, batch)

    def _walk(self, namespace: str, query: str, batch: int) -> t.Iterator[list[Row]]:
        cursor = f"memops_{next(self._numbers)}"
        self._session.run(f"DECLARE {cursor} NO SCROLL CURSOR FOR {query}")
        while True:
            names = self._session.rows(f"FETCH {int(batch)} FROM {cursor}")
            part: list[t.Any] = []
            size = 0
            for one in names:
                part.append(one)
                size += one[3]
                if size > BATCH_BYTES:
                    yield self._page(namespace, part)
                    part, size = [], 0
            if part:
                yield self._page(namespace, part)
            if len(names) < batch:
                self._session.say(f"CLOSE {cursor}")
                return

    def _page(self, namespace: str, names: t.Sequence[t.Any]) -> list[Row]:
        places: dict[int, list[str]] = {}
        for _name, number, place, _size in names:
            places.setdefault(number, []).append(place)
        rows = {
            row[0]: row
            for number, some in places.items()
            for row in self._live.at(self._session, namespace, number, some)
        }
        return [rows[one[0]] for one in names]

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        if not self._active(namespace, generation):
            return super().get_many(namespace, keys, generation)
        return self._live.rows_of(self._session, namespace, keys)

    def needed(self, namespace: str, keys: t.Sequence[str]) -> list[str]:
        if "channel-without-value" not in self._live.layout.findings:
            return []
        from .tables_postgresql_channels import needed

        return needed(self._session, self._live, namespace, keys)

    def gaps(self, namespace: str) -> list[Gap]:
        if "checkpoint-without-parent" not in self._live.layout.findings:
            return []
        sql = next(one for one in self._live.sql if one.live.root.label == checkpoint_parents.LABEL)
        inside = sql.inside(namespace, "r")
        query = checkpoint_parents.parents(f"{sql.live.table.name} r", inside, '::text COLLATE "C"')
        return checkpoint_parents.gaps(self._session.rows(query))

    def links(self, row: Row) -> Links | None:
        return checkpoint_parents.links(row) if "checkpoint-without-parent" in self._live.layout.findings else None

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        rows = self.count(namespace)
        query = f'SELECT q.name FROM ({self._live.names(namespace)}) AS q ORDER BY q.name COLLATE "C"'
        cuts = sorted({rows * part // parts for part in range(1, parts)} - {0})
        if not cuts:
            return []
        numbers = ", ".join(map(str, cuts))
        found = self._session.rows(
            f"SELECT z.name FROM (SELECT p.name, row_number() OVER () AS n FROM ({query}) AS p) AS z "
            f"WHERE z.n IN ({numbers}) ORDER BY z.n"
        )
        return [row[0] for row in found]

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        return super().aside(namespace, incident) if self._made else iter(())
