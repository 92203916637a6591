# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application left in its tables in a SQLite file that its operator should know of. Everything here reads.

PRIVATE to the collection. None of it is damage that a rebuild could or should undo: it never stops one.
"""
from __future__ import annotations

import json
import sqlite3
import typing as t

from .._application_notices import told
from .._layouts.tables import TablesLayout
from .._words import counted
from . import checkpoint_parents
from .item_vectors import in_sqlite
from .tables_sqlite_sealed import sealed_notices
from .tables_sqlite_sql import Schema, Table, name

SHOWN: t.Final = 5


def remarks(con: sqlite3.Connection, layout: TablesLayout, schema: Schema, params: t.Mapping[str, t.Any]) -> list[str]:
    """In words; ``params``: memory_store. Errors: sqlite3.Error. ``con`` is ``prepared``."""
    lines = without_key(con, schema)
    for table in schema.tables:
        lines += _numbers_again(con, table)
        if not table.is_root:
            lines += _orphans(con, table, schema)
        for column in table.vectors:
            lines += _dimensions(con, table, column)
    lines += told(params, lambda seals: sealed_notices(con, schema, seals))
    for word, look in (
        ("half-migrated", _half_migrated), ("result-without-call", _transcripts), ("event-without-session", _adk),
        ("item-without-vector", in_sqlite), ("checkpoint-without-parent", _gaps),
    ):  # fmt: skip
        if word in layout.findings:
            lines += look(con, schema)
    return lines


def _numbers_again(con: sqlite3.Connection, table: Table) -> list[str]:
    """SQLite numbers a row after the greatest that is there; a quarantine takes rows away."""
    keys = [row for row in con.execute(f"PRAGMA main.table_info({name(table.name)})") if row[5]]
    if len(keys) != 1 or keys[0][2].upper() != "INTEGER":
        return []
    made = con.execute("SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", (table.name,)).fetchone()
    if made is None or "AUTOINCREMENT" in made[0].upper() or "WITHOUT ROWID" in made[0].upper():
        return []
    return [
        f"{table.name}.{keys[0][1]} has no AUTOINCREMENT: while a namespace is quarantined, new rows of others may get "
        "the numbers of its rows, and the release then says how they get other ones"
    ]


def without_key(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """Rows that are no records."""
    return [line for table in schema.roots for line in _no_key(con, table)]


def _no_key(con: sqlite3.Connection, table: Table) -> list[str]:
    odd = " OR ".join(
        f"typeof({name(column)}) NOT IN ('text', 'integer') OR memops_text(CAST({name(column)} AS BLOB)) IS NULL"
        for column in table.identity
    )
    found = con.execute(f"SELECT count(*) FROM {table.plain} WHERE {odd}").fetchone()[0]
    belong, them = ("belongs", "it") if found == 1 else ("belong", "them")
    row = f"{counted(found, 'row')} of {table.name} {belong} to nobody or"
    line = f"{row} {'has' if found == 1 else 'have'} a key that is no text: no snapshot holds {them}"
    return [line] if found else []


def _orphans(con: sqlite3.Connection, table: Table, schema: Schema) -> list[str]:
    root = schema.named(table.root.name)
    if root is None:
        return []
    same = " AND ".join(f"r.{name(column)} = c.{name(table.of[column])}" for column in table.identity)
    found = con.execute(
        f"SELECT count(*) FROM {table.plain} c WHERE NOT EXISTS (SELECT 1 FROM {root.plain} r WHERE {same})"
    ).fetchone()[0]
    belong = "belongs" if found == 1 else "belong"
    return [f"{counted(found, 'row')} of {table.name} {belong} to no row of {root.name}"] if found else []


def _dimensions(con: sqlite3.Connection, table: Table, column: str) -> list[str]:
    sizes = con.execute(
        f"SELECT length({name(column)}) / 4, count(*) FROM {table.plain} WHERE typeof({name(column)}) = 'blob' "
        "GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    most = sizes[0][0] if sizes else 0
    return [
        f"{counted(count, 'vector')} of {table.name} {'has' if count == 1 else 'have'} {size} dimensions, "
        f"the others {most}"
        for size, count in sizes[1:]
    ]


def _half_migrated(con: sqlite3.Connection, _schema: Schema) -> list[str]:
    """LangGraph notes its migrations; one that notes more than there is was cut off."""
    there = {row[0] for row in con.execute("SELECT name FROM main.sqlite_master WHERE type IN ('table', 'index')")}
    lines = []
    for noted, needs in (
        ("store_migrations", (("store_prefix_idx", 1), ("idx_store_expires_at", 4))),
        ("vector_migrations", (("store_vectors", 0),)),
    ):
        if noted not in there:
            continue
        newest = con.execute(f"SELECT max(v) FROM {noted}").fetchone()[0]
        lines += [
            f"half-migrated: {noted} says that {what} was made, and it is not there"
            for what, version in needs
            if newest is not None and newest >= version and what not in there
        ]
        if newest is None and noted == "vector_migrations":
            lines.append(f"half-migrated: {noted} was made, and no migration ran")
    return lines


def _gaps(con: sqlite3.Connection, schema: Schema) -> list[str]:
    return checkpoint_parents.told(con.execute(checkpoint_parents.without_parent(schema.tables[0].plain)).fetchall())


def _transcripts(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """Sessions of the OpenAI Agents SDK that no model would take: a tool's result without its call."""
    broken: list[str] = []
    for (session,) in con.execute(f"SELECT session_id FROM {schema.tables[0].plain} ORDER BY session_id").fetchall():
        called: set[str] = set()
        messages = f"SELECT message_data FROM {schema.tables[1].plain} WHERE session_id = ? ORDER BY id"
        for (text,) in con.execute(messages, (session,)):
            item = _parsed(text)
            if item.get("type") == "function_call":
                called.add(str(item.get("call_id")))
            elif item.get("type") == "function_call_output" and str(item.get("call_id")) not in called:
                broken.append(session)
                break
    shown = ", ".join(repr(one)[:80] for one in broken[:SHOWN])
    have = counted(len(broken), "session has", "sessions have")
    lines = [f"{have} a tool's result without its call, which no model takes: {shown}"]
    return lines if broken else []


def _adk(con: sqlite3.Connection, schema: Schema) -> list[str]:
    lines = []
    lost = con.execute(
        f"SELECT count(*) FROM {schema.tables[1].plain} e WHERE NOT EXISTS (SELECT 1 FROM {schema.tables[0].plain} s "
        "WHERE s.app_name = e.app_name AND s.user_id = e.user_id AND s.id = e.session_id)"
    ).fetchone()[0]
    if lost:
        lines.append(counted(lost, "event belongs", "events belong") + " to no session")
    lines += _adk_transcripts(con, schema)
    if con.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'adk_internal_metadata'").fetchone():
        row = con.execute("SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'").fetchone()
        if row is None or row[0] != "1":
            lines.append(f"the schema version is {row and row[0]}, not 1: this layout was not tried with it")
    return lines


def _adk_transcripts(con: sqlite3.Connection, schema: Schema) -> list[str]:
    """As _transcripts; one event may hold several calls or results."""
    broken: dict[tuple[str, ...], None] = {}
    current: tuple[str, ...] = ()
    called: set[str] = set()
    events = (
        f"SELECT app_name, user_id, session_id, event_data FROM {schema.tables[1].plain} "
        "WHERE instr(event_data, 'function_') > 0 ORDER BY app_name, user_id, session_id, timestamp, rowid"
    )
    for *where, text in con.execute(events):
        if tuple(where) != current:
            current, called = tuple(where), set()
        content = _parsed(text).get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            call, result = (_id(part, kind) for kind in ("function_call", "function_response"))
            if call is not None:
                called.add(call)
            if result is not None and result not in called:
                broken[current] = None
    shown = ", ".join(repr("/".join(one))[:80] for one in [*broken][:SHOWN])
    have = counted(len(broken), "session has", "sessions have")
    lines = [f"{have} a tool's result without its call, which no model takes: {shown}"]
    return lines if broken else []


def _id(part: t.Any, kind: str) -> str | None:
    said = part.get(kind) if isinstance(part, dict) else None
    found = said.get("id") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def _parsed(text: t.Any) -> dict[str, t.Any]:
    try:
        item = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return item if isinstance(item, dict) else {}
