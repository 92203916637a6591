# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL engine: open or make a store, and hand out readers.

PRIVATE to the collection. The parts of ``PostgresqlStore`` stand in the files postgresql_*.py beside this one.

A store is one schema. Who makes it owns its tables; operators connect as the owner or as a member of that role.
Applications connect as ``application_user``, which the owner grants what it needs when opening it with ``create``;
so that ``prove`` can act as that role, it is granted to the owner (GRANT application TO owner).
"""
from __future__ import annotations

import contextlib
import re
import typing as t
import uuid

from .._errors import CannotProceed, InvalidInput, MemoryOpsError, StoreDamaged, StoreMissing
from .._layouts import Layout
from .._model import StoreIdentity
from .leases import busy_timeout
from .postgresql_applications import Applications
from .postgresql_connect import identity_query, store_identity
from .postgresql_errors import IDENTITY
from .postgresql_fence import enable, functions, policy_statements, triggers
from .postgresql_generations import Generations
from .postgresql_incidents import Incidents
from .postgresql_log import LogKeeping
from .postgresql_operators import Operators
from .postgresql_reader import PostgresqlReader
from .postgresql_schema import FORMAT, RecordsSql, literal
from .postgresql_session import SNAPSHOT, WRITING, Address, Session
from .postgresql_structure import Structure
from .postgresql_whole import Whole
from .store_kind import check_kind

CAPABILITIES = frozenset(
    (
        "checksum", "encryption", "expiry", "fence-reads", "fence-writes",
        "generations", "log", "search", "sequence", "tombstones", "whole-store", "write-lock",
    )
)


class PostgresqlStore(Applications, Incidents, Whole, Operators, Generations, LogKeeping, Structure):
    """See _store.Store. One session writes; every reader has a session of its own."""

    def __init__(self, address: Address, layout: Layout, schema: str, application_user: str | None) -> None:
        super().__init__(address, RecordsSql(layout, schema))
        self.path = address.where if schema == "memops" else f"{address.where} (schema {schema})"
        self.application_user = application_user
        self._layout_capabilities = layout.capabilities
        self._capabilities: frozenset[str] | None = None

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> PostgresqlStore:
        address = Address(params, busy_timeout(params))
        store = cls(address, layout, str(params.get("schema") or "memops"), params.get("application_user") or None)
        try:
            store._recognise(create)
        except BaseException:
            store.close()
            raise
        return store

    def _recognise(self, create: bool) -> None:
        """Errors: StoreMissing, InvalidInput for another format or layout; StoreDamaged."""
        session, s = self._session(), self.sql
        if not _exists(session, s):
            if not create:
                raise StoreMissing(
                    f"There is no memory store in schema {s.plain_schema} of {self.address.where}.",
                    "correct memory_store.url and memory_store.schema, or restore a snapshot there: "
                    "ansible-playbook memops.agent_memory.restore -e memory_create=true",
                )
            self._make(session)
        row = session.row(f"SELECT format, layout FROM {s.store}")
        if row is None:
            raise StoreDamaged(f"The store {self.path} has lost its identity.", IDENTITY)
        check_kind(self.path, row[0], row[1], FORMAT, s.layout, "memory_store.schema")
        if create:
            self._grant(session)

    def _make(self, session: Session) -> None:
        """Make the schema and all in it as one transaction; two that do so at once make one store."""
        s = self.sql
        session.begin(WRITING)
        try:
            self._one_at_a_time(session)
            if not _exists(session, s):
                if session.row("SELECT 1 FROM pg_namespace WHERE nspname = %s", s.plain_schema) is None:
                    session.say(f"CREATE SCHEMA {s.schema}")
                parts = (s.tables(), s.indexes(), functions(s), triggers(s), policy_statements(s))
                for texts in parts:
                    for text in texts.values():
                        session.say(text)
                session.say(enable(s))
                for text in self._beside(session):
                    session.say(text)
                store_id = str(uuid.uuid4())
                session.run(
                    f"INSERT INTO {s.store} VALUES (1, %s, %s, %s, %s, 1, 0, 0, 0, 0)",
                    FORMAT, store_id, store_id, s.layout,
                )  # fmt: skip
            self._of_operator(session)
            session.commit()
        except BaseException:
            session.roll_back()
            raise

    def _beside(self, session: Session) -> list[str]:
        """What a layout needs beside it, made in the same transaction: a store that exists is whole."""
        return []

    def _one_at_a_time(self, session: Session) -> None:
        session.rows("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", "memops " + self.sql.plain_schema)

    def _grant(self, session: Session) -> None:
        """Give the application's role what it needs, when this is the owner and it has not got all of that."""
        role = self.application_user
        if not role:
            return
        s = self.sql
        row = session.row(
            "SELECT pg_has_role(c.relowner, 'USAGE'), r.oid IS NULL, r.oid IS NOT NULL AND "
            "has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_table_privilege(r.oid, c.oid, 'DELETE') "
            "FROM pg_class c LEFT JOIN pg_roles r ON r.rolname = %s "
            "LEFT JOIN pg_proc p ON p.pronamespace = c.relnamespace AND p.proname = 'memops_create_namespace' "
            "WHERE c.oid = to_regclass(%s)",
            role, s.table,
        )  # fmt: skip
        if not row or not row[0] or row[2]:
            return
        if row[1]:
            raise InvalidInput(
                f"The PostgreSQL server of {self.path} has no role {role}.",
                "correct memory_store.application_user, or create the role",
            )
        session.begin(WRITING)
        try:
            self._one_at_a_time(session)
            for text in s.grants(role):
                session.say(text)
            session.commit()
        except BaseException:
            session.roll_back()
            raise

    def take_turns(self, lock: t.Any) -> None:
        """They need not: who writes other rows does not wait."""

    def capabilities(self) -> frozenset[str]:
        if self._capabilities is None:
            found = CAPABILITIES | {"fence-raw-reads"} if self._raw_reads_fenced() else CAPABILITIES
            self._capabilities = found & self._layout_capabilities
        return self._capabilities

    def identity(self) -> StoreIdentity:
        with self._asking() as session:
            return store_identity(session.row(identity_query(self.sql)))

    def reader(self, point: str | None = None) -> PostgresqlReader:
        return self._read(point)

    def _read(self, point: str | None) -> PostgresqlReader:
        """Errors: CannotProceed when the point has passed."""
        join = [] if point is None else [f"SET TRANSACTION SNAPSHOT {literal(point)}"]
        passed = CannotProceed(f"The point {point!r:.80} of the store {self.path} has passed.", "start again")
        if point is not None and not re.fullmatch(r"[0-9A-Fa-f-]+", point):
            raise passed
        try:  # a page that cannot be read must not end the reader: a savepoint; and a query, which takes the snapshot
            session, row = self._borrow(SNAPSHOT, *join, "SAVEPOINT memops", self._first_query())
        except MemoryOpsError as exc:
            if point is not None and (isinstance(exc, (InvalidInput, StoreDamaged)) or "snapshot" in exc.message):
                raise passed from exc
            raise
        return self._reader(session, row)

    def _first_query(self) -> str:
        return identity_query(self.sql)

    def _reader(self, session: Session, row: t.Any) -> PostgresqlReader:
        return PostgresqlReader(session, self.path, self.sql, store_identity(row), self._take_back)

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        session, row = self._borrow(SNAPSHOT, "SELECT pg_export_snapshot()")
        try:
            yield str(row[0])
        finally:
            self._take_back(session)


def _exists(session: Session, s: RecordsSql) -> bool:
    """Errors: StoreDamaged when a part of a store is there without its control table."""
    rows = session.rows(  # to_regclass would answer from a cache that a store just made is not in
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s",
        s.plain_schema,
    )
    found = {row[0] for row in rows}
    if "memops_store" not in found and found & {s.plain_table, "memops_namespace"}:
        raise StoreDamaged(f"The store in schema {s.plain_schema} has lost its control tables.", IDENTITY)
    return "memops_store" in found
