# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces of a PostgreSQL store whose control row is gone or does not lead to their records: found, and led back.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

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
from .postgresql_rows import escaped, lenient
from .postgresql_schema import RecordsSql

if t.TYPE_CHECKING:
    from .postgresql_session import Session

QUARANTINE_TTL: t.Final = 1.0
_ASIDE: t.Final = (
    "namespace, incident, reason, at, key, epoch, sequence, created, updated, expires, deleted, key_id, payload, "
    "checksum"
)


def own_generation(s: RecordsSql) -> str:
    """Whether the row n names a generation that the namespace has."""
    return f"EXISTS (SELECT 1 FROM {s.generation} g WHERE g.id = n.generation AND g.namespace = n.name)"


def refuse_lost(session: Session, s: RecordsSql, name: str) -> None:
    """Errors: NamespaceDamaged where a namespace that has no row has generations."""
    if session.row(f"SELECT 1 FROM {s.generation} WHERE namespace = %s LIMIT 1", escaped(name)):
        raise astray(name, GONE)


def unread_incidents(session: Session, s: RecordsSql) -> list[tuple[bytes, str]]:
    """(namespace, incident), but for those of the whole store."""
    rows = session.rows(
        f"SELECT namespace, incident, facts FROM {s.incident} WHERE namespace <> ''::bytea ORDER BY number"
    )
    return [row[:2] for row in rows if facts_of(row[2]) is None]


def lost_rows(session: Session, s: RecordsSql) -> list[str]:
    """The namespaces that have generations and no row."""
    rows = session.rows(
        f"SELECT DISTINCT g.namespace FROM {s.generation} g WHERE NOT EXISTS "
        f"(SELECT 1 FROM {s.namespace} n WHERE n.name = g.namespace) ORDER BY 1"
    )
    return [lenient(row[0]) for row in rows]


def astray_rows(session: Session, s: RecordsSql) -> list[tuple[str, str]]:
    """(namespace, what is wrong with its control row)."""
    rows = session.rows(
        f"SELECT n.name, n.state, n.prior_state, n.generation, {own_generation(s)} FROM {s.namespace} n ORDER BY name"
    )
    wrong = [(lenient(row[0]), astray_why(*row[1:])) for row in rows]
    return sorted(
        [(name, why) for name, why in wrong if why is not None] + [(name, GONE) for name in lost_rows(session, s)]
    )


def told(session: Session, s: RecordsSql) -> list[str]:
    lines = [row_line(name, why) for name, why in astray_rows(session, s)]
    return lines + [incident_unread(lenient(name), incident) for name, incident in unread_incidents(session, s)]


def lead_back(session: Session, s: RecordsSql, at: int, native: bool = True) -> list[str]:
    """Each row leads to the generation with the namespace's newest record again, and the namespace is quarantined where
    nobody knows whether it was; ``native``: the live records are rows of generations, too. In a transaction for which
    the fence opens."""
    done = []
    for raw, incident in unread_incidents(session, s):
        session.run(
            f"UPDATE {s.incident} SET state = 'closed', attempt = '', lease_until = %s, facts = '{{}}' "
            "WHERE namespace = %s AND incident = %s",
            at, raw, incident,
        )  # fmt: skip
        done.append(incident_closed(lenient(raw), incident))
    for name, why in astray_rows(session, s):
        own = [row[0] for row in session.rows(f"SELECT id FROM {s.generation} WHERE namespace = %s", escaped(name))]
        row = session.row(f"SELECT generation, state FROM {s.namespace} WHERE name = %s FOR UPDATE", escaped(name))
        if why == GONE:
            session.run(
                f"INSERT INTO {s.namespace} (name, state, generation, serving_ttl, prior_state, lock_number) SELECT "
                f"%s, 'quarantined', %s, %s, 'serving', coalesce(max(lock), 0) FROM {s.log} WHERE namespace = %s",
                escaped(name), _active(session, s, own, native), QUARANTINE_TTL, escaped(name),
            )  # fmt: skip
            done.append(AGAIN.format(name))
            continue
        if row[0] not in own:
            done.append(_generation(session, s, name, row[0], own, at, native))
        if why != elsewhere(row[0]):
            session.run(
                f"UPDATE {s.namespace} SET state = 'quarantined', serving_ttl = %s, prior_state = 'serving', "
                "prior_ttl = NULL WHERE name = %s",
                QUARANTINE_TTL, escaped(name),
            )  # fmt: skip
            done.append(f"quarantined namespace {name!r:.80}, whose control row {why}")
    return done


def _generation(
    session: Session, s: RecordsSql, name: str, named: int, own: list[int], at: int, native: bool
) -> str:
    """Lead a row that names a generation which its namespace does not have; what was done."""
    taken = session.row(f"SELECT 1 FROM {s.generation} WHERE id = %s", named) is not None
    target = _active(session, s, own, native) if own else None
    written = not taken and _newest(session, s, named)[2] > 0
    if target is None and taken:  # another namespace's, and it has none itself: an empty one
        target = session.row(
            f"INSERT INTO {s.generation} (namespace, created) VALUES (%s, %s) RETURNING id", escaped(name), at
        )[0]
        session.run(f"UPDATE {s.namespace} SET generation = %s WHERE name = %s", target, escaped(name))
        return f"gave namespace {name!r:.80} the new generation {target}; its records have to come from a snapshot"
    given = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass), 0)"
    newest = int(session.row(given, s.generation)[0])
    if target is None or (written and named <= newest):  # it was given out, and only the note of it is lost
        session.run(
            f"INSERT INTO {s.generation} (id, namespace, created) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s)",
            named, escaped(name), at,
        )  # fmt: skip
        if named > newest:
            session.rows("SELECT setval(pg_get_serial_sequence(%s, 'id')::regclass, %s)", s.generation, named)
        return f"noted generation {named} as that of namespace {name!r:.80}"
    if written and native:
        _bring(session, s, name, named, target, at)
    session.run(f"UPDATE {s.namespace} SET generation = %s WHERE name = %s", target, escaped(name))
    return f"led namespace {name!r:.80} back to its generation {target}"


def _newest(session: Session, s: RecordsSql, generation: int) -> tuple[int, int, int]:
    """(epoch, sequence) of its newest record, and how many it has."""
    row = session.row(
        f"SELECT epoch, sequence, count(*) OVER () FROM {s.table} WHERE generation = %s "
        "ORDER BY epoch DESC, sequence DESC LIMIT 1",
        generation,
    )
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


def _active(session: Session, s: RecordsSql, own: t.Sequence[int], native: bool) -> int:
    """The one with the newest record; of several the one with the most: one may have been in the making. Where the live
    records lie in tables of an application, the one that has no rows here."""
    found = [(one, _newest(session, s, one)) for one in own]
    if not native:
        return min(found, key=lambda one: (one[1][2] > 0, one[0]))[0]
    return max(found, key=lambda one: (one[1], one[0]))[0]


def _bring(session: Session, s: RecordsSql, name: str, source: int, target: int, at: int) -> None:
    """What was written past the generation comes along where it is newer; the rest is set aside."""
    newer = (
        f"EXISTS (SELECT 1 FROM {s.table} x WHERE x.generation = %s AND x.key = r.key AND x.key_mark = r.key_mark "
        "AND (x.epoch, x.sequence) {} (r.epoch, r.sequence))"
    )
    aside = (
        f"INSERT INTO {s.aside} ({_ASIDE}) SELECT %s, 'structure', 'superseded'::bytea, %s, {s.whole} "
        f"FROM {s.table} r WHERE r.generation = %s AND "
    )
    session.run(aside + newer.format(">="), escaped(name), at, source, target)
    session.run(aside + newer.format(">"), escaped(name), at, target, source)
    session.run(f"DELETE FROM {s.table} r WHERE r.generation = %s AND " + newer.format(">="), source, target)
    session.run(f"DELETE FROM {s.table} r WHERE r.generation = %s AND " + newer.format(">"), target, source)
    session.run(f"UPDATE {s.table} SET generation = %s WHERE generation = %s", target, source)
