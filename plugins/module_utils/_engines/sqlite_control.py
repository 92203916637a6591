# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces whose control row does not lead to their records: found, and led back.

PRIVATE to the collection. It is what a lost write of the control rows' page leaves. Applications miss all that was
there, and what they write since lies in a generation that nobody made.
"""
from __future__ import annotations

import sqlite3

from .sqlite_schema import ASIDE_COLUMNS, QUARANTINE_TTL, RecordsSql

OWN = "SELECT id FROM memops_generation WHERE namespace = ?"


def astray(con: sqlite3.Connection) -> list[tuple[str, int | None]]:
    """(namespace, the generation that its row names and that it does not have; None: it has generations and no row)."""
    if con.execute("SELECT layout FROM memops_store").fetchone() != ("native",):
        return []  # the live records lie elsewhere
    rows = con.execute(
        "SELECT name, generation FROM memops_namespace n WHERE NOT EXISTS "
        "(SELECT 1 FROM memops_generation g WHERE g.id = n.generation AND g.namespace = n.name) UNION ALL "
        "SELECT DISTINCT namespace, NULL FROM memops_generation g WHERE NOT EXISTS "
        "(SELECT 1 FROM memops_namespace n WHERE n.name = g.namespace) ORDER BY 1"
    )
    return [(row[0], row[1]) for row in rows]


def told(con: sqlite3.Connection) -> list[str]:
    return [
        f"the control row of namespace {name!r:.80} "
        + ("is gone, its records are there" if number is None else f"names generation {number}, which it does not have")
        for name, number in astray(con)
    ]


def lead_back(con: sqlite3.Connection, sql: RecordsSql, at: int) -> list[str]:
    """Each row names the generation with the namespace's newest record again (of several the fullest: one may have been
    in the making); what was written past it comes along where it is newer, the rest is set aside. The fence is down
    meanwhile. A row that is gone is made again with a quarantine, since nobody knows whether there was one."""
    done = []
    for name, number in astray(con):
        own = [row[0] for row in con.execute(OWN, (name,))]
        if number is None:
            target = max(own, key=lambda one: (_fullest(con, sql, one), one))
            con.execute(
                "INSERT INTO memops_namespace (name, state, generation, serving_ttl, prior_state, lock_number) "
                f"SELECT ?, 'quarantined', ?, ?, 'serving', coalesce(max(lock), 0) FROM {sql.log} WHERE namespace = ?",
                (name, target, QUARANTINE_TTL, name),
            )
            done.append(f"made the control row of namespace {name!r:.80} again; it is quarantined, as it may have been")
            continue
        taken = con.execute("SELECT 1 FROM memops_generation WHERE id = ?", (number,)).fetchone() is not None
        if not own and not taken:
            con.execute("INSERT INTO memops_generation (id, namespace, created) VALUES (?, ?, ?)", (number, name, at))
            done.append(f"noted generation {number} as that of namespace {name!r:.80}")
        elif own:
            target = max(own, key=lambda one: (_fullest(con, sql, one), one))
            if not taken:  # else they are another namespace's
                _bring(con, sql, name, number, target, at)
            con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (target, name))
            done.append(f"led namespace {name!r:.80} back to its generation {target}")
    return done


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
