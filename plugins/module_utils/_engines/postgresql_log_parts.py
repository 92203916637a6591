# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Copying the access log without an object for each field: the server's own aggregates put a thousand entries together.

PRIVATE to the collection. Columns have types, so that only texts could come out of JSON as something else. Those are
bytes here: where one is no UTF-8 or has a NUL the query fails, and one that JSON would escape shows in what comes
(the server's own functions for JSON take half as long again). Both leave the block to the caller.
"""
from __future__ import annotations

import typing as t

from .._errors import MemoryOpsError
from .._log_parts import CHECKSUM_BYTES, LogPart, in_blocks
from .._model import Row
from .postgresql_session import Session

#: Asked once for the block, as only PostgreSQL 18 and newer have min() of bytea.
_NAMESPACE = "(SELECT namespace FROM {log} WHERE id > %s ORDER BY id LIMIT 1)"
_EXACT = f"count(key_rest) = 0 AND bool_and(namespace = {_NAMESPACE} AND length(checksum) = {CHECKSUM_BYTES})"


def _number(column: str) -> str:
    return f"coalesce({column}::text, 'null')"


def _text(column: str) -> str:
    return f"""coalesce('"' || convert_from({column}, 'UTF8') || '"', 'null')"""


_ENTRY = " || ',' || ".join(
    (
        "id", "at", "'\"' || operation || '\"'", _text("key"), _number("epoch"), _number("sequence"),
        _number("length(digest)"), _number("lock"), _text("actor"), _text("reason"),
    )
)  # fmt: skip
#: key_rest: of keys above a thousand bytes. Such a block is left to the caller, so that the text stays small.
_SQL = f"""SELECT count(*), {_NAMESPACE}, min(id), max(id), 4 * count(*) + 2 * count(key) + 2 * count(reason),
CASE WHEN {_EXACT} THEN string_agg('[' || {_ENTRY} || ']', ',') END,
coalesce(string_agg(digest, ''::bytea), ''), string_agg(checksum, ''::bytea)
FROM (SELECT * FROM {{log}} WHERE id > %s AND id <= %s ORDER BY id) AS entries"""


def log_part(session: Session, log: str, after: int, until: int) -> LogPart | None:
    """The entries with after < id <= until; None where they are of several namespaces, none, or not exactly so."""
    try:
        row = session.row(_SQL.format(log=log), after, after, after, until)
    except MemoryOpsError:
        if not session.usable:
            raise
        return None  # damage, or a text that is none: one entry after the other tells which
    count, namespace, first, last, quotes, text, digests, checksums = row
    if text is None or text.count('"') != quotes or "\\" in text or not text.isprintable():
        return None
    try:
        name = namespace.decode()
    except UnicodeError:
        return None
    return LogPart(name, count, first, last, f"[{text}]".encode(), digests, checksums)


def log_parts(
    session: Session, log: str, after: int, until: int, rows: t.Callable[[int, int], t.Iterator[list[Row]]]
) -> t.Iterator[LogPart | list[Row]]:
    """All entries with after < id <= until; ``rows(after, until)`` gives those that no LogPart can hold."""

    def part(low: int, high: int) -> LogPart | None:
        return log_part(session, log, low, high)

    def least(low: int, high: int) -> int | None:
        return t.cast("int | None", session.row(f"SELECT min(id) FROM {log} WHERE id > %s AND id <= %s", low, high)[0])

    return in_blocks(after, until, part, rows, least)
