# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Applications on a PostgreSQL server whose role changes: whether it acknowledges what they commit, and where those go
that know several servers.

PRIVATE to the collection.

libpq (``target_session_attrs=read-write``) takes the first server that takes writes, and a former primary, fenced as it
is, still says so. A default of its database says otherwise; it is on that server alone, so a rejoin takes it away.
"""
from __future__ import annotations

import re
import typing as t

from .._engines.postgresql_errors import NO_RIGHT
from .._engines.postgresql_schema import quoted
from .._engines.postgresql_session import WRITING, Session
from .._errors import MemoryOpsError

SECONDS: t.Final = 5.0  # that a commit here waits for standbys which may follow the other server now
_NEEDED: t.Final = re.compile(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", re.I)
_DATABASE: t.Final = """
SELECT datname::text, pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text, current_user::text
FROM pg_database WHERE datname = current_database()"""


def unacknowledged(session: Session) -> tuple[str, str] | None:
    """Why no application's commit returns on this server once it is the primary, and what to do about it. A replica
    cannot tell which of those that follow it count: there all of them do."""
    names, waits, there = session.row(
        "SELECT current_setting('synchronous_standby_names'), (SELECT reset_val FROM pg_settings WHERE name = "
        "'synchronous_commit') NOT IN ('off', 'local'), (SELECT count(*) FROM pg_stat_replication WHERE state IS NULL "
        "OR state = 'streaming' AND (pg_is_in_recovery() OR sync_state IN ('sync', 'quorum')))"
    )
    found = _NEEDED.match(names)
    if not names.strip() or not waits or there >= (int(found[1]) if found else 1):
        return None
    return (
        f"its synchronous_standby_names ({names}) asks for standbys that do not follow it, so that each commit of an "
        "application waits for them without end",
        "as a superuser there: ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf(); set it again "
        "when the other server follows it",
    )


def step_aside(session: Session, application: str | None) -> str:
    """Applications that know several servers go to another one from now on. "" or why some will not, in words."""
    database, own, owner, me = session.row(_DATABASE)
    if not own:
        return (
            "applications that know both servers go on meeting the fence at the former one until it is stopped or "
            f"follows, as only the database's owner {owner} could lead them away (on the primary: ALTER DATABASE "
            f"{quoted(database)} OWNER TO {quoted(me)})"
        )
    _default(session, database, "SET default_transaction_read_only = on")
    if not application or application == me:
        return "applications that know both servers find the new one when they connect anew"
    try:
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND usename = %s",
            application,
        )
    except MemoryOpsError:
        if session.state != NO_RIGHT:
            raise
        return (
            "applications that know both servers find the new one when they connect anew (so that their sessions are "
            f"ended: GRANT {quoted(application)} TO {quoted(me)})"
        )
    return ""


def step_back(session: Session) -> None:
    """Operators may write here again; that is, before it follows the other server."""
    database, own, _owner, _me = session.row(_DATABASE)
    if own:
        session.say("SET default_transaction_read_only = off")
        _default(session, database, "RESET default_transaction_read_only")


def _default(session: Session, database: str, change: str) -> None:
    session.begin(WRITING)
    try:
        session.say(f"ALTER DATABASE {quoted(database)} {change}")
        session.patience = SECONDS
        session.commit()
    except BaseException:
        session.roll_back()
        raise
