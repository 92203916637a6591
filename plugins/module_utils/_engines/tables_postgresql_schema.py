# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of a layout's tables a PostgreSQL database has, with which columns: what the layout does not say, it says.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import InvalidInput, StoreMissing
from .._layouts.tables import Companion, Root, TablesLayout
from .postgresql_arrays import Ints, Texts
from .postgresql_schema import literal, quoted

if t.TYPE_CHECKING:
    from .postgresql_session import Session

JSONB: t.Final = ("json", "jsonb")
FIRST_MADE: t.Final = 16384  # the oid of the first type that is not the server's own
ELEMENT: t.Final = 8  # where an array's bytes have its element's type: behind the number of dimensions and the flags


@dataclass(frozen=True)
class Column:
    name: str
    kind: str  # as people write it, with its measures: character varying(255), vector(384)
    base: str  # for casts: with its schema, without measures
    send: str  # the function that gives its value without loss
    sequence: str | None  # that numbers it
    empty: bool = False  # it may be NULL
    element: int = 0  # of an array of a type that this database made: the oid of that type here
    as_text: bool = False  # deeper in its bytes stand such numbers: it goes as its text
    always: bool = False  # an identity that nobody may change

    def sent(self, value: str) -> str:
        """Its bytes. An array says of which type it is by a number of this database alone: none is kept."""
        if self.as_text:
            return f"convert_to(({value})::text, 'UTF8')"
        if not self.element:
            return f"{self.send}({value})"
        return f"overlay({self.send}({value}) PLACING '\\x00000000'::bytea FROM {ELEMENT + 1} FOR 4)"

    def received(self, cell: t.Any) -> t.Any:
        """What ``sent`` gave, as the server takes it."""
        if self.as_text or not self.element or cell is None or len(cell) < ELEMENT + 4:
            return cell
        return cell[:ELEMENT] + self.element.to_bytes(4, "big") + cell[ELEMENT + 4 :]

    def taken(self, alias: str = "") -> str:
        """Its value out of a table into which ``received`` was copied."""
        return f"{alias}{quoted(self.name)}" + (f"::{self.base}" if self.as_text else "")


@dataclass(frozen=True)
class Table:
    """A table as it is. Columns that the database computes are left out."""

    plain: str  # its own name
    name: str  # for SQL
    oid: int
    columns: tuple[Column, ...]
    unique: tuple[frozenset[str], ...]  # the columns of each unique index of plain columns
    parts: tuple[tuple[int, str, str], ...] = ()  # of a partitioned table its partitions: oid, own name, for SQL
    home: int = 0  # of a partition the oid of the table that the layout names
    partitioned: bool = False

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True)
class LiveRoot:
    root: Root
    table: Table
    companions: tuple[tuple[Companion, Table], ...]
    target: tuple[str, ...]  # the columns of the unique index by which a row is found again; see need_unique

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.table, *(table for _companion, table in self.companions))


_COLUMNS: t.Final = """
SELECT c.relname::text, c.oid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod),
  format_type(a.atttypid, NULL), quote_ident(pn.nspname) || '.' || quote_ident(p.proname),
  pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname), NOT a.attnotnull,
  CASE WHEN p.proname = 'array_send' AND ty.typelem >= 16384 THEN ty.typelem::bigint ELSE 0 END,
  a.atttypid::bigint, a.attidentity = 'a'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_type ty ON ty.oid = a.atttypid LEFT JOIN pg_proc p ON p.oid = ty.typsend
LEFT JOIN pg_namespace pn ON pn.oid = p.pronamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relname = ANY(%s) ORDER BY c.relname, a.attnum"""

#: Of these types those in whose bytes numbers of types stand that this database made: composite types with such a
#: field, arrays of such an element (but for a type that is such an array itself), however deep.
_NUMBERED: t.Final = """
WITH RECURSIVE within AS (
SELECT oid AS top, oid FROM pg_type WHERE oid::bigint = ANY(%s)
UNION SELECT w.top, d.oid FROM within w JOIN pg_type t ON t.oid = w.oid CROSS JOIN LATERAL (
  SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
  UNION ALL SELECT t.typelem WHERE t.typsend = 'array_send'::regproc
  UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
  UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid
  UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0
    AND NOT a.attisdropped) AS d WHERE d.oid <> 0)
SELECT DISTINCT w.top::bigint FROM within w JOIN pg_type t ON t.oid = w.oid
WHERE w.oid <> w.top AND t.typsend = 'array_send'::regproc AND t.typelem >= 16384
OR t.typtype = 'c' AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0
AND NOT a.attisdropped AND a.atttypid >= 16384)"""

_UNIQUE: t.Final = """
SELECT i.indrelid::bigint, array_agg(a.attname::text) FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
WHERE i.indrelid::bigint = ANY(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
AND i.indimmediate GROUP BY i.indexrelid, i.indrelid, i.indisprimary, i.indnkeyatts
HAVING count(*) = i.indnkeyatts ORDER BY i.indisprimary DESC, i.indexrelid"""

#: Whatever lies below these tables: partitions, or tables that inherit from them.
_BELOW: t.Final = """
WITH RECURSIVE below AS (
SELECT inhparent::bigint AS top, inhrelid AS oid FROM pg_inherits WHERE inhparent::bigint = ANY(%s)
UNION ALL SELECT b.top, i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid)
SELECT b.top, b.oid::bigint, c.relname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text,
  c.relispartition FROM below b JOIN pg_class c ON c.oid = b.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY b.oid"""


def look(session: Session, layout: TablesLayout, schema: str, where: str) -> tuple[LiveRoot, ...]:
    """Errors: StoreMissing, InvalidInput for tables that are not as the layout says."""
    roots = layout.tables("postgresql")
    names = {root.name for root in roots} | {one.name for root in roots for one in root.companions}
    found = _tables(session, schema, sorted(names))
    live = []
    for root in roots:
        table = found.get(root.name)
        if table is None:
            if root.optional:
                continue
            raise _absent(session, root.name, schema, where)
        beside = []
        for companion in root.companions:
            one = found.get(companion.name)
            if one is not None:
                beside.append((companion, one))
            elif not companion.optional:
                raise _absent(session, companion.name, schema, where)
        live.append(LiveRoot(root, table, tuple(beside), _checked(root, table, where)))
        for companion, one in beside:
            own = [*(pair[0] for pair in companion.parent), *companion.key, *companion.vectors, *companion.json]
            _has(one, own, where)
            _has(table, [pair[1] for pair in companion.parent], where)
    if not live:
        raise _absent(session, roots[0].name, schema, where)
    for known in live:
        _compared_by_bytes(session, known)
    return tuple(live)


def _compared_by_bytes(session: Session, live: LiveRoot) -> None:
    """Errors: InvalidInput where one namespace has several names."""
    columns = live.root.namespace.columns if live.root.namespace.kind != "json" else ()
    folding = session.rows(
        "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute a LEFT JOIN pg_collation c "
        "ON c.oid = a.attcollation LEFT JOIN pg_type y ON y.oid = a.atttypid WHERE a.attrelid = %s::bigint::oid "
        "AND a.attname = ANY(%s::text[]) AND (y.typname = 'citext' OR NOT coalesce(c.collisdeterministic, true))",
        live.table.oid, Texts(list(columns)),
    )  # fmt: skip
    for column, kind in folding:
        raise InvalidInput(
            f"The column {column} of {live.root.name} ({kind}) is compared without regard to case, so that one "
            "namespace has several names.",
            "leave this table out, or have its owner make the column a text with a deterministic collation",
        )


def _absent(session: Session, name: str, schema: str, where: str) -> StoreMissing:
    rows = session.rows(
        "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = %s AND c.relkind IN ('r', 'p') ORDER BY 1",
        name,
    )
    if rows:
        return StoreMissing(
            f"There is no table {name} in schema {schema} of {where}, but there is one in {rows[0][0]}.",
            f"set memory_store.table_schema to {rows[0][0]}",
        )
    return StoreMissing(
        f"There is no table {name} in schema {schema} of {where}.",
        "let the application make its tables there first, or correct memory_store.url, table_schema and tables",
    )


def _tables(session: Session, schema: str, names: list[str]) -> dict[str, Table]:
    columns: dict[tuple[str, int], list[Column]] = {}
    found = session.rows(_COLUMNS, schema, names)
    made = sorted({row[9] for row in found if row[9] >= FIRST_MADE})
    numbered = {row[0] for row in session.rows(_NUMBERED, Ints(made))} if made else set()
    for name, oid, column, kind, base, send, sequence, empty, element, number, always in found:
        if send is None:
            raise InvalidInput(
                f"The column {column} of {name} has the type {kind}, whose values cannot be sent without loss.",
                "leave this table out",
            )
        plain = kind.rpartition(".")[2] if "(" not in kind.rpartition(".")[0] else kind
        plain += " (as text)" if number in numbered else ""
        one = Column(column, plain, base, send, sequence, empty, element, number in numbered, always)
        columns.setdefault((name, oid), []).append(one)
    unique: dict[int, list[frozenset[str]]] = {}
    for oid, parts in session.rows(_UNIQUE, Ints([oid for _name, oid in columns])):
        unique.setdefault(oid, []).append(frozenset(parts))
    below = _below(session, {oid: name for name, oid in columns})
    return {
        name: Table(
            name, f"{quoted(schema)}.{quoted(name)}", oid, tuple(some), tuple(unique.get(oid, ())),
            tuple(below.get(oid, ())), partitioned=oid in below,
        )
        for (name, oid), some in columns.items()
    }  # fmt: skip


def _below(session: Session, names: t.Mapping[int, str]) -> dict[int, list[tuple[int, str, str]]]:
    """The partitions of each table that has some. Errors: InvalidInput for what cannot be read or fenced as one."""
    found: dict[int, list[tuple[int, str, str]]] = {}
    for top, oid, plain, name, kind, partition in session.rows(_BELOW, Ints(list(names))):
        if not partition:
            raise InvalidInput(
                f"The table {plain} inherits from {names[top]}: a key may be in both, and nothing would tell which row "
                "is meant.",
                f"ALTER TABLE {name} NO INHERIT … where its rows need not be found in {names[top]}, or leave the table "
                f"{names[top]} out",
            )
        if kind == "f":
            raise InvalidInput(
                f"The partition {plain} of {names[top]} lies on another server, where it cannot be fenced.",
                f"leave the table {names[top]} out, or detach that partition",
            )
        found.setdefault(top, []).append((oid, plain, name))
    return found


def _has(table: Table, wanted: t.Iterable[str], where: str) -> None:
    """Errors: InvalidInput that says which columns there are."""
    known = [column.name for column in table.columns]
    for name in wanted:
        if name not in known:
            raise InvalidInput(
                f"The table {table.plain} of {where} has no column {name}; it has {', '.join(known)}.",
                "correct memory_store.tables, or upgrade the collection when the framework has changed its tables",
            )


def _checked(root: Root, table: Table, where: str) -> tuple[str, ...]:
    """The columns by which a record's row is found again; none without such an index. Errors: InvalidInput."""
    rule = root.namespace
    moments = [moment.column for moment in (root.created, root.updated, root.expires) if moment is not None]
    _has(table, [*rule.columns, *root.key, *moments, *root.payload, *root.json, *root.vectors], where)
    if rule.kind == "json" and table.column(rule.columns[0]).kind not in JSONB:
        raise InvalidInput(
            f"The column {rule.columns[0]} of {root.name} is {table.column(rule.columns[0]).kind}, not JSON.",
            "name a column of the type jsonb or json as the namespace's",
        )
    named = {*root.key, *(() if rule.kind == "json" else rule.columns)}
    for columns in table.unique:
        if columns <= named:
            return tuple(sorted(columns))
    return ()  # the index may have gone with the damage: what can be fenced without it is fenced


def need_unique(live: LiveRoot) -> None:
    """Errors: InvalidInput where nothing tells one record's row from another's: nothing is read or put then."""
    if live.target:
        return
    rule = live.root.namespace
    named = sorted({*live.root.key, *(() if rule.kind == "json" else rule.columns)})
    raise InvalidInput(
        f"Nothing makes {' and '.join(named)} unique in the table {live.root.name}.",
        "name the columns of its primary key as the record's key, or, where that index is lost, have the owner make it "
        f"again: CREATE UNIQUE INDEX ON {live.table.name} ({', '.join(map(quoted, named))})",
    )


def text_literal(text: str) -> str:
    """A text for SQL that may stand where per cent signs are placeholders."""
    if "%" not in text:
        return literal(text)
    return "U&'" + text.replace("\\", "\\\\").replace("%", "\\0025").replace("'", "''") + "'"
