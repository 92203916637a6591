# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces of a SQLite store whose control row is gone or does not lead to their records: found, and led back.

PRIVATE to the collection. It is what a lost write of the control rows' page leaves.
"""
from __future__ import annotations

import sqlite3

from .control_rows import (
    AGAIN,
    GONE,
    astray,
    astray_why,
    elsewhere,
    facts_of,
    incident_closed,
    incident_unread,
    row_line,
)
from .sqlite_schema import ASIDE_COLUMNS, QUARANTINE_TTL, RecordsSql

OWN = "SELECT id FROM memops_generation WHERE namespace = ?"
ROWS = (
    "SELECT n.name, n.state, n.prior_state, n.generation, EXISTS "
    "(SELECT 1 FROM memops_generation g WHERE g.id = n.generation AND g.namespace = n.name) FROM memops_namespace n"
)
LOST = (
    "SELECT DISTINCT g.namespace FROM memops_generation g WHERE NOT EXISTS "
    "(SELECT 1 FROM memops_namespace n WHERE n.name = g.namespace)"
)


def astray_rows(con: sqlite3.Connection, s: RecordsSql, only: str | None = None) -> list[tuple[str, str]]:
    """(namespace, what is wrong with its control row), of all or of one."""
    if s.layout != "native":
        return []  # the live records lie elsewhere
    if only is None:
        found, lost = con.execute(ROWS).fetchall(), con.execute(LOST).fetchall()
    else:  # each read and write asks this: no walk through all of them
        found = con.execute(f"{ROWS} WHERE n.name = ?", (only,)).fetchall()
        lost = [] if found else con.execute(f"{LOST} AND g.namespace = ?", (only,)).fetchall()
    wrong = [(row[0], astray_why(*row[1:])) for row in found]
    return sorted([(name, why) for name, why in wrong if why is not None] + [(row[0], GONE) for row in lost])


def refuse_astray(con: sqlite3.Connection, s: RecordsSql, name: str | None = None) -> None:
    """Errors: NamespaceDamaged where the control row of the namespace (None: of any) does not lead to its records."""
    for wrong, why in astray_rows(con, s, name):
        raise astray(wrong, why)


def unread_incidents(con: sqlite3.Connection) -> list[tuple[str, str]]:
    """(namespace, incident) of rows that do not say any more what was done."""
    rows = con.execute("SELECT namespace, incident, facts FROM memops_incident ORDER BY rowid")
    return [(row[0], row[1]) for row in rows if facts_of(row[2]) is None]


def told(con: sqlite3.Connection, s: RecordsSql) -> list[str]:
    lines = [row_line(name, why) for name, why in astray_rows(con, s)]
    return lines + [incident_unread(*one) for one in unread_incidents(con)]


def close_unread(con: sqlite3.Connection, at: int) -> list[str]:
    """Incidents of which nobody knows what was done in them go no further; what was done, in words."""
    done = []
    for name, incident in unread_incidents(con):
        con.execute(
            "UPDATE memops_incident SET state = 'closed', attempt = '', lease_until = ?, facts = '{}' "
            "WHERE namespace = ? AND incident = ?",
            (at, name, incident),
        )
        done.append(incident_closed(name, incident))
    return done


def lead_back(con: sqlite3.Connection, sql: RecordsSql, at: int) -> list[str]:
    """Each row names the generation with the namespace's newest record again (of several the fullest: one may have been
    in the making); what was written past it comes along where it is newer, the rest is set aside. The fence is down
    meanwhile. Where nobody knows whether the namespace was quarantined, it is."""
    done = []
    for name, why in astray_rows(con, sql):
        own = [row[0] for row in con.execute(OWN, (name,))]
        if why == GONE:
            con.execute(
                "INSERT INTO memops_namespace (name, state, generation, serving_ttl, prior_state, lock_number) "
                f"SELECT ?, 'quarantined', ?, ?, 'serving', coalesce(max(lock), 0) FROM {sql.log} WHERE namespace = ?",
                (name, _active(con, sql, own), QUARANTINE_TTL, name),
            )
            done.append(AGAIN.format(name))
            continue
        (number,) = con.execute("SELECT generation FROM memops_namespace WHERE name = ?", (name,)).fetchone()
        if number not in own:
            done.append(_generation(con, sql, name, number, own, at))
        if why != elsewhere(number):
            con.execute(
                "UPDATE memops_namespace SET state = 'quarantined', serving_ttl = ?, prior_state = 'serving', "
                "prior_ttl = NULL WHERE name = ?",
                (QUARANTINE_TTL, name),
            )
            done.append(f"quarantined namespace {name!r:.80}, whose control row {why}")
    return done


def _generation(con: sqlite3.Connection, s: RecordsSql, name: str, number: int, own: list[int], at: int) -> str:
    """Lead a row that names a generation which its namespace does not have; what was done."""
    taken = con.execute("SELECT 1 FROM memops_generation WHERE id = ?", (number,)).fetchone() is not None
    if not own and not taken:
        con.execute("INSERT INTO memops_generation (id, namespace, created) VALUES (?, ?, ?)", (number, name, at))
        return f"noted generation {number} as that of namespace {name!r:.80}"
    if not own:  # another namespace's, and it has none itself: an empty one
        target = con.execute("INSERT INTO memops_generation (namespace, created) VALUES (?, ?)", (name, at)).lastrowid
        con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (target, name))
        return f"gave namespace {name!r:.80} the new generation {target}; its records have to come from a snapshot"
    target = _active(con, s, own)
    if not taken:  # else they are another namespace's
        _bring(con, s, name, number, target, at)
    con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (target, name))
    return f"led namespace {name!r:.80} back to its generation {target}"


def _active(con: sqlite3.Connection, s: RecordsSql, own: list[int]) -> int:
    return max(own, key=lambda one: (_fullest(con, s, one), one))


def _fullest(con: sqlite3.Connection, s: RecordsSql, generation: int) -> tuple[int, int, int]:
    """(epoch, sequence) of its newest record, and how many it has."""
    row: tuple[int, int, int] | None = con.execute(
        f"SELECT epoch, sequence, count(*) OVER () FROM {s.table} WHERE {s.generation} = ? "
        "ORDER BY epoch DESC, sequence DESC LIMIT 1",
        (generation,),
    ).fetchone()
    return row or (0, 0, 0)


def _bring(con: sqlite3.Connection, s: RecordsSql, name: str, source: int, target: int, at: int) -> None:
    newer = (
        f"EXISTS (SELECT 1 FROM {s.table} r WHERE r.{s.generation} = ? AND r.{s.key} = o.{s.key} "
        "AND (r.epoch, r.sequence) {} (o.epoch, o.sequence))"
    )
    aside = (
        f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) "
        f"SELECT ?, 'structure', 'superseded', ?, {s.columns} FROM {s.table} o WHERE o.{s.generation} = ? AND "
    )
    con.execute(aside + newer.format(">="), (name, at, source, target))
    con.execute(aside + newer.format(">"), (name, at, target, source))
    con.execute(
        f"INSERT OR REPLACE INTO {s.table} ({s.generation}, {s.columns}) SELECT ?, {s.columns} FROM {s.table} o "
        f"WHERE o.{s.generation} = ? AND NOT " + newer.format(">="),
        (target, source, target),
    )
    con.execute(f"DELETE FROM {s.table} WHERE {s.generation} = ?", (source,))
