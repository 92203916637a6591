# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Queries of one SQLite reader: streamed in the order of keys, and around texts that are no UTF-8 any more.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from itertools import islice
from operator import itemgetter

from .._codec import encodable
from .._model import Row
from .sqlite_connect import lenient, translate

BATCH_BYTES = 8 << 20
STEP = 100  # rows that are fetched before their bytes are counted
SMALL_ROW = 64 << 10  # bytes; with rows above this on average they are counted one by one


def _bytes_in(rows: t.Sequence[Row], start: int, column: int) -> int:
    try:
        return sum(map(len, map(itemgetter(column), islice(rows, start, None))))
    except TypeError:  # damaged
        return sum([len(row[column]) for row in islice(rows, start, None) if hasattr(row[column], "__len__")])


class Queries:
    """What reads over ``_con``; ``_path`` is for messages."""

    _con: sqlite3.Connection
    _path: str
    _cursors: set[sqlite3.Cursor]

    @contextlib.contextmanager
    def _query(self, sql: str, values: t.Sequence[t.Any]) -> t.Iterator[sqlite3.Cursor]:
        """A cursor that is closed in any case: one that is left half read keeps the read transaction open."""
        cursor = self._con.cursor()
        self._cursors.add(cursor)
        try:
            yield cursor.execute(sql, values)
        finally:
            self._cursors.discard(cursor)
            cursor.close()

    def _by_key(
        self,
        fixed: str,
        fixed_values: list[t.Any],
        key: str,
        after: str | None,
        until: str | None,
        batch: int,
        descending: bool = False,
        order: str = "",
        payload: int | None = None,
    ) -> t.Iterator[list[Row]]:
        """Stream rows whose first column is a key. A key that is no valid UTF-8 makes the driver fail in the middle:
        the query starts again behind the last good row, decoding leniently, and leaves such rows out."""
        bounds = [(f"{key} > ?", after)] if after is not None else []
        bounds += [(f"{key} <= ?", until)] if until is not None else []
        while True:
            sql = " AND ".join([fixed, *(text for text, dummy in bounds)])
            sql += f" ORDER BY {key}{' DESC' if descending else ''}{order}"
            rows: list[Row] = []
            size = 0
            last: Row | None = None
            try:
                with self._query(sql, [*fixed_values, *(value for dummy, value in bounds)]) as cursor:
                    step = 1  # rows that are read before their size is looked at; grows while they are small
                    while True:
                        seen = len(rows)
                        rows.extend(islice(cursor, min(step, batch - seen)))  # keeps what came before an error
                        if len(rows) == seen:
                            break
                        if payload is not None:
                            came = _bytes_in(rows, seen, payload)
                            size += came
                            small = came < SMALL_ROW * (len(rows) - seen)
                            step = min(2 * step, STEP) if small else 1
                        else:
                            step = STEP
                        if len(rows) >= batch or size > BATCH_BYTES:
                            last = rows[-1]
                            yield from self._readable(rows)
                            rows, size = [], 0
                if rows:
                    yield from self._readable(rows)
                return
            except sqlite3.Error as exc:
                if rows:  # what was read before the damaged place is good
                    last = rows[-1]
                    yield from self._readable(rows)
                if not self._grow_lenient(exc):
                    raise translate(exc, self._path) from exc
            if last is not None:
                # In an order finer than the key, rows of the last key may be half delivered: deliver that key again.
                side = "<" if descending else ">"
                bounds.append((f"{key} {side}{'=' if order else ''} ?", last[0]))

    def _grow_lenient(self, exc: sqlite3.Error) -> bool:
        """Whether the driver gave up on a text that is no UTF-8; from now on this reader decodes leniently."""
        if self._con.text_factory is not str or "decode" not in str(exc):
            return False
        self._con.text_factory = lenient
        return True

    def _readable(self, rows: list[Row]) -> list[list[Row]]:
        """One batch, or none: an empty one says nothing to whoever goes on behind its last row."""
        good = rows if self._con.text_factory is str else [row for row in rows if encodable(row[0])]
        return [good] if good else []
