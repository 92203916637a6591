# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of records in order, for engines that list them without any order.

PRIVATE to the collection. They lie in a temporary SQLite database, which spills to disk by itself.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._errors import InvalidInput
from .._model import Row


class ListedKeys:
    """Names by namespace; one that is added twice counts once."""

    def __init__(self) -> None:
        # without a name it is temporary, and on disk when it grows
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE keys (namespace TEXT, key BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def add(self, names: t.Iterable[tuple[str, bytes]]) -> int:
        """(namespace, name) pairs; how many were new."""
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", names)
        return self._db.total_changes - before

    def namespaces(self) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT DISTINCT namespace FROM keys")]

    def count(self, namespace: str) -> int:
        return int(self._db.execute("SELECT count(*) FROM keys WHERE namespace = ?", (namespace,)).fetchone()[0])

    def page(
        self, namespace: str, after: str | None, until: str | None, below: str | None, limit: int, down: bool
    ) -> list[str]:
        """The next names with after < name <= until and < below; with ``down`` the last ones, backwards."""
        where: list[str] = ["namespace = ?"]
        bound: list[t.Any] = [namespace]
        for sign, edge in ((">", after), ("<=", until), ("<", below)):
            if edge is not None:
                where.append(f"key {sign} ?")
                bound.append(edge.encode())
        query = f"SELECT key FROM keys WHERE {' AND '.join(where)}"
        query += f" ORDER BY key {'DESC' if down else 'ASC'} LIMIT {int(limit)}"
        return [raw.decode() for (raw,) in self._db.execute(query, bound)]

    def close(self) -> None:
        self._db.close()


def planned(plan: str | None, texts: t.Sequence[str]) -> set[str]:
    """Those of these neighbouring names that the plan file names. Errors: InvalidInput."""
    if plan is None:
        return set()
    if not os.path.isfile(plan):
        raise InvalidInput(f"There is no plan file {plan}.", "make the plan first")
    uri = "file:" + urllib.parse.quote(os.path.abspath(plan)) + "?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            found = db.execute("SELECT key FROM plan WHERE key >= ? AND key <= ?", (texts[0], texts[-1]))
            return {key for (key,) in found}
    except sqlite3.Error as exc:
        raise InvalidInput(f"The plan file {plan} cannot be read: {exc}.", "make the plan again") from None


def walk(
    page: t.Callable[[str | None, str | None], list[str]],
    rows_of: t.Callable[[list[str]], t.Iterable[Row]],
    after: str | None,
    batch: int,
    most: int,
    down: bool,
) -> t.Iterator[list[Row]]:
    """The records of listed names, at most ``batch`` and some ``most`` bytes of payload at once. ``page``: the next
    names after the first argument and below the second one."""
    below: str | None = None
    while True:
        names = page(after, below)
        rows: list[Row] = []
        size = 0
        for row in rows_of(names):
            rows.append(row)
            size += len(row[8])
            if size > most:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows
        if len(names) < batch:
            return
        if down:
            below = names[-1]
        else:
            after = names[-1]
