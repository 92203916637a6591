# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Transcripts that no model would accept: a tool's result without its call; and threads with a gap. Read only.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import typing as t

from .._words import counted
from .checkpoint_parents import told, without_parent
from .postgresql_session import Session
from .tables_postgresql_reader import Live

SHOWN: t.Final = 20
PAGE: t.Final = 1000


def transcripts(session: Session, live: Live) -> list[str]:
    """In words, of the layouts that have any."""
    found: list[tuple[str, int]] = []
    if "result-without-call" in live.layout.findings:
        # only from PostgreSQL 16 on can the server say whether a text is JSON
        found += (_messages if live.sql[0].version >= 160_000 else _messages_here)(session, live)
    if "event-without-session" in live.layout.findings:
        found += _events(session, live)
    lines = [f"session {name!r:.80} has {counted(n, 'result')} of tools without a call" for name, n in found[:SHOWN]]
    if "checkpoint-without-parent" in live.layout.findings:
        table = next(root.table for root in live.roots if root.root.label == "checkpoint")
        lines += told(session.rows(without_parent(table.name)))
    return lines


def _messages(session: Session, live: Live) -> list[tuple[str, int]]:
    """Of the OpenAI Agents SDK: (session, results without calls), the sessions in order."""
    # jsonb takes no NUL; a text inside a text is escaped twice, so that another character has to stand for it
    text = "replace(message_data, chr(92) || 'u0000', chr(92) || 'u0020')"
    return session.rows(
        "WITH x AS MATERIALIZED (SELECT session_id, id, m ->> 'type' AS kind, m ->> 'call_id' AS call FROM (SELECT "
        f"session_id, id, CASE WHEN message_data IS JSON THEN {text}::jsonb END AS m FROM "
        f"{live.roots[-1].table.name} WHERE strpos(message_data, '\"function_call') > 0 OFFSET 0) AS y) "
        "SELECT r.session_id::text, count(*) FROM x r WHERE r.kind = 'function_call_output' AND NOT EXISTS ("
        "SELECT 1 FROM x c WHERE c.kind = 'function_call' AND c.session_id = r.session_id AND c.call = r.call "
        f"AND c.id < r.id) GROUP BY 1 ORDER BY 1 LIMIT {SHOWN}"
    )


def _messages_here(session: Session, live: Live) -> list[tuple[str, int]]:
    """The same, read page by page."""
    found: dict[str, int] = {}
    known: tuple[str, set[str]] = "", set()  # a session, and its calls so far
    after: tuple[t.Any, ...] = ()
    rows: list[t.Any] = [()]
    while rows and len(found) <= SHOWN:
        beyond = "AND (session_id, id) > (%s, %s) " if after else ""
        rows = session.rows(
            f"SELECT session_id::text, id, message_data FROM {live.roots[-1].table.name} WHERE "
            f"strpos(message_data, '\"function_call') > 0 {beyond}ORDER BY session_id, id LIMIT {PAGE}",
            *after,
        )
        for name, _number, text in rows:
            if name != known[0]:
                known = name, set()
            kind, call = _said(text)
            if kind == "function_call":
                known[1].add(call)
            elif kind == "function_call_output" and call not in known[1]:
                found[name] = found.get(name, 0) + 1
        after = tuple(rows[-1][:2]) if rows else ()
    return [*found.items()][:SHOWN]


def _said(text: str) -> tuple[str, str]:
    """What kind of message it is, and of which call."""
    try:
        item = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    return (str(item.get("type")), str(item.get("call_id"))) if isinstance(item, dict) else ("", "")


def _events(session: Session, live: Live) -> list[tuple[str, int]]:
    """Of Google's ADK, where one event may hold several calls or results."""
    events = next(root.table for root in live.roots if root.root.label == "event")
    if events.column("event_data").kind != "jsonb":
        return []
    parts = "r.event_data #> '{content,parts}'"
    return session.rows(
        "WITH x AS MATERIALIZED (SELECT app_name, user_id, session_id, timestamp AS at, "
        "p.part -> 'function_call' ->> 'id' AS call, p.part -> 'function_response' ->> 'id' AS result "
        f"FROM {events.name} r CROSS JOIN LATERAL jsonb_array_elements("
        f"CASE jsonb_typeof({parts}) WHEN 'array' THEN {parts} ELSE '[]' END) AS p(part) "
        "WHERE p.part ? 'function_call' OR p.part ? 'function_response') "
        "SELECT r.app_name || '/' || r.user_id || '/' || r.session_id, count(*) FROM x r WHERE r.result IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM x c WHERE c.call = r.result AND c.app_name = r.app_name AND "
        f"c.user_id = r.user_id AND c.session_id = r.session_id AND c.at <= r.at) GROUP BY 1 ORDER BY 1 LIMIT {SHOWN}"
    )
