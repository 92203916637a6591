# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's tables in a SQLite file: which there are, and the SQL that finds and moves their rows.

PRIVATE to the collection. Rows that are not in the application's own tables lie in tables that *hold* them, one for
each: the same columns, without types, so that every value keeps its storage class, with the generation, the record's
key and the rowid in front.
"""
from __future__ import annotations

import sqlite3
import typing as t
from dataclasses import dataclass

from .._errors import CannotProceed, InvalidInput
from .._layouts.tables import Companion, Namespaces, Root, TablesLayout
from .._table_records import escape, namespace_columns
from .sqlite_connect import lenient
from .sqlite_schema import FENCE_MESSAGE

HELD: t.Final = "memops_held_"
PARTS: t.Final = 4  # columns that a namespace may be made of
LONGEST_NUMBER: t.Final = 19
Sql = t.Tuple[str, t.Tuple[t.Any, ...]]


def prepared(con: sqlite3.Connection) -> sqlite3.Connection:
    """A connection on which these statements run: it gives text that is no UTF-8, and knows what is none."""
    con.text_factory = lenient
    con.create_function("memops_text", 1, _text, deterministic=True)
    return con


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


@dataclass(frozen=True)
class Column:
    name: str
    kind: str  # as it was declared


@dataclass(frozen=True)
class Table:
    """A root or companion table that is there. ``of``: its column for each of the root's that a name is made of."""

    name: str
    root: Root
    columns: tuple[Column, ...]
    of: t.Mapping[str, str]
    order: tuple[str, ...]  # further key columns: the order of a record's rows
    is_root: bool
    rowid: str | None  # what gives the rowid, where it is none of the columns
    json: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    envelopes: bool = False  # its JSON may be what the application encrypted

    @property
    def of_json(self) -> tuple[str, ...]:
        """Columns that hold JSON: those that the layout names, and those that were declared so."""
        declared = (one.name for one in self.columns if one.kind.upper() in ("JSON", "JSONB"))
        return tuple(dict.fromkeys((*self.json, *declared)))

    @property
    def plain(self) -> str:
        return f"main.{name(self.name)}"

    def held(self, schema: str = "main") -> str:
        return f"{schema}.{name(HELD + self.name)}"

    @property
    def listed(self) -> str:
        return ", ".join(name(column.name) for column in self.columns)

    def make_held(self, schema: str = "main") -> list[str]:
        table = name(HELD + self.name)
        return [
            f"CREATE TABLE IF NOT EXISTS {schema}.{table} (memops_generation INTEGER NOT NULL, memops_key TEXT, "
            f"memops_rowid INTEGER, {self.listed})",
            f"CREATE INDEX IF NOT EXISTS {schema}.{name(HELD + self.name + '_key')} ON {table} "
            "(memops_generation, memops_key)",
        ]

    # --- which rows ---------------------------------------------------------------------------------------------
    def inside(self, namespace: str) -> Sql:
        """The condition for a row of the namespace."""
        rule = self.root.namespace
        values = namespace_columns(rule, namespace)
        if rule.kind == "prefix":
            column, top = name(self.of[rule.columns[0]]), values[rule.columns[0]]
            low = top + rule.separator
            return f"({column} = ? OR ({column} > ? AND {column} < ?))", (top, low, _above(low))
        columns = " AND ".join(f"{name(self.of[column])} = ?" for column in rule.columns)
        return f"({columns or 1})", tuple(values[column] for column in rule.columns)

    def fenced(self, row: str) -> str:
        """The condition that a row (NEW, OLD) belongs to a namespace that memops_fence names."""
        rule = self.root.namespace
        if rule.kind == "prefix":
            column, ends = f"{row}.{name(self.of[rule.columns[0]])}", rule.separator
            same = (
                f"{column} = f.part0 OR ({column} > f.part0 || {quoted(ends)} "
                f"AND {column} < f.part0 || {quoted(_above(ends))})"
            )
        else:
            same = " AND ".join(
                f"{row}.{name(self.of[column])} = f.part{place}" for place, column in enumerate(rule.columns)
            )
        return f"EXISTS (SELECT 1 FROM memops_fence f WHERE {same or 1})"

    def key(self, namespace: str) -> Sql:
        """The expression that gives the record's key (see _table_records); NULL for a row whose key no record can
        have. The connection has to be ``prepared``."""
        parts: list[str] = []
        bound: list[t.Any] = []
        if self.root.label:
            parts.append("?")
            bound.append(escape(self.root.label) + ("/" if self.root.key else ""))
        rule = self.root.namespace
        if rule.kind == "prefix":
            column = name(self.of[rule.columns[0]])
            begins = len((namespace + rule.separator).encode()) + 1
            # as bytes: substr of a text ends at a NUL
            below = _escaped(f"CAST(substr(CAST({column} AS BLOB), {begins}) AS TEXT)")
            parts.append(f"CASE WHEN {column} = ? THEN '' ELSE {below} || '/' END")
            bound.append(namespace)
        keys = []
        for key in self.root.key:
            column = name(self.of[key])
            if key in self.root.numbers:
                wide = f"printf('%0{LONGEST_NUMBER}d', {column})"
                keys.append(f"CASE WHEN {column} < 0 THEN printf('%0{LONGEST_NUMBER + 1}d', {column}) ELSE {wide} END")
            else:
                keys.append(_escaped(f"CAST({column} AS TEXT)"))
        if keys:
            parts.append(" || '/' || ".join(f"({key})" for key in keys))
        named = " || ".join(f"({part})" for part in parts)
        fit = " AND ".join(f"typeof({name(self.of[key])}) IN ('text', 'integer')" for key in self.root.key) or "1"
        return f"CASE WHEN {fit} THEN memops_text(CAST({named} AS BLOB)) END", tuple(bound)

    def one(self) -> str:
        """The condition for the rows of one record, with a value for each of ``identity``."""
        return " AND ".join(f"{name(self.of[column])} = ?" for column in self.identity)

    @property
    def identity(self) -> tuple[str, ...]:
        """The root's columns that say which record a row belongs to."""
        return (*self.root.namespace.columns, *self.root.key)

    # --- moving rows --------------------------------------------------------------------------------------------
    def copy_out(self, schema: str, number: int, namespace: str) -> Sql:
        """Copy the rows of a namespace into the table that holds them."""
        key, bound = self.key(namespace)
        inside, values = self.inside(namespace)
        return self._into(schema, number, key) + f" WHERE {inside}", (*bound, *values)

    def copy_one(self, schema: str, number: int) -> str:
        """Copy the rows of one record there; takes its key, then a value for each of ``identity``."""
        return self._into(schema, number, "?") + f" WHERE {self.one()}"

    def _into(self, schema: str, number: int, key: str) -> str:
        return (
            f"INSERT INTO {self.held(schema)} (memops_generation, memops_key, memops_rowid, {self.listed}) "
            f"SELECT {int(number)}, {key}, {self.rowid or 'NULL'}, {self.listed} FROM {self.plain}"
        )

    def remove(self, namespace: str) -> Sql:
        inside, values = self.inside(namespace)
        return f"DELETE FROM {self.plain} WHERE {inside}", values

    def triggers(self) -> dict[str, str]:
        """The fence: name → CREATE statement."""
        out = {}
        for verb, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
            trigger = f"memops_fence_{verb.lower()}_{self.name}"
            refused = " OR ".join(self.fenced(row) for row in rows)
            out[trigger] = (
                f"CREATE TRIGGER {name(trigger)} BEFORE {verb} ON {name(self.name)} WHEN {refused} "
                f"BEGIN SELECT RAISE(ABORT, '{FENCE_MESSAGE}: this namespace takes no {verb.lower()}'); END"
            )
        return out


@dataclass(frozen=True)
class Schema:
    """The tables of a layout that a file has, each root before its companions."""

    tables: tuple[Table, ...]

    @property
    def roots(self) -> list[Table]:
        return [table for table in self.tables if table.is_root]

    def group(self, root: Table) -> list[Table]:
        """A root and its companions."""
        return [table for table in self.tables if table.root is root.root]

    @property
    def rule(self) -> Namespaces:
        return self.tables[0].root.namespace

    def named(self, table: str) -> Table | None:
        return next((one for one in self.tables if one.name == table), None)

    def triggers(self) -> dict[str, str]:
        return {trigger: text for table in self.tables for trigger, text in table.triggers().items()}


def read_schema(con: sqlite3.Connection, layout: TablesLayout, path: str) -> Schema:
    """Errors: InvalidInput when the file has other tables than the layout says."""
    found: list[Table] = []
    for root in layout.tables("sqlite"):
        if root.namespace.kind not in ("columns", "prefix", "whole"):
            raise InvalidInput(
                f"The engine sqlite finds no namespaces of the kind {root.namespace.kind}.", "choose another layout"
            )
        own = {column: column for column in (*root.namespace.columns, *root.key)}
        table = _table(con, root, root, own, (), layout, path)
        if table is None:
            continue
        found.append(table)
        for one in root.companions:
            of = {theirs: mine for mine, theirs in one.parent}
            lacking = [column for column in own if column not in of]
            if lacking:
                raise InvalidInput(
                    f"The rows of {one.name} do not say to which record they belong: {', '.join(lacking)} of "
                    f"{root.name} is not among their columns.",
                    "name the columns in the layout's companion",
                )
            companion = _table(con, root, one, of, one.key, layout, path)
            found += [companion] if companion is not None else []
    if not found:
        raise InvalidInput(f"{path} has none of the tables of the layout {layout.name}.", "correct memory_store.path")
    return Schema(tuple(found))


def _table(
    con: sqlite3.Connection,
    root: Root,
    one: Root | Companion,
    of: t.Mapping[str, str],
    order: tuple[str, ...],
    layout: TablesLayout,
    path: str,
) -> Table | None:
    columns = tuple(Column(row[1], row[2]) for row in con.execute(f"PRAGMA main.table_info({name(one.name)})"))
    if not columns:
        if one.optional:
            return None
        raise InvalidInput(
            f"{path} has no table {one.name}, which the layout {layout.name} needs.",
            "correct memory_store.path or layout, or start the application once, which makes its tables",
        )
    there = {column.name for column in columns}
    lacking = [column for column in (*of.values(), *order) if column not in there]
    if lacking:
        raise InvalidInput(
            f"The table {one.name} in {path} has no column {lacking[0]}, which the layout {layout.name} needs.",
            "use a version of the collection that knows this version of the application",
        )
    for column in (of[column] for column in root.namespace.columns):
        if _folds(con, one.name, column):
            raise InvalidInput(
                f"The column {column} of {one.name} in {path} is compared without regard to case (COLLATE NOCASE), so "
                "that one namespace has several names.",
                "leave this table out, or have its owner make the column anew with COLLATE BINARY",
            )
    return Table(
        one.name, root, columns, of, order, one is root, _rowid(con, one.name, there), one.json, one.vectors,
        "envelopes" in layout.findings,
    )  # fmt: skip


def _folds(con: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether SQLite takes names that differ by case alone for one. A subquery compares as its first part's column."""
    both = f"SELECT {name(column)} AS x FROM main.{name(table)} WHERE 0 UNION ALL SELECT 'A'"
    return bool(con.execute(f"SELECT EXISTS (SELECT 1 FROM ({both}) WHERE x = 'a')").fetchone()[0])


def _rowid(con: sqlite3.Connection, table: str, columns: t.Collection[str]) -> str | None:
    """None where a column of the table is its rowid, or it has none."""
    for row in con.execute(f"PRAGMA main.table_list({name(table)})"):
        if row[4]:  # WITHOUT ROWID
            return None
    keys = [row for row in con.execute(f"PRAGMA main.table_info({name(table)})") if row[5]]
    if len(keys) == 1 and keys[0][2].upper() == "INTEGER":
        return None
    return next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in columns), None)


def holds(con: sqlite3.Connection, table: Table, path: str) -> bool:
    """Whether there is the table that holds rows of this one, as it is now. Errors: CannotProceed when rows lie in one
    that is otherwise: the application migrated meanwhile."""
    there = [row[1] for row in con.execute(f"PRAGMA main.table_info({name(HELD + table.name)})")][3:]
    if there == [column.name for column in table.columns]:
        return True
    if there and con.execute(f"SELECT 1 FROM {table.held()} LIMIT 1").fetchone():
        raise CannotProceed(
            f"The columns of the table {table.name} in {path} changed while records of it lay aside.",
            "release what is quarantined, then run the same command again",
        )
    return False


def parts_of(rule: Namespaces, namespace: str) -> list[str | None]:
    """The values of memops_fence for a namespace. Errors: InvalidInput."""
    values: list[str | None] = list(namespace_columns(rule, namespace).values())
    return values + [None] * (PARTS - len(values))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _above(text: str) -> str:
    """The first text after all that begin with ``text``."""
    return text[:-1] + chr(ord(text[-1]) + 1)


def _escaped(text: str) -> str:
    return f"CASE {text} WHEN '' THEN '%-' ELSE replace(replace({text}, '%', '%25'), '/', '%2F') END"
