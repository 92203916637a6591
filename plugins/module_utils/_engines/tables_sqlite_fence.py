# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence around a namespace of another application's tables in a SQLite file, and its proof.

PRIVATE to the collection. What is quarantined is not in the application's tables any more: it reads nothing, on
connections that are open too; triggers refuse what it writes. Both come and go in one transaction.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._errors import NamespaceQuarantined
from .._model import Claim
from .._table_records import namespace_columns
from .._words import counted
from .leases import settable
from .sqlite_connect import connect, sqlite_errors, translate
from .tables_sqlite_connect import TablesOpened, state_of
from .tables_sqlite_sql import Schema, Table, name
from .tables_sqlite_structure import fence_findings
from .tables_sqlite_triggers import suspended

QUARANTINE_TTL = 1.0
PROBE = "memops-probe"


class TablesFence(TablesOpened):
    """The fence's part of ``Store``."""

    def fence(self, claim: Claim) -> bool:
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            if space.state == "quarantined":
                changed = bool(self._raise_triggers(con))
                if space.incident != claim.incident:  # left by an incident that was closed without a release
                    con.execute(
                        "UPDATE memops_namespace SET incident = ? WHERE name = ?", (claim.incident, claim.namespace)
                    )
                    changed = True
                return changed
            self._unfence_writes(con, claim.namespace)
            self._take_out(con, claim.namespace, space.generation)
            con.execute(
                "UPDATE memops_namespace SET prior_state = state, prior_ttl = serving_ttl, state = 'quarantined', "
                "serving_ttl = ?, incident = ? WHERE name = ?",
                (QUARANTINE_TTL, claim.incident, claim.namespace),
            )
            self._fence_writes(con, claim.namespace)
        return True

    def unfence(self, claim: Claim) -> bool:
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            if space.state != "quarantined":
                return False
            self._unfence_writes(con, claim.namespace)
            self._put_in(con, claim.namespace, space.generation)
            if space.prior_state != "serving":
                self._fence_writes(con, claim.namespace)
            con.execute(
                "UPDATE memops_namespace SET state = prior_state, serving_ttl = prior_ttl, incident = NULL, "
                "prior_state = NULL, prior_ttl = NULL WHERE name = ?",
                (claim.namespace,),
            )
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        """In a quarantine this sets the state that the release brings back: nothing is served in between."""
        settable(state)
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            column = "prior_state" if space.state == "quarantined" else "state"
            if getattr(space, column) == state:
                return False
            con.execute(f"UPDATE memops_namespace SET {column} = ? WHERE name = ?", (state, claim.namespace))
            if column == "state":
                if state == "serving":
                    self._unfence_writes(con, claim.namespace)
                else:
                    self._fence_writes(con, claim.namespace)
        return True

    # --- the proof ----------------------------------------------------------------------------------------------
    def prove(self, namespace: str) -> dict[str, t.Any]:
        detail: list[str] = []
        with sqlite_errors(self.path):
            con = connect(self.path, self.busy_timeout)  # a client of its own, as the application is one
            try:
                schema = self.schema(con)
                state = state_of(con, schema, namespace, self.path).state
                con.execute("BEGIN IMMEDIATE")
                missing = fence_findings(con, schema)
                with suspended(con, schema):  # what the application's own triggers refuse proves nothing
                    refused = [self._try(con, schema, root, namespace, detail) for root in schema.roots]
                rows = sum(_rows(con, table, namespace) for table in schema.tables)
            finally:
                with contextlib.suppress(sqlite3.Error):  # closing rolls back too, and must happen
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                con.close()
        detail += missing
        held = state == "quarantined" and not rows
        if state == "quarantined":
            are = counted(rows, "row of the namespace is", "rows of the namespace are")
            detail.append(f"SELECT: {are} in the application's tables")
        else:
            detail.append(f"SELECT: the namespace is {state}")
        return {
            "writes_refused": all(refused) and not missing,
            "reads_refused": held,
            "reads_accepted": state != "quarantined",
            "detail": detail,
            "not_fenced": [
                "a program that reads the collection's own tables (memops_held_…) in the file",
                "a program with write access to the file that drops the triggers or changes the control tables",
                "a transaction that began to read before the fence, until it ends (write-ahead log only)",
            ],
        }

    def _try(self, con: sqlite3.Connection, schema: Schema, root: Table, namespace: str, detail: list[str]) -> bool:
        """Insert, replace, update and delete a row of the namespace; everything is rolled back."""
        columns = dict(namespace_columns(schema.rule, namespace))
        columns.update((key, "0" if key in root.root.numbers else PROBE) for key in root.root.key)
        listed = ", ".join(name(column) for column in columns)
        marks = ", ".join("?" * len(columns))
        values = tuple(columns.values())
        refused = [
            _refused(con, self.path, f"{verb} INTO {root.plain} ({listed}) VALUES ({marks})", values, detail)
            for verb in ("INSERT", "INSERT OR REPLACE")
        ]
        inserts = f"memops_fence_insert_{root.name}"
        con.execute("SAVEPOINT memops_row")
        try:  # a row to update and delete: the namespace's own are not there
            con.execute(f"DROP TRIGGER IF EXISTS main.{name(inserts)}")
            if not _put_probe(con, root, columns):
                wanted = set(root.triggers()) - {inserts}
                there = {row[0] for row in con.execute("SELECT name FROM main.sqlite_master WHERE type = 'trigger'")}
                placed = wanted <= there
                where = "there" if placed else "missing"
                detail.append(f"UPDATE, DELETE of {root.name}: not tried; the triggers are {where}")
                return all(refused) and placed
            first = next(iter(columns))
            update = f"UPDATE {root.plain} SET {name(first)} = {name(first)} WHERE {root.one()}"
            identity = tuple(columns[column] for column in root.identity)
            refused.append(_refused(con, self.path, update, identity, detail))
            refused.append(_refused(con, self.path, f"DELETE FROM {root.plain} WHERE {root.one()}", identity, detail))
        finally:
            con.execute("ROLLBACK TO memops_row")
            con.execute("RELEASE memops_row")
        return all(refused)


def _rows(con: sqlite3.Connection, table: Table, namespace: str) -> int:
    inside, values = table.inside(namespace)
    return int(con.execute(f"SELECT count(*) FROM {table.plain} WHERE {inside}", values).fetchone()[0])


def _put_probe(con: sqlite3.Connection, root: Table, columns: t.Mapping[str, str]) -> bool:
    """A row with something in every column; whether the table took it."""
    given = {column.name: columns.get(column.name, "0") for column in root.columns}
    try:
        con.execute(
            f"INSERT INTO {root.plain} ({root.listed}) VALUES ({', '.join('?' * len(given))})", tuple(given.values())
        )
    except sqlite3.Error:
        return False
    return True


def _refused(con: sqlite3.Connection, path: str, text: str, values: tuple[t.Any, ...], detail: list[str]) -> bool:
    what = text.split(' "')[0].partition(" main.")[0]
    con.execute("SAVEPOINT memops_probe")
    try:
        con.execute(text, values)
        detail.append(f"{what}: accepted")
        return False
    except sqlite3.IntegrityError as exc:
        if isinstance(translate(exc, path), NamespaceQuarantined):
            detail.append(f"{what}: refused ({exc})")
            return True
        detail.append(f"{what}: not fenced ({exc})")  # only the table's own rules stood against it
        return False
    finally:
        con.execute("ROLLBACK TO memops_probe")
        con.execute("RELEASE memops_probe")
