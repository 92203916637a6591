# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How much of another application's tables in a SQLite file that application encrypted itself. Read only.

PRIVATE to the collection.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._application_ciphers import AES, INLINE
from .._application_notices import KNOWN_METADATA, LARGEST, SAMPLE, Part, leaks, notices
from .._application_seals import Seals
from .._layouts.tables import Sealed
from .tables_sqlite_sql import Schema, name


def sealed_notices(con: sqlite3.Connection, schema: Schema, seals: Seals) -> list[str]:
    """In words. Errors: sqlite3.Error, InvalidInput, KeyUnavailable."""
    parts = list(_parts(con, schema))
    lines = notices(seals, parts)
    table = next((one for one in schema.roots if one.root.label == "checkpoint"), None)
    if any(part.values and part.sealed.cipher == AES for part in parts) and table is not None:
        marks = ", ".join("?" * len(KNOWN_METADATA))
        rows = con.execute(
            f"SELECT DISTINCT j.key FROM {table.plain} c, json_each(CASE WHEN json_valid(CAST(c.metadata AS TEXT)) "
            f"THEN CAST(c.metadata AS TEXT) ELSE '{{}}' END) j WHERE j.key NOT IN ({marks}) "
            f"AND c.thread_id IN (SELECT thread_id FROM {table.plain} WHERE instr(type, '+') > 0)",
            KNOWN_METADATA,
        )
        lines += leaks(0, [str(row[0]) for row in rows])
    return lines


def _parts(con: sqlite3.Connection, schema: Schema) -> t.Iterator[Part]:
    for table in schema.roots:
        sealed = table.root.sealed
        if sealed is None or sealed.cipher == INLINE:
            continue
        space, value = name(table.of[table.root.namespace.columns[0]]), name(sealed.column)
        is_sealed, is_plain = _conditions(sealed)
        count, spaces = con.execute(
            f"SELECT count(*), count(DISTINCT {space}) FROM {table.plain} WHERE {is_sealed}"
        ).fetchone()
        plain, sample = 0, []
        if count:
            plain = con.execute(
                f"SELECT count(*) FROM {table.plain} WHERE {is_plain} AND {space} IN "
                f"(SELECT {space} FROM {table.plain} WHERE {is_sealed})"
            ).fetchone()[0]
            sample = con.execute(
                f"SELECT {space}, {value} FROM {table.plain} WHERE {is_sealed} AND length({value}) <= {LARGEST} "
                f"LIMIT {SAMPLE}"
            ).fetchall()
        yield Part(table.name, sealed, count, spaces, plain, sample)


def _conditions(sealed: Sealed) -> tuple[str, str]:
    """That a row's value is encrypted, that it is there and is not."""
    value = name(sealed.column)
    if sealed.cipher == AES:
        kind = f"instr(coalesce({name(sealed.kind)}, ''), '+')"
        return f"{kind} > 0", f"{kind} = 0 AND length({value}) > 0"
    found = f"CASE WHEN json_valid({value}) THEN json_extract({value}, '$.__enc__') END"
    return f"{found} = 1", f"coalesce({found}, 0) <> 1"
