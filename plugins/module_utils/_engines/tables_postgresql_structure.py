# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with another application's tables that their server does not say by itself. Read only.

PRIVATE to the collection. No question goes through the framework: LangGraph's ``get`` puts off a record's expiry.
"""
from __future__ import annotations

import abc
import contextlib
import typing as t

from .._application_notices import told
from .._errors import MemoryOpsError, StoreDamaged
from .._table_records import header
from .._words import counted
from .item_vectors import in_postgresql
from .postgresql_schema import literal, quoted
from .postgresql_session import Session
from .postgresql_structure import MOST_LINES, Structure, _transaction, ended, index_check
from .tables_postgresql_others import homes, unsaved
from .tables_postgresql_others import told as told_of_others
from .tables_postgresql_proof import TablesProof
from .tables_postgresql_reader import Live
from .tables_postgresql_schema import Table
from .tables_postgresql_sealed import sealed_notices
from .tables_postgresql_sql import row_sql
from .tables_postgresql_transcripts import transcripts
from .tables_postgresql_triggers import told_of_rules


def findings(session: Session, live: Live, schema: str) -> list[str]:
    """Damage in words, at most MOST_LINES."""
    lines = [f"index {name} is invalid" for _table, name in invalid(session, live)]
    lines += [f"index {name}: {why}" for _table, name, why in damaged(session, live)]
    for root in live.roots:
        for companion, table in root.companions:
            lines += _orphans(session, root.table, table, companion.parent)
    for table, column, sequence in behind(session, live):
        lines.append(f"the sequence {sequence} is behind {table.plain}.{column}: the next insert fails, or meets a row")
    if "half-migrated" in live.layout.findings:
        lines += _half_migrated(session, schema)
    return lines[:MOST_LINES]


def _tables(live: Live) -> list[Table]:
    return [table for root in live.roots for table in root.tables]


def invalid(session: Session, live: Live) -> list[tuple[str, str]]:
    return session.rows(
        "SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c "
        "ON c.oid = i.indexrelid AND c.relkind = 'i' WHERE i.indrelid::bigint = ANY(%s) "
        "AND NOT (i.indisvalid AND i.indisready) ORDER BY 2",
        homes(live),
    )


def damaged(session: Session, live: Live) -> list[tuple[str, str, str]]:
    """(table, index, what amcheck says) of each B-tree that is damaged, or in which a row of its table is missing."""
    check = index_check(session)
    if check is None:
        return []
    found = []
    for oid, table, name in session.rows(
        "SELECT i.indexrelid::bigint, i.indrelid::regclass::text, i.indexrelid::regclass::text FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid::bigint = ANY(%s) "
        "AND a.amname = 'btree' AND i.indisvalid AND i.indisready ORDER BY 3",
        homes(live),
    ):
        try:
            session.rows(f"SELECT {check}(%s::bigint::oid::regclass, true)", oid)
        except StoreDamaged as exc:
            found.append((table, name, exc.message))
        except MemoryOpsError:
            if session.usable:
                raise
            raise ended(session, name) from None
    return found


def _alone(root: Table, parent: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """(the condition that a row x belongs to no row of the root, what names it)."""
    same = " AND ".join(f"r.{quoted(other)} = x.{quoted(own)}" for own, other in parent)
    keys = " || '/' || ".join(f"x.{quoted(own)}::text" for own, _other in parent)
    return f"NOT EXISTS (SELECT 1 FROM {root.name} r WHERE {same})", keys


def _orphans(session: Session, root: Table, table: Table, parent: tuple[tuple[str, str], ...]) -> list[str]:
    alone, keys = _alone(root, parent)
    rows = session.rows(f"SELECT {keys} FROM {table.name} x WHERE {alone} LIMIT 1000")
    if not rows:
        return []
    belong = "belongs" if len(rows) == 1 else "belong"
    said = f"{counted(len(rows), 'row')} of {table.plain} {belong} to no row of {root.plain}"
    return [f"{said}, such as {str(rows[0][0])[:80]!r}"]


def _dimensions(session: Session, table: Table, column: str) -> list[str]:
    """Embeddings of several lengths in one column that does not say which."""
    if not table.column(column).kind.startswith("vector") or "(" in table.column(column).kind:
        return []
    schema = table.column(column).send.partition(".")[0]
    rows = session.rows(
        f"SELECT {schema}.vector_dims({quoted(column)}), count(*) FROM {table.name} WHERE {quoted(column)} IS NOT NULL "
        "GROUP BY 1 ORDER BY 2 DESC"
    )
    if len(rows) < 2:
        return []
    return [
        f"{counted(count, 'vector')} of {table.plain}.{column} {'has' if count == 1 else 'have'} {length} dimensions, "
        f"the others {rows[0][0]}, so a search may "
        "fail; unless the application stored them so, restore their records with memory_keys from a snapshot of before"
        for length, count in rows[1:]
    ]


def behind(session: Session, live: Live) -> list[tuple[Table, str, str]]:
    """Sequences that would give out a number again."""
    found = []
    for table in _tables(live):
        for column in table.columns:
            if column.sequence is not None:
                row = session.row(
                    f"SELECT (SELECT max({quoted(column.name)}) FROM {table.name}) > s.last_value "
                    f"FROM {column.sequence} s"
                )
                if row and row[0]:
                    found.append((table, column.name, column.sequence))
    return found


def notices(session: Session, live: Live) -> list[str]:
    """What is no damage to a record, but should be known of these frameworks."""
    lines = []
    first = live.roots[0].table
    wanted = live.layout.findings
    if "mem0-hash" in wanted:
        count = session.row(
            f"SELECT count(*) FROM {first.name} WHERE payload ->> 'hash' <> md5(payload ->> 'data')"
        )[0]
        if count:
            text = f"{'has a text that is not the one its' if count == 1 else 'have a text that is not the one their'}"
            lines.append(f"{counted(count, 'row')} of {first.plain} {text} hash was made of")
    if "item-without-vector" in wanted:
        lines += in_postgresql(session, live)
    lines += transcripts(session, live)
    for root in live.roots:
        of = [(root.table, root.root.vectors), *((table, companion.vectors) for companion, table in root.companions)]
        lines += [line for table, columns in of for column in columns for line in _dimensions(session, table, column)]
    return lines[:MOST_LINES]


def _half_migrated(session: Session, schema: str) -> list[str]:
    """LangGraph's setup notes a migration, and what it makes is not there."""
    names = {
        row[0]
        for row in session.rows(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname IN ('vector_migrations', 'store_vectors')",
            schema,
        )
    }
    if names == {"vector_migrations"}:
        return ["the vector index is half migrated: vector_migrations is there and store_vectors is not"]
    return []


class TablesStructure(TablesProof, Structure):
    """The structural part of ``Store``."""

    live: Live
    made: bool
    native = False
    application: t.Mapping[str, t.Any] = {}  # memory_store, with the keys of the application's own encryption

    @abc.abstractmethod
    def _make_control(self) -> None:
        """Make the tables of the collection where they are not there yet."""

    def warnings(self) -> list[str]:
        lines = Structure.warnings(self)
        unbound = self.unbound_application()
        if unbound is not None:
            lines.append(unbound)
        with self._asking() as session:
            lines += unsaved(session, self.live)
            lines += told_of_others(session, self.live) + told_of_rules(session, self.live)
            lines += notices(session, self.live)
            lines += told(self.application, lambda seals: sealed_notices(session, self.live, seals))
            for root, sql in zip(self.live.roots, self.live.sql):
                moment = root.root.expires
                if moment is not None and moment.form == "timestamp":
                    over = session.row(
                        f"SELECT count(*) FROM {sql.live.table.name} WHERE {quoted(moment.column)} < now()"
                    )[0]
                    if over:
                        rows = f"{counted(over, 'row')} of {root.table.plain}"
                        have, were = ("has", "was") if over == 1 else ("have", "were")
                        lines.append(f"{rows} {have} expired and {were} not swept away yet")
        return lines

    def unsaved(self) -> list[str]:
        """See _store_own.HasUnsavedRows."""
        with self._asking() as session:
            return unsaved(session, self.live)

    def repair_structure(self) -> list[str]:
        done = []
        session = self.address.connect()
        try:
            broken = {*invalid(session, self.live), *(one[:2] for one in damaged(session, self.live))}
            for home, name in sorted(broken):
                with contextlib.suppress(StoreDamaged):  # the table itself is broken
                    session.say(f"REINDEX INDEX {name}")
                    done.append(f"rebuilt the index {name} of {home}")
            for table, column, sequence in behind(session, self.live):
                session.rows(
                    f"SELECT setval({literal(sequence)}::regclass, (SELECT max({quoted(column)}) FROM {table.name}))"
                )
                done.append(f"set the sequence {sequence} to the newest row of {table.plain}")
            done += self._orphans_aside(session)
            if self.made:
                with _transaction(session):
                    done += self._lead_back(session)
                    if self.fence_lost(session) and self._carry_out(session):
                        done.append("raised the fence again")
        finally:
            session.close()
        return done

    def lead_back(self) -> list[str]:
        """See _store_optional.ControlRows."""
        if not self.made:
            return []
        with self._transaction() as session:
            done = self._lead_back(session)
            if done:
                self._carry_out(session)
        return done

    def _orphans_aside(self, session: Session) -> list[str]:
        """Rows that belong to no record: no framework reads them, and no rebuild of a namespace would meet them."""
        done = []
        for root in self.live.roots:
            for companion, table in root.companions:
                alone, keys = _alone(root.table, companion.parent)
                if session.row(f"SELECT 1 FROM {table.name} x WHERE {alone} LIMIT 1") is None:
                    continue
                self._make_control()
                join, row = row_sql(table, "x", "y")
                head = header("postgresql", [(table.plain, [(c.name, c.kind) for c in table.columns])]).hex()
                with _transaction(session):
                    count = session.run(
                        f"INSERT INTO {self.sql.aside} (namespace, incident, reason, at, epoch, sequence, created, "
                        "updated, key, key_id, payload, checksum) SELECT '', 'structure', 'belongs to no row'::bytea, "
                        f"%s, 0, 0, 0, 0, convert_to({keys}, 'UTF8'), '', "
                        f"'\\x{head}'::bytea || int4send(1) || {row}, '' "
                        f"FROM {table.name} x {join} WHERE {alone}",
                        self.clock(),
                    )
                    session.run(f"DELETE FROM {table.name} x WHERE {alone}")
                rows = counted(count, "row")
                belong = "belongs" if count == 1 else "belong"
                done.append(f"set {rows} of {table.plain} aside that {belong} to no row of {root.table.plain}")
        return done


def lines_of(session: Session, live: Live, schema: str, lost: t.Sequence[str]) -> list[str]:
    try:
        return [*lost, *findings(session, live, schema)][:MOST_LINES]
    except StoreDamaged as exc:
        return [*lost, exc.message]
