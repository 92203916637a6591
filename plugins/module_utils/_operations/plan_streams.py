# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The streams that a plan is made of, side by side in key order.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import sqlite3
import typing as t
from itertools import chain

from .._model import KEY, LastWrite, Row


def one_by_one(batches: t.Iterator[list[t.Any]]) -> t.Iterator[t.Any]:
    return chain.from_iterable(batches)


def damaged(path: str | None) -> t.Iterator[tuple[str, str]]:
    """(key, kind) of the integrity scan's damage file, in key order."""
    if not path or not os.path.exists(path):
        return
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield from connection.execute("SELECT key, kind FROM damage ORDER BY key")
    finally:
        connection.close()


def aligned(
    live: t.Iterator[Row],
    writes: t.Iterator[LastWrite],
    copies: t.Iterator[Row],
    damage: t.Iterator[tuple[str, str]],
    keeps: t.Callable[[Row, LastWrite, Row | None], bool],
) -> t.Iterator[tuple[str, Row | None, LastWrite | None, Row | None, str | None]]:
    """Full outer merge join of four key-ordered streams, without what ``keeps`` says is kept as it is."""
    row, write, copy, hurt = next(live, None), next(writes, None), next(copies, None), next(damage, None)
    while row is not None or write is not None or copy is not None or hurt is not None:
        if row is not None and write is not None and row[0] == write[0] and (hurt is None or hurt[0] > row[0]):
            key = row[0]
            if copy is None or copy[0] >= key:  # nearly every key
                same = copy if copy is not None and copy[0] == key else None
                if not keeps(row, write, same):
                    yield key, row, write, same, None
                row, write = next(live, None), next(writes, None)
                if same is not None:
                    copy = next(copies, None)
                continue
        key = min(item[0] for item in (row, write, copy, hurt) if item is not None)
        this_row = this_write = this_copy = this_kind = None
        if row is not None and row[KEY] == key:
            this_row, row = row, next(live, None)
        if write is not None and write[0] == key:
            this_write, write = write, next(writes, None)
        if copy is not None and copy[KEY] == key:
            this_copy, copy = copy, next(copies, None)
        if hurt is not None and hurt[0] == key:
            this_kind, hurt = hurt[1], next(damage, None)
        yield key, this_row, this_write, this_copy, this_kind
