# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's own tables in PostgreSQL as a store: the layouts of tables.

PRIVATE to the collection. Quarantines, incidents, leases, what lies aside and what is staged stand in a schema of the
collection's own, by the code of the native layout; it is made with the first thing that an operator changes.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed, InvalidInput, NamespaceUnknown
from .._layouts import layout as layout_called
from .._layouts.tables import TablesLayout
from .._model import IncidentState, NamespaceState, Row, StoreIdentity
from .._table_moved import Wide, widened
from .._table_records import Cell
from .applications_own import WithoutLog
from .leases import busy_timeout
from .postgresql import PostgresqlStore, _exists
from .postgresql_connect import store_identity
from .postgresql_control import told
from .postgresql_reader import PostgresqlReader
from .postgresql_schema import literal
from .postgresql_session import Address, Session
from .tables_postgresql_generations import TablesGenerations
from .tables_postgresql_reader import UNMADE, Live, TablesReader
from .tables_postgresql_rules import carries_namespace, helpers
from .tables_postgresql_schema import Table, look
from .tables_postgresql_search import TablesSearch
from .tables_postgresql_structure import TablesStructure, lines_of

CAPABILITIES = frozenset(("expiry", "generations", "search"))
BY_ROLES = frozenset(("fence-reads", "fence-writes", "fence-raw-reads"))  # where the application has a role of its own


class _OperatorsAddress(Address):
    """Its sessions pass the fence, if they are the operator's."""

    def connect(self) -> Session:
        session = super().connect()
        session.rows("SELECT set_config('memops.operating', 'on', false)")
        return session


class _Reader(TablesReader):
    """With what only the store knows: where the tables are, and which fence should stand."""

    table_schema = "public"
    lost: t.Callable[[Session], list[str]]

    def structure(self) -> list[str]:
        lost = self.lost(self._session) + told(self._session, self._sql) if self._made else []
        return lines_of(self._session, self._live, self.table_schema, lost)


class TablesPostgresqlStore(WithoutLog, TablesSearch, TablesStructure, TablesGenerations, PostgresqlStore):
    """See _store.Store."""

    def __init__(self, params: t.Mapping[str, t.Any], layout: TablesLayout) -> None:
        address = _OperatorsAddress(params, busy_timeout(params))
        schema = str(params.get("schema") or "memops")
        self.table_schema = str(params.get("table_schema") or "public")
        if schema == self.table_schema:
            raise InvalidInput(
                f"memory_store.schema {schema} is where the application's tables are.",
                "name another schema, in which the collection keeps what is its own",
            )
        super().__init__(address, layout_called("native"), schema, params.get("application_user") or None)
        self.sql.layout = layout.name
        self.path = f"{address.where} (tables of {layout.name} in schema {self.table_schema})"
        self._tables_layout = layout
        self.made = False

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: t.Any, *, create: bool = False) -> TablesPostgresqlStore:
        store = cls(params, layout)
        store.application = params
        try:
            store._look()
        except BaseException:
            store.close()
            raise
        return store

    def _look(self) -> None:
        session = self._session()
        if session.row("SELECT current_setting('server_encoding')")[0] != "UTF8":
            raise InvalidInput(
                f"The database of {self.path} is not in UTF-8.", "move the application to a database that is"
            )
        roots = look(session, self._tables_layout, self.table_schema, self.address.where)
        for root in roots:
            if not carries_namespace(root):
                raise InvalidInput(
                    f"A table beside {root.table.plain} does not have the columns of its namespace.",
                    "name a parent column for each column of the namespace",
                )
        version = int(session.row("SELECT current_setting('server_version_num')::int")[0])
        self.live = Live(self._tables_layout, roots, version)
        self._sees_all(session)
        if _exists(session, self.sql):
            self._recognise(False)
            self.made = True

    def _sees_all(self, session: Session) -> None:
        """Errors: InvalidInput when rules of the application hide rows from this user."""
        for root in self.live.roots:
            for table in root.tables:
                rows = session.rows(
                    "SELECT polname::text FROM pg_policy WHERE polrelid = %s::bigint::oid "
                    "AND NOT starts_with(polname::text, 'memops_') AND row_security_active(polrelid) "
                    # while a fence stands, who sees all rows without it has a rule that lets him
                    "AND NOT (polpermissive AND EXISTS (SELECT 1 FROM pg_policy m "
                    "WHERE m.polrelid = pg_policy.polrelid AND m.polname = 'memops_pass'))",
                    table.oid,
                )
                if rows:
                    raise InvalidInput(
                        f"This user does not see all rows of {table.plain}: the rule {rows[0][0]} binds it.",
                        "connect as the owner of the table, or give the operator BYPASSRLS",
                    )

    def _make_control(self) -> None:
        """The collection's own schema and tables."""
        if self.made:
            return
        session = self._session()
        if not _exists(session, self.sql):
            self._make(session)
        self._recognise(False)
        self.made = True

    def _beside(self, session: Session) -> list[str]:
        return helpers(self.sql.schema, session.row("SELECT current_user::text")[0])

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[Session]:
        self._make_control()
        with super()._transaction() as session:  # pylint: disable=contextmanager-generator-missing-cleanup
            yield session

    def layout_name(self) -> str:
        return self._tables_layout.name

    def capabilities(self) -> frozenset[str]:
        if self._capabilities is None:
            found = CAPABILITIES | (BY_ROLES if self._raw_reads_fenced() else frozenset())
            self._capabilities = found & self._tables_layout.capabilities
        return self._capabilities

    def identity(self) -> StoreIdentity:
        if not self.made:
            return self._nobody()
        return super().identity()

    def _nobody(self) -> StoreIdentity:
        return StoreIdentity("", "", "postgresql", self._tables_layout.name, 0, 0)

    def _first_query(self) -> str:
        return super()._first_query() if self.made else "SELECT 1"

    def _reader(self, session: Session, row: t.Any) -> PostgresqlReader:
        identity = store_identity(row) if self.made else self._nobody()
        reader = _Reader(session, self.path, self.sql, identity, self._take_back, self.live, self.made)
        reader.table_schema, reader.lost = self.table_schema, self.fence_lost
        return reader

    # --- namespaces ---------------------------------------------------------------------------------------------
    def _namespace(self, session: Session, name: str, lock: str = "") -> NamespaceState:
        """A namespace has a control row from the first time that an operator changes something about it."""
        try:
            return super()._namespace(session, name, lock)
        except NamespaceUnknown:
            if not self.live.any(session, name):
                raise
            self._make_namespace(session, name, "serving", None)
        return super()._namespace(session, name, lock)

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        self.live.sql[0].inside(name)  # says how a namespace is written
        with self._transaction() as session:
            made = self._make_namespace(session, name, state, None)
            if state != "serving":  # also where it was made before, and a partition has come since
                self._carry_out(session)
        return made

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        return super().incidents(namespace) if self.made else []

    def generations(self, namespace: str) -> list[int]:
        if not self.made:
            return [UNMADE]
        with self._asking() as session:
            known = session.row(f"SELECT 1 FROM {self.sql.namespace} WHERE name = %s", namespace.encode())
        return super().generations(namespace) if known else [UNMADE]

    def with_todays_columns(self, namespace: str, rows: t.Sequence[Row]) -> list[Row]:
        """The rows with the defaults of columns that came since they were saved. Errors: CannotProceed."""
        tables = [table for live in self.live.roots for table in live.tables]
        today = {
            table.plain: Wide(tuple((c.name, c.kind) for c in table.columns), self._default_of(table))
            for table in tables
        }
        return [widened(row, "postgresql", namespace, today) for row in rows]

    def _default_of(self, table: Table) -> t.Callable[[str], Cell]:
        def default(column: str) -> Cell:
            with self._asking() as session:
                needed, text, varies, then = session.row(
                    "SELECT a.attnotnull, pg_get_expr(d.adbin, d.adrelid), "
                    "d.adbin::text LIKE '%%SQLVALUEFUNCTION%%' OR EXISTS "
                    "(SELECT 1 FROM regexp_matches(d.adbin::text, ':(?:op)?funcid ([0-9]+)', 'g') AS f(parts) "
                    "JOIN pg_proc p ON p.oid = f.parts[1]::oid WHERE p.provolatile <> 'i'), "
                    # what rows that were there got when the column came
                    "CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END "
                    "FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
                    "WHERE a.attrelid = %s::bigint::oid AND a.attname = %s",
                    table.oid, column,
                )  # fmt: skip
                if varies and then is not None:
                    text = literal(then)
                elif varies or (text is None and needed):
                    why = f"whose default is another for each row ({text})" if varies else (
                        "which is never empty and has no default"
                    )
                    raise CannotProceed(
                        f"The table {table.plain} has a column {column} since, {why}.",
                        "bring the tables to the framework's version that the snapshot was taken with, then run the "
                        "same command again",
                    )
                if text is None:
                    return None
                one, default = table.column(column), text.replace("%", "%%")
                found: Cell = session.row(f"SELECT {one.sent(f'({default})::{one.base}')}")[0]
                return found

        return default
