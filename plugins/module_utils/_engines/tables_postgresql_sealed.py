# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How much of another application's tables in PostgreSQL that application encrypted itself. Read only.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._application_ciphers import AES, INLINE
from .._application_notices import KNOWN_METADATA, LARGEST, SAMPLE, Part, leaks, notices
from .._application_seals import Seals
from .._layouts.tables import Sealed
from .postgresql_arrays import Texts
from .postgresql_schema import quoted
from .postgresql_session import Session
from .tables_postgresql_reader import Live


def sealed_notices(session: Session, live: Live, seals: Seals) -> list[str]:
    """In words. Errors: InvalidInput, KeyUnavailable."""
    parts = list(_parts(session, live))
    lines = notices(seals, parts)
    if not any(part.values for part in parts):
        return lines
    for root in live.roots:
        sealed = root.root.sealed
        if sealed is None or sealed.cipher != INLINE:
            continue
        beside = " UNION ALL ".join(
            f"SELECT 1 FROM {other.table.name} o WHERE o.thread_id = c.thread_id AND {_conditions(one)[0]}"
            for other in live.roots
            for one in (other.root.sealed,)
            if one is not None and one.cipher == AES
        )
        hidden = f"FROM {root.table.name} c WHERE EXISTS ({beside})"
        inline = session.row(
            f"SELECT count(*) {hidden} AND coalesce(c.{quoted(sealed.column)} -> '{sealed.kind}', '{{}}') <> '{{}}'"
        )[0]
        fields = session.rows(
            "SELECT DISTINCT f.name FROM (SELECT jsonb_object_keys(CASE WHEN jsonb_typeof(c.metadata) = 'object' THEN "
            f"c.metadata ELSE '{{}}' END) AS name {hidden}) AS f WHERE f.name <> ALL(%s)",
            Texts(KNOWN_METADATA),
        )
        lines += leaks(inline, [row[0] for row in fields])
    return lines


def _parts(session: Session, live: Live) -> t.Iterator[Part]:
    for root in live.roots:
        sealed = root.root.sealed
        if sealed is None or sealed.cipher == INLINE:
            continue
        table, space, value = root.table.name, quoted(root.root.namespace.columns[0]), quoted(sealed.column)
        is_sealed, is_plain = _conditions(sealed)
        count, spaces = session.row(f"SELECT count(*), count(DISTINCT {space}) FROM {table} WHERE {is_sealed}")
        plain, sample = 0, []
        if count:
            plain = session.row(
                f"SELECT count(*) FROM {table} WHERE {is_plain} AND {space} IN "
                f"(SELECT {space} FROM {table} WHERE {is_sealed})"
            )[0]
            sample = session.rows(
                f"SELECT {space}::text, {value} FROM {table} WHERE {is_sealed} AND octet_length({value}) <= {LARGEST} "
                f"LIMIT {SAMPLE}"
            )
        yield Part(root.table.plain, sealed, count, spaces, plain, sample)


def _conditions(sealed: Sealed) -> tuple[str, str]:
    """That a row's value is encrypted, that it is there and is not. What stands where per cent signs are placeholders
    has none."""
    value = quoted(sealed.column)
    if sealed.cipher == AES:
        kind = f"strpos(coalesce({quoted(sealed.kind)}, ''), '+')"
        return f"{kind} > 0", f"{kind} = 0 AND octet_length({value}) > 0"
    found = f"strpos({value}, '\"__enc__\"')"
    return f"{found} > 0", f"{found} = 0"
