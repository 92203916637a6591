# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Other servers that a fence of a PostgreSQL store concerns: what they write here, and what may be read there.

PRIVATE to the collection.
"""
from __future__ import annotations

import time

from .postgresql_arrays import Texts
from .postgresql_schema import RecordsSql
from .postgresql_session import Session

ARRIVAL = 1.0  # seconds that a standby may take to apply the fence


def subscriptions(session: Session, s: RecordsSql) -> list[str]:
    """The subscriptions of logical replication that write to the store's tables. They meet no trigger for statements,
    and may bring the control rows of another server along."""
    rows = session.rows(
        "SELECT DISTINCT u.subname::text FROM pg_subscription_rel l JOIN pg_subscription u ON u.oid = l.srsubid "
        "JOIN pg_class c ON c.oid = l.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE u.subenabled AND n.nspname = %s AND c.relname::text = ANY(%s) ORDER BY 1",
        s.plain_schema, Texts([s.plain_table, "memops_namespace", "memops_store"]),
    )  # fmt: skip
    return [row[0] for row in rows]


def standbys_behind(session: Session) -> list[str]:
    """A line for each standby on which what was committed here until now cannot be seen yet; they are given a second.

    ``session`` has no transaction open."""
    found = session.row("SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END")[0]
    deadline = time.monotonic() + ARRIVAL
    while found is not None:
        rows = session.rows(
            "SELECT coalesce(nullif(r.application_name, ''), 'without a name'), coalesce(host(r.client_addr), ''), "
            "r.state IS NULL FROM pg_stat_replication r WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots t "
            "WHERE t.active_pid = r.pid AND t.slot_type = 'logical') AND (r.state IS NULL OR (r.state <> 'backup' "
            "AND r.replay_lsn IS NOT NULL AND r.replay_lsn < %s::pg_lsn)) ORDER BY 1, 2",
            found,
        )
        if all(hidden for _name, _address, hidden in rows) or time.monotonic() > deadline:
            return [_line(*row) for row in rows]
        time.sleep(0.02)
    return []


def _line(name: str, address: str, hidden: bool) -> str:
    who = f"clients of the standby {name}" + (f" ({address})" if address else "")
    if hidden:
        return f"{who}: whether it has applied the fence is not known (GRANT pg_monitor TO the operator's user)"
    return f"{who}: the fence has not arrived there"
