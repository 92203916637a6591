# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading a PostgreSQL store at one point in time.

PRIVATE to the collection.

Rows come page by page, each by a query of its own on the primary key: many streams run side by side in one transaction,
a stream that is left costs nothing, and a page is bounded in rows and bytes.
"""
from __future__ import annotations

import typing as t
from functools import partial

from .._codec import encodable, log_checksum
from .._errors import NamespaceUnknown, StoreDamaged
from .._log_parts import LogPart
from .._model import LastWrite, LogEntry, NamespaceState, Row, StoreIdentity
from .._store import Checked
from .control_rows import astray
from .postgresql_arrays import Blobs
from .postgresql_connect import NAMESPACE_COLUMNS, namespace_state, read_namespace, wall_clock
from .postgresql_control import astray_rows
from .postgresql_copying import packed_record
from .postgresql_log_parts import log_parts
from .postgresql_rows import bounded, decoded, escaped, lenient, payload_fetcher, rows_of, split
from .postgresql_schema import WRITES, RecordsSql
from .postgresql_session import Session
from .postgresql_structure import structure

ENOUGH_SAMPLES = 32  # for each part; fewer, and counting is fast anyway
# what the NamedTuples' own _make does, without a Python call for each row
_log_entry: t.Callable[[Row], LogEntry] = partial(tuple.__new__, LogEntry)
_last_write: t.Callable[[Row], LastWrite] = partial(tuple.__new__, LastWrite)
_LOG_KEY = "CASE WHEN l.key_rest IS NULL THEN l.key ELSE l.key || l.key_rest END AS whole_key"
Query = t.Callable[[t.Any, int], t.Tuple[str, t.Sequence[t.Any]]]


class PostgresqlReader:
    """A read transaction that has just begun. ``release`` gets its session back when it is closed."""

    def __init__(
        self,
        session: Session,
        where: str,
        sql: RecordsSql,
        identity: StoreIdentity,
        release: t.Callable[[Session], None],
    ) -> None:
        self._session, self._where, self._sql, self._release = session, where, sql, release
        self.identity = identity
        self._closed = False
        self._known: dict[str, NamespaceState] = {}
        session.rescue = True
        self.at = wall_clock()

    def __enter__(self) -> PostgresqlReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release(self._session)

    def _pages(self, query: Query, position: t.Any, batch: int) -> t.Iterator[list[t.Any]]:
        """Pages of a query that begins behind a position, which is a row's first field. Before a damaged place pages
        become smaller, so that all that can be read is."""
        limit = batch
        while True:
            text, values = query(position, limit)
            try:
                rows = self._session.rows(text, *values)
            except StoreDamaged:
                if limit == 1:
                    raise
                limit = max(1, limit // 10)
                continue
            if rows:
                position = rows[-1][0]
                yield rows
            if len(rows) < limit:
                return

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        """Errors: NamespaceDamaged: a list without such a namespace would be taken for all there are."""
        for name, why in astray_rows(self._session, self._sql):
            raise astray(name, why)
        rows = self._session.rows(f"SELECT {NAMESPACE_COLUMNS} FROM {self._sql.namespace} ORDER BY name")
        return [namespace_state(row) for row in rows]

    def namespace(self, name: str) -> NamespaceState:
        if name not in self._known:
            self._known[name] = read_namespace(self._session, self._sql, name, self._where)
        return self._known[name]

    def moved(self, namespace: str) -> bool:
        return False

    def _generation(self, namespace: str, generation: int | None) -> int:
        active = self.namespace(namespace).generation
        if generation is None or generation == active:
            return active
        row = self._session.row(
            f"SELECT 1 FROM {self._sql.generation} WHERE id = %s AND namespace = %s", generation, escaped(namespace)
        )
        if row is None:
            raise NamespaceUnknown(
                f"Namespace {namespace!r:.80} has no generation {generation}.", "name one that the info module lists"
            )
        return generation

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        number = self._generation(namespace, generation)
        return int(self._session.row(f"SELECT count(*) FROM {self._sql.table} WHERE generation = %s", number)[0])

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
        s, number = self._sql, self._generation(namespace, generation)
        low = b"" if after is None else after.encode()
        high = None if until is None else until.encode()
        long = self._has_long_keys(number)
        way = " DESC" if descending else ""

        def query(position: bytes | None, limit: int) -> tuple[str, list[t.Any]]:
            values: list[t.Any] = [number]
            lower, upper = (low, high if position is None else position) if descending else (position or low, high)
            text = f"SELECT {s.long if long else s.short} FROM {s.table} r WHERE r.generation = %s"
            text += _above("r.key", "r.key_rest", lower, long, values)
            if upper is not None:
                text += _upto("r.key", "r.key_rest", upper, long, values, descending and position is not None)
            order = f"r.key{way}, r.key_rest{way}" if long else f"r.key{way}"
            return f"{text} ORDER BY {order} LIMIT {limit}", values

        fetch = payload_fetcher(self._session, s, number)
        for page in self._pages(query, None, batch):
            for part in bounded(page, fetch):
                rows = decoded(part)
                if rows:
                    yield rows

    def _has_long_keys(self, generation: int) -> bool:
        text = f"SELECT EXISTS (SELECT 1 FROM {self._sql.table} WHERE generation = %s AND key_mark <> '')"
        return bool(self._session.row(text, generation)[0])

    def packed_rows(
        self, namespace: str, generation: int, ranges: t.Sequence[tuple[str | None, str]]
    ) -> list[bytes]:
        """See _store_optional.PackedRows. The server puts them together, so that no row becomes values on the way."""
        number = self._generation(namespace, generation)
        if self._has_long_keys(number):
            return []
        s = self._sql
        rows = self._session.rows(
            f"SELECT coalesce(x.body, '') FROM unnest(%s, %s) WITH ORDINALITY AS w(low, high, number) "
            f"CROSS JOIN LATERAL (SELECT string_agg({packed_record('r')}, '') AS body FROM (SELECT * FROM {s.table} r "
            "WHERE r.generation = %s AND r.key > w.low AND r.key <= w.high ORDER BY r.key OFFSET 0) AS r) AS x "
            "ORDER BY w.number",
            Blobs([(after or "").encode() for after, _until in ranges]),
            Blobs([until.encode() for _after, until in ranges]), number,
        )  # fmt: skip
        return [row[0] for row in rows]

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        return rows_of(self._session, self._sql, self._generation(namespace, generation), keys)

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        number = self._generation(namespace, None)
        s = self._sql
        rows = self._session.row(f"SELECT count(*) FROM {s.sample} WHERE generation = %s", number)[0]
        table = s.sample
        if rows < ENOUGH_SAMPLES * parts:
            rows, table = self.count(namespace), s.table
        found: list[bytes] = []
        passed = 0
        for part in range(1, parts):
            skip = rows * part // parts - passed  # on from the cut before: all of them cost one pass
            if skip > 0:
                row = self._session.row(
                    f"SELECT key FROM {table} WHERE generation = %s AND key > %s ORDER BY key "
                    f"LIMIT 1 OFFSET {skip - 1}",
                    number, found[-1] if found else b"",
                )  # fmt: skip
                if row is None:
                    break
                found.append(row[0])
                passed += skip
        return [text for text in map(lenient, found) if encodable(text)]

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        s = self._sql
        of = "" if incident is None else "AND r.incident = %s "
        columns = s.short.replace("r.key AS whole_key", "r.key")

        def query(position: int, limit: int) -> tuple[str, list[t.Any]]:
            values: list[t.Any] = [position, escaped(namespace), *([] if incident is None else [incident])]
            return (
                f"SELECT r.id, r.incident, r.reason, {columns} FROM {s.aside} r "
                f"WHERE r.id > %s AND r.namespace = %s {of}ORDER BY r.id LIMIT {limit}"
            ), values

        def fetch(function: str, rows: t.Sequence[t.Any]) -> t.Mapping[t.Any, t.Any]:
            ids = [row[0] for row in rows]
            return dict(self._session.rows(f"SELECT id, {function}(payload) FROM {s.aside} WHERE id = ANY(%s)", ids))

        for page in self._pages(query, 0, 2000):
            for part in bounded(page, fetch, 11):
                yield [(r[1], lenient(r[2]), (lenient(r[3]), *r[4:10], lenient(r[10]), *r[11:])) for r in part]

    # --- log ----------------------------------------------------------------------------------------------------
    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        where = "" if namespace is None else " AND l.namespace = %s"
        where += "" if operations is None else " AND l.operation = ANY(%s)"
        fixed: list[t.Any] = ([] if namespace is None else [escaped(namespace)]) + (
            [] if operations is None else [list(operations)]
        )
        for page in self._log_pages(where, fixed, after_id, batch):
            yield list(map(_log_entry, page))

    def _log_pages(self, where: str, fixed: list[t.Any], after_id: int, batch: int) -> t.Iterator[list[Row]]:
        def query(position: int, limit: int) -> tuple[str, list[t.Any]]:
            return (
                f"SELECT l.id, l.at, l.namespace, l.operation, {_LOG_KEY}, l.epoch, l.sequence, l.digest, l.lock, "
                f"l.actor, l.reason, l.checksum FROM {self._sql.log} l WHERE l.id > %s{where} ORDER BY l.id "
                f"LIMIT {limit}"
            ), [position, *fixed]

        for page in self._pages(query, after_id, batch):
            yield [
                (*r[:2], lenient(r[2]), r[3], lenient(r[4]), *r[5:9], lenient(r[9]), lenient(r[10]), r[11])
                for r in page
            ]

    def log_rows(self, after_id: int, until_id: int, batch: int = 1000) -> t.Iterator[list[Row]]:
        """The entries with after_id < id <= until_id as plain tuples: to copy the log, not to look into it."""
        return self._log_pages(" AND l.id <= %s", [until_id], after_id, batch)

    def log_parts(self, after_id: int, until_id: int, *, compared: bool = False) -> t.Iterator[LogPart | list[Row]]:
        """What ``log_rows`` gives, put together by the server where it can be."""
        return log_parts(self._session, self._sql.log, after_id, until_id, self.log_rows)

    def log_count(self, after_id: int, until_id: int) -> int:
        """How many entries ``log_rows`` would give."""
        text = f"SELECT count(*) FROM {self._sql.log} WHERE id > %s AND id <= %s"
        return int(self._session.row(text, after_id, until_id)[0])

    def log_end(self) -> int:
        """The highest id; 0 when the log is empty."""
        return int(self._session.row(f"SELECT coalesce(max(id), 0) FROM {self._sql.log}")[0])

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        name = escaped(namespace)
        long = bool(
            self._session.row(
                f"SELECT EXISTS (SELECT 1 FROM {self._sql.log} WHERE namespace = %s AND key_rest IS NOT NULL)", name
            )[0]
        )
        low = b"" if after is None else after.encode()
        high = None if until is None else until.encode()
        rest = "coalesce(l.key_rest, '')"

        def query(position: bytes | None, limit: int) -> tuple[str, list[t.Any]]:
            values: list[t.Any] = [name]
            order = f"l.key, {rest}" if long else "l.key"
            text = (
                f"SELECT DISTINCT ON ({order}) {_LOG_KEY}, l.epoch, l.sequence, l.operation, l.digest, l.lock, "
                f"l.actor, l.at FROM {self._sql.log} l WHERE l.namespace = %s AND l.{WRITES}"
            )
            text += _above("l.key", rest, position or low, long, values)
            if high is not None:
                text += _upto("l.key", rest, high, long, values)
            return f"{text} ORDER BY {order}, l.epoch DESC, l.sequence DESC LIMIT {limit}", values

        for page in self._pages(query, None, batch):
            found = [_last_write((lenient(r[0]), *r[1:6], lenient(r[6]), r[7])) for r in page]
            found = [one for one in found if encodable(one[0])]
            if found:
                yield found

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        entries = corrupt = 0
        ends: list[tuple[int, int]] = []
        for rows in self.log():
            entries += len(rows)
            sound = [log_checksum(entry) == entry[11] for entry in rows]
            corrupt += sound.count(False)
            if each is not None:
                each(rows, sound)
            ends += [(e[5] or 0, e[6] or 0) for e in rows if e[3] in ("write", "delete")]
            ends = [min(ends), max(ends)] if ends else []
        s = self._sql
        wanted = self._session.row(f"SELECT coalesce(sum(last - first + 1), 0)::bigint FROM {s.given}")[0]
        present = self._session.row(
            f"SELECT count(*) FROM (SELECT DISTINCT l.epoch, l.sequence FROM {s.given} g JOIN {s.log} l "
            f"ON l.epoch = g.epoch AND l.sequence BETWEEN g.first AND g.last WHERE l.{WRITES}) AS found"
        )[0]
        first = self._session.row(f"SELECT epoch, first - 1 FROM {s.given} ORDER BY epoch, first LIMIT 1")
        missing = wanted - present
        return {
            "entries": entries,
            "corrupt": corrupt,
            "missing": missing,
            "first_sequence": ends[0][1] if ends else 0,
            "last_sequence": ends[1][1] if ends else 0,
            "intact": not corrupt and not missing,
            "pruned": tuple(first) if first else (self.identity.epoch, self.identity.sequence),
        }

    # --- structure ----------------------------------------------------------------------------------------------
    def structure(self) -> list[str]:
        try:
            return structure(self._session, self._sql)
        except StoreDamaged as exc:  # all else, a connection that is lost, says nothing about the store
            return [exc.message]


def _above(key: str, rest: str, bound: bytes, long: bool, values: list[t.Any]) -> str:
    head, tail = split(bound)[:2]
    if not long:  # every key is shorter than a head that was cut off
        values.append(head)
        return f" AND {key} > %s"
    values += (head, head, tail)
    return f" AND {key} >= %s AND ({key}, {rest}) > (%s, %s)"


def _upto(key: str, rest: str, bound: bytes, long: bool, values: list[t.Any], below: bool = False) -> str:
    head, tail = split(bound)[:2]
    if not long:
        values.append(head)
        return f" AND {key} {'<' if below else '<='} %s"
    values += (head, head, tail)
    return f" AND {key} <= %s AND ({key}, {rest}) {'<' if below else '<='} (%s, %s)"
