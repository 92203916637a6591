# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Copying the access log without an object for each field: SQLite's own aggregates put a thousand entries together.

PRIVATE to the collection. To make twelve Python values of each entry costs two thirds of copying it. Only what comes
back from JSON as it was is copied like this, which the query itself proves; all else (damage) is left to the caller.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._log_parts import CHECKSUM_BYTES, LogPart, in_blocks
from .._model import Row

# JSON keeps integers, texts and nil, shows a real number with fewer digits (their sum is one, too) and refuses blobs.
_BESIDE = " AND ".join(  # of what stands beside the JSON
    (
        "namespace >= ''",  # no number, and not nil
        "ifnull(digest, x'') >= x''",  # blobs
        f"checksum >= x'' AND length(checksum) = {CHECKSUM_BYTES}",
    )
)
_EXACT = " AND ".join(
    (
        "typeof(at + ifnull(epoch, 0) + ifnull(sequence, 0) + ifnull(lock, 0)) = 'integer'",
        "operation >= '' AND actor >= ''",
        "ifnull(key, '') >= '' AND ifnull(reason, '') >= ''",
        _BESIDE,
    )
)
_SQL = """SELECT count(*), sum({exact}), min(namespace), max(namespace), min(id), max(id), total(length(digest)),
CAST(json_group_array(
  json_array(id, at, operation, key, epoch, sequence, length(digest), lock, actor, reason)
) AS BLOB),
CAST(group_concat(digest, '') AS BLOB), CAST(group_concat(checksum, '') AS BLOB)
FROM {log} WHERE id > ? AND id <= ?"""


def log_part(
    con: sqlite3.Connection, log: str, after: int, until: int, *, compared: bool = False
) -> LogPart | None:
    """The entries with after < id <= until; None where they are of several namespaces, none, or not exactly so. Where
    it is ``compared`` with an exact one, JSON of anything else is another text: no need to prove it first."""
    exact = _BESIDE if compared else _EXACT
    try:
        row = con.execute(_SQL.format(log=log, exact=exact), (after, until)).fetchone()
    except sqlite3.Error:
        return None  # a damaged page, a blob where a text belongs, no UTF-8, a build of SQLite without JSON
    count, exact, namespace, other, first, last, size, text, digests, checksums = row
    digests = digests or b""
    if not count or exact != count or namespace != other or namespace.__class__ is not str:
        return None
    if len(digests) != size or len(checksums) != CHECKSUM_BYTES * count:
        return None  # an old SQLite ends what it joins at the first zero byte
    try:
        namespace.encode()
        text.decode()
    except UnicodeError:
        return None
    return LogPart(namespace, count, first, last, text, digests, checksums)


def log_parts(
    con: sqlite3.Connection,
    log: str,
    after: int,
    until: int,
    rows: t.Callable[[int, int], t.Iterator[list[Row]]],
    *,
    compared: bool = False,
) -> t.Iterator[LogPart | list[Row]]:
    """All entries with after < id <= until; ``rows(after, until)`` gives those that no LogPart can hold."""

    def part(low: int, high: int) -> LogPart | None:
        return log_part(con, log, low, high, compared=compared)

    def least(low: int, high: int) -> int | None:
        row = con.execute(f"SELECT min(id) FROM {log} WHERE id > ? AND id <= ?", (low, high)).fetchone()
        return t.cast("int | None", row[0])

    return in_blocks(after, until, part, rows, least)
