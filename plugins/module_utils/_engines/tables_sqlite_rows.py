# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows of another application's tables as records, from the tables that hold them.

PRIVATE to the collection. Whatever is read is first brought into tables that hold rows (see tables_sqlite_sql): those
of the store where a namespace is quarantined or staged, temporary ones where it serves.
"""
from __future__ import annotations

import array
import base64
import json
import sqlite3
import typing as t

from .._codec import RecordCodec
from .._errors import CannotProceed, InvalidInput, RecordCorrupt
from .._model import Row
from .._table_records import header, pack, parse_name, unpack
from .._table_values import sqlite_cell, sqlite_value
from .tables_sqlite_sql import Schema, Table, holds, name
from .tables_sqlite_times import BadTime, microseconds

BATCH_BYTES = 8 << 20
KEYS_PER_QUERY = 400
ONE = -1  # the generation under which single records are brought
Found = t.Tuple[t.Any, ...]


class Records:
    """Records of one schema, on one connection."""

    def __init__(self, con: sqlite3.Connection, schema: Schema, path: str) -> None:
        self.con, self.schema, self.path = con, schema, path
        self._codecs: dict[str, RecordCodec] = {}
        self._heads: dict[tuple[str, ...], bytes] = {}
        self._made = False
        # sorted as their keys are
        self._roots = sorted(schema.roots, key=lambda root: (root.root.label + "/").encode())

    # --- bringing -----------------------------------------------------------------------------------------------
    def hold(self) -> None:
        """Make the temporary tables that hold rows."""
        if not self._made:
            for table in self.schema.tables:
                for text in table.make_held("temp"):
                    self.con.execute(text)
            self._made = True

    def bring(self, namespace: str, number: int) -> None:
        """Copy the rows of a namespace from the application's tables into the temporary ones."""
        self.hold()
        for table in self.schema.tables:
            self.con.execute(*table.copy_out("temp", number, namespace))

    def live(self, namespace: str, keys: t.Iterable[str]) -> dict[str, Row]:
        """The records of these keys as the application's tables have them now."""
        self.hold()
        wanted: dict[str, list[tuple[str, ...]]] = {}
        for key in keys:
            where = self.place(namespace, key)
            if where is not None:
                wanted.setdefault(where[0].root.name, []).append((key, *where[1]))
        for root in self._roots:
            values = wanted.get(root.root.name)
            if values:
                for table in self.schema.group(root):
                    self.con.executemany(table.copy_one("temp", ONE), values)
        try:
            return {row[0]: row for rows in self.scan("temp", ONE, namespace) for row in rows}
        finally:
            for table in self.schema.tables:
                self.con.execute(f"DELETE FROM {table.held('temp')} WHERE memops_generation = {ONE}")

    def place(self, namespace: str, key: str) -> tuple[Table, tuple[str, ...]] | None:
        """Which root a key is of, and its values of ``Table.identity``; None for what is no key here."""
        try:
            key.encode()
            found = parse_name([root.root for root in self._roots], namespace, key)
        except (InvalidInput, UnicodeEncodeError, AttributeError):
            return None
        root = next(one for one in self._roots if one.root is found.root)
        return root, tuple(found.columns[column] for column in root.identity)

    # --- reading ------------------------------------------------------------------------------------------------
    def scan(
        self,
        where: str,
        number: int,
        namespace: str,
        after: str | None = None,
        until: str | None = None,
        batch: int = 2000,
        down: bool = False,
        keys: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[Row]]:
        """Records in key order; ``where``: main or temp. Errors: CannotProceed."""
        for root in self._roots[::-1] if down else self._roots:
            # a table that the application made after its rows were taken out has none there
            tables = [
                table for table in self.schema.group(root) if where != "main" or holds(self.con, table, self.path)
            ]
            if tables and tables[0] is root:
                yield from self._scan(tables, where, number, namespace, after, until, batch, down, keys)

    def _scan(
        self,
        tables: t.Sequence[Table],
        where: str,
        number: int,
        namespace: str,
        after: str | None,
        until: str | None,
        batch: int,
        down: bool,
        keys: t.Sequence[str] | None,
    ) -> t.Iterator[list[Row]]:
        root = tables[0]
        # With pages of some rows and nothing open in between, a file without a write-ahead log is never held for long.
        below: str | None = None
        while True:
            bounds = [(sign, edge) for sign, edge in ((">", after), ("<=", until), ("<", below)) if edge is not None]
            text = "".join(f" AND memops_key {sign} ?" for sign, _edge in bounds)
            bound: list[t.Any] = [number, *(edge for _sign, edge in bounds)]
            if keys is not None:
                text += f" AND memops_key IN ({', '.join('?' * len(keys))})"
                bound += keys
            query = (
                f"SELECT memops_key, {root.listed} FROM {root.held(where)} "
                f"WHERE memops_generation = ? AND memops_key > ''{text} "
                f"ORDER BY memops_key {'DESC' if down else 'ASC'}"
            )
            found, more = self._page(query, bound, batch)
            if found:
                yield [*self._rows(tables, where, number, namespace, found)]
                if down:
                    below = found[-1][0]
                else:
                    after = found[-1][0]
            if not more:
                return

    def _page(self, query: str, bound: t.Sequence[t.Any], batch: int) -> tuple[list[Found], bool]:
        """Root rows, all of the last key; and whether there may be more."""
        found: list[Found] = []
        size = distinct = 0
        cursor = self.con.cursor()
        try:
            for row in cursor.execute(query, bound):
                if not found or row[0] != found[-1][0]:
                    if distinct >= batch or size > BATCH_BYTES:
                        return found, True
                    distinct += 1
                found.append(row)
                size += sum(len(value) for value in row if value.__class__ in (bytes, str))
        finally:
            cursor.close()
        return found, False

    def _rows(
        self, tables: t.Sequence[Table], where: str, number: int, namespace: str, found: t.Sequence[Found]
    ) -> t.Iterator[Row]:
        parts: dict[str, list[list[Found]]] = {}
        for row in found:
            parts.setdefault(row[0], [[] for _table in tables])[0].append(row[1:])
        low, high = sorted((found[0][0], found[-1][0]), key=str.encode)
        for place, table in enumerate(tables[1:], 1):
            order = "".join(f", {name(column)}" for column in table.order)
            for row in self.con.execute(
                f"SELECT memops_key, {table.listed} FROM {table.held(where)} WHERE memops_generation = ? "
                f"AND memops_key >= ? AND memops_key <= ? ORDER BY memops_key{order}",
                (number, low, high),
            ):
                if row[0] in parts:
                    parts[row[0]][place].append(row[1:])
        codec = self._codecs.setdefault(namespace, RecordCodec(namespace))
        for key, rows in parts.items():
            yield self._row(codec, key, tables, rows)

    def _row(self, codec: RecordCodec, key: str, tables: t.Sequence[Table], rows: t.Sequence[list[Found]]) -> Row:
        """A record. Its checksum is made here, and does not hold for one that the application could not read."""
        there = [place for place, some in enumerate(rows) if some]
        head = self._head([tables[place] for place in there])
        payload = pack(head, [[tuple(map(sqlite_cell, row)) for row in rows[place]] for place in there])
        root = tables[0]
        columns = {column.name: value for column, value in zip(root.columns, rows[0][0])}
        sound, times = len(rows[0]) == 1, []
        for moment in (root.root.created, root.root.updated, root.root.expires):
            try:
                times.append(microseconds(moment, columns))
            except BadTime:
                times.append(None)
                sound = False
        row: Row = (key, 0, 0, times[0] or 0, times[1] or 0, times[2], None, "", payload)
        sound = sound and all(
            readable(table, {column.name: value for column, value in zip(table.columns, one)})
            for table, some in zip(tables, rows)
            for one in some
        )
        return (*row, codec.checksum(row) if sound else b"")

    def _head(self, tables: t.Sequence[Table]) -> bytes:
        names = tuple(table.name for table in tables)
        if names not in self._heads:
            self._heads[names] = header(
                "sqlite",
                [(table.name, [(column.name, column.kind) for column in table.columns]) for table in tables],
            )
        return self._heads[names]

    # --- writing ------------------------------------------------------------------------------------------------
    def cells(self, row: Row) -> list[tuple[Table, list[list[t.Any]]]]:
        """The rows of each table that a record is. Errors: InvalidInput, CannotProceed (other tables than today)."""
        try:
            engine, tables = unpack(row[8])
            found = [(part, [[sqlite_value(cell) for cell in one] for one in part.rows]) for part in tables]
        except (RecordCorrupt, ValueError):
            engine, found = "", []
        if engine != "sqlite" or not found or len(found[0][1]) != 1 or row[6] is not None or row[7]:
            raise InvalidInput(
                f"The record {row[0]!r:.80} is none of this layout, or its value is not whole.",
                "take it from a snapshot of this store",
            )
        out = []
        for part, rows in found:
            table = self.schema.named(part.name)
            if table is None:
                raise CannotProceed(
                    f"{self.path} has no table {part.name}, which has rows of {row[0]!r:.80} in the snapshot.",
                    "start the application as it was configured then (with its vector index), so that it makes the "
                    "table; then run this again",
                )
            today = {column.name for column in table.columns}
            then = {column for column, _kind in part.columns}
            if today != then:
                raise CannotProceed(
                    f"The table {part.name} in {self.path} has other columns than when {row[0]!r:.80} was saved: "
                    f"{', '.join(sorted(then ^ today))}.",
                    "use the version of the application that the snapshot is from, restore, then let it migrate",
                )
            places = {column: place for place, (column, _kind) in enumerate(part.columns)}
            order = [places[column.name] for column in table.columns]
            out.append((table, [[one[place] for place in order] for one in rows]))
        return out

    def put_held(self, number: int, rows: t.Sequence[Row]) -> None:
        """Insert or replace records in the store's tables that hold rows; one that is replaced keeps its rowid."""
        former: dict[tuple[str, str], t.Any] = {}
        for root in self._roots:
            for row in rows:
                found = self.con.execute(
                    f"SELECT memops_rowid FROM {root.held()} WHERE memops_generation = ? AND memops_key = ? LIMIT 1",
                    (number, row[0]),
                ).fetchone()
                if found is not None:
                    former[root.name, row[0]] = found[0]
        self.take_held(number, [row[0] for row in rows])
        for row in rows:
            for table, values in self.cells(row):
                marks = ", ".join("?" * len(table.columns))
                self.con.executemany(
                    f"INSERT INTO {table.held()} (memops_generation, memops_key, memops_rowid, {table.listed}) "
                    f"VALUES ({int(number)}, ?, ?, {marks})",
                    [(row[0], former.get((table.name, row[0])), *one) for one in values],
                )

    def take_held(self, number: int, keys: t.Sequence[str]) -> None:
        for table in self.schema.tables:
            self.con.executemany(
                f"DELETE FROM {table.held()} WHERE memops_generation = {int(number)} AND memops_key = ?",
                [(key,) for key in keys],
            )

    def put_live(self, namespace: str, row: Row) -> None:
        """Insert or replace a record in the application's tables; one that is replaced keeps its rowid."""
        rowid = self.take_live(namespace, row[0])
        for table, values in self.cells(row):
            first = rowid if table.is_root else None
            listed = f"{table.rowid}, {table.listed}" if first is not None else table.listed
            marks = ", ".join("?" * (len(table.columns) + (first is not None)))
            try:
                self.con.executemany(
                    f"INSERT INTO {table.plain} ({listed}) VALUES ({marks})",
                    [[first, *one] for one in values] if first is not None else values,
                )
            except sqlite3.IntegrityError as exc:
                if "UNIQUE" not in str(exc):
                    raise
                raise CannotProceed(
                    f"The record {row[0]!r:.80} cannot be put into {namespace!r:.80}: rows with its keys belong to "
                    f"another namespace now ({exc}).",
                    "restore into another file in which the application made its tables (memory_store.path), or, where "
                    "these rows are not needed, remove them first (an export names the keys)",
                ) from None

    def take_live(self, namespace: str, key: str) -> t.Any:
        """Take a record away there; the rowid that it had, if any."""
        where = self.place(namespace, key)
        if where is None:
            raise InvalidInput(f"{key!r:.80} is no key of {namespace!r:.80}.", "name one as a plan writes it")
        root, values = where
        found = None
        if root.rowid is not None:
            found = self.con.execute(f"SELECT {root.rowid} FROM {root.plain} WHERE {root.one()}", values).fetchone()
        for table in reversed(self.schema.group(root)):
            self.con.execute(f"DELETE FROM {table.plain} WHERE {table.one()}", values)
        return None if found is None else found[0]


def readable(table: Table, columns: t.Mapping[str, t.Any]) -> bool:
    """Whether the application can read the row: what is to be JSON is JSON (the layout's are objects), and vectors are
    numbers."""
    for column in table.of_json:
        value = columns.get(column)
        try:
            parsed = None if value is None else json.loads(value, parse_constant=_no_number)
        except (ValueError, TypeError, RecursionError):
            return False
        if value is not None and column in table.json and not isinstance(parsed, dict):
            return False
        if table.envelopes and not whole_envelope(parsed):
            return False
    return all(finite(columns.get(column)) for column in table.vectors)


def whole_envelope(item: t.Any) -> bool:
    """Whether what the OpenAI Agents SDK encrypted is a whole Fernet token; True for anything else."""
    if not isinstance(item, dict) or item.get("__enc__") != 1:
        return True
    try:
        token = base64.b64decode(item["payload"], altchars=b"-_", validate=True)
    except (KeyError, TypeError, ValueError):
        return False
    # a byte of version, 8 of time, 16 of initialisation vector, blocks of 16, 32 of signature
    return token[:1] == b"\x80" and len(token) >= 73 and (len(token) - 57) % 16 == 0


def _no_number(word: str) -> t.Any:
    raise ValueError(word)


def finite(vector: t.Any) -> bool:
    """Whether a vector, stored as 4-byte floats, is one. Vectors that are stored otherwise are not looked into."""
    if vector.__class__ is not bytes:
        return True
    if len(vector) % 4:
        return False
    total = sum(array.array("f", vector))
    return total - total == 0.0
