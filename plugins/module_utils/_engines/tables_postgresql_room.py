# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows that swapped what only one of them may have, and that may not go even for a moment, since rows of other tables
would go with them or keep them.

PRIVATE to the collection. They give up what is unique until each gets its own back, in the same transaction, in which
nobody else sees them.
"""
from __future__ import annotations

import typing as t

from .._errors import CannotProceed, InvalidInput
from .postgresql_schema import quoted
from .postgresql_session import Session
from .tables_postgresql_schema import Column, LiveRoot

#: What is unique beside the key: the columns of each such index, and whether empty ones are all alike in it.
_UNIQUE: t.Final = """
SELECT i.indnullsnotdistinct, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
WHERE i.indrelid::bigint = %s AND i.indisunique AND i.indimmediate GROUP BY i.indexrelid, i.indnullsnotdistinct"""
#: Columns whose change would reach into rows that refer to them.
_REACHES: t.Final = """
SELECT DISTINCT a.attname::text FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.confrelid
AND a.attnum = ANY(f.confkey) WHERE f.contype = 'f' AND f.confrelid::bigint = %s AND f.confupdtype <> 'a'"""
_NUMBERS: t.Final = ("smallint", "integer", "bigint")
_TEXTS: t.Final = ("text", "character varying")


def make_room(session: Session, live: LiveRoot, own: t.Sequence[str], which: str) -> None:
    """``which``: the rows t that are replaced next, as what follows USING; ``own``: the columns that they get. Where it
    cannot be done nothing is, and the replacing says why."""
    fixed = {*live.target, *live.root.key, *live.root.namespace.columns}
    fixed.update(name for (name,) in session.rows(_REACHES, live.table.oid))
    free = [c for c in live.table.columns if c.name in own and c.name not in fixed and not c.always]
    chosen: dict[str, str] = {}
    for alike, names in session.rows(_UNIQUE, live.table.oid):
        if not chosen.keys() & set(names):
            values = {c.name: "NULL" if c.empty and not alike else _made_up(c, live) for c in free if c.name in names}
            best = sorted((value != "NULL", name, value) for name, value in values.items() if value)[:1]
            chosen.update((name, value) for _rank, name, value in best)
    if not chosen:
        return
    sets = ", ".join(f"{quoted(name)} = {value}" for name, value in chosen.items())
    numbered = f"SELECT t.tableoid, t.ctid, row_number() OVER () AS number FROM {live.table.name} t, {which}"
    session.say("SAVEPOINT memops_room")
    same = "t.tableoid = n.tableoid AND t.ctid = n.ctid"
    try:
        session.run(f"UPDATE {live.table.name} t SET {sets} FROM ({numbered}) AS n WHERE {same}")
    except (CannotProceed, InvalidInput):  # a check of the application does not take it
        session.say("ROLLBACK TO SAVEPOINT memops_room")


def _made_up(column: Column, live: LiveRoot) -> str:
    """A value for row number n.number that no row has; "": not for this type."""
    if column.kind in _NUMBERS:
        return f"(SELECT min({quoted(column.name)}) FROM {live.table.name}) - n.number"
    if column.kind == "uuid":
        return "gen_random_uuid()"
    length = column.kind.partition("(")[2].rstrip(")")
    if column.kind.partition("(")[0] in _TEXTS and (not length or int(length) >= 16):
        return f"left(replace(gen_random_uuid()::text, '-', ''), {min(32, int(length or 32))})"
    return ""
