# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""SQL that gives the rows of another application's tables as records: name, times, payload, checksum.

PRIVATE to the collection. The server puts the payload together (_table_records.py says how), so that reading,
comparing and copying inside the server go by the same text.
"""
from __future__ import annotations

import typing as t

from .._codec import MAGIC
from .._layouts.tables import Moment, Namespaces
from .._table_records import header, namespace_columns, namespace_fields
from .postgresql_schema import quoted
from .tables_postgresql_schema import JSONB, LiveRoot, Table, text_literal

#: ISO 8601 that a cast takes, whatever the days of the month: a text that is none must not end a scan.
DAY: t.Final = (
    "(?:[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    "|[0-9]{2}(?:[02468][048]|[13579][26])-02-29)"
)
CLOCK: t.Final = "[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?(?:Z|[+-][01][0-9]:?[0-5][0-9])?"
LATEST: t.Final = 9_000_000_000_000  # seconds since 1970 whose microseconds a bigint holds
_BIG: t.Final = frozenset(("text", "character varying", "bytea", "jsonb", "json"))


def escaped_sql(value: str) -> str:
    """_table_records.escape."""
    per_cent = "chr(37)"
    return (
        f"CASE {value} WHEN '' THEN {per_cent} || '-' ELSE "
        f"replace(replace({value}, {per_cent}, {per_cent} || '25'), '/', {per_cent} || '2F') END"
    )


def number_sql(value: str) -> str:
    return f"CASE WHEN {value} < 0 THEN '-' || lpad((-{value})::text, 19, '0') ELSE lpad({value}::text, 19, '0') END"


def inside(rule: Namespaces, table: Table, alias: str, namespace: str) -> str:
    """The condition that a row belongs to the namespace. Errors: InvalidInput for what can be none."""
    if rule.kind == "json":
        column = f"{alias}.{quoted(rule.columns[0])}"
        parts = [
            f"{column} ->> {text_literal(field)} = {text_literal(value)}"
            for field, value in namespace_fields(rule, namespace).items()
        ]
    else:
        parts = [
            f"{alias}.{quoted(name)} = {text_literal(value)}::{table.column(name).base}"
            for name, value in namespace_columns(rule, namespace).items()
        ]
        if rule.kind == "prefix":
            column = f"{alias}.{quoted(rule.columns[0])}"
            below = f"starts_with({column}, {text_literal(namespace + rule.separator)})"
            return f"({parts[0]} OR {below})"
    return "(" + " AND ".join(parts) + ")"


def listed(live: LiveRoot) -> str:
    """A query of the namespaces that have rows in this table."""
    rule, name = live.root.namespace, live.table.name
    if rule.kind == "json":
        column = f"r.{quoted(rule.columns[0])}"
        found = ""
        for field in rule.fields:
            value = f"{column} ->> {text_literal(field)}"
            plain = f"replace(replace({value}, chr(37), chr(37) || '25'), '&', chr(37) || '26')"
            found += f" WHEN {value} IS NOT NULL THEN {text_literal(field + '=')} || {plain}"
        return f"SELECT DISTINCT CASE{found} END FROM {name} r"
    if len(rule.columns) == 1:
        return f"SELECT DISTINCT r.{quoted(rule.columns[0])}::text FROM {name} r"
    parts = " || '/' || ".join(escaped_sql(f"r.{quoted(column)}::text") for column in rule.columns)
    columns = ", ".join(quoted(column) for column in rule.columns)
    return f"SELECT {parts} FROM (SELECT DISTINCT {columns} FROM {name}) r"


def name_sql(live: LiveRoot, namespace: str) -> str:
    """_table_records.name_of."""
    root = live.root
    parts = [text_literal(root.label + "/")] if root.label else []
    if root.namespace.kind == "prefix":
        column = f"r.{quoted(root.namespace.columns[0])}"
        start = len(namespace) + len(root.namespace.separator) + 1
        below = escaped_sql(f"substr({column}, {start})")
        parts.append(f"CASE WHEN {column} = {text_literal(namespace)} THEN '' ELSE ({below}) || '/' END")
    keys = []
    for key in root.key:
        column = f"r.{quoted(key)}"
        keys.append(f"({number_sql(column) if key in root.numbers else escaped_sql(column + '::text')})")
    parts.append(" || '/' || ".join(keys))
    if not keys:
        parts = [text_literal(root.label)]
    return " || ".join(parts)


def moment_sql(moment: Moment | None, table: Table) -> str:
    """µs since 1970, or NULL."""
    if moment is None:
        return "NULL::bigint"
    column = f"r.{quoted(moment.column)}"
    micro = "(extract(epoch FROM {}) * 1000000)::bigint"
    if moment.json is not None:
        column = f"({column} ->> {text_literal(moment.json)})"
    # What no such number can be, infinite or of another age, must not end a scan.
    if moment.form == "timestamp":
        near = f"isfinite({column}) AND extract(epoch FROM {column}) < {LATEST}"
        return f"CASE WHEN {near} THEN {micro.format(column)} END"
    if moment.form in ("seconds", "milliseconds"):
        factor = 1_000_000 if moment.form == "seconds" else 1000
        limit = LATEST * 1_000_000 // factor
        wide = f"{column}::bigint" if table.column(moment.column).base in ("smallint", "integer") else column
        near = f"{column}::double precision BETWEEN -{limit} AND {limit}"
        return f"CASE WHEN {near} THEN ({wide} * {factor})::bigint END"
    if moment.form == "date":  # over at its end
        day = f"{column} ~ '^{DAY}$'"
        return f"CASE WHEN {day} THEN {micro.format(f'{column}::date + 1')} END"
    return f"CASE WHEN {column} ~ '^{DAY}{CLOCK}$' THEN {micro.format(f'{column}::timestamptz')} END"


def _sound(live: LiveRoot, version: int) -> str:
    """Whether the row is what the framework writes: its JSON columns hold objects."""
    parts = []
    for name in live.root.json:
        column, kind = f"r.{quoted(name)}", live.table.column(name).kind
        if kind in JSONB:
            parts.append(f"coalesce({kind}_typeof({column}) = 'object', true)")
        elif version >= 160_000:
            parts.append(f"coalesce({column} IS JSON OBJECT, true)")
        else:  # the server cannot tell: at least it begins and ends as an object does, so nothing was cut off
            blank = "chr(32) || chr(9) || chr(10) || chr(13)"
            ends = f"left(ltrim({column}, {blank}), 1) || right(rtrim({column}, {blank}), 1)"
            parts.append(f"coalesce({ends} = chr(123) || chr(125), true)")
    return " AND ".join(parts) or "true"


def row_sql(table: Table, alias: str, sent: str) -> tuple[str, str]:
    """(a lateral join that sends the columns, the bytes of a row)."""
    columns = ", ".join(f"{c.sent(f'{alias}.{quoted(c.name)}')} AS c{n}" for n, c in enumerate(table.columns))
    null = r"'\xffffffff'::bytea"
    sends = [f"{sent}.c{n}" for n in range(len(table.columns))]
    cells = " || ".join(f"coalesce(int4send(octet_length({one})) || {one}, {null})" for one in sends)
    return f"CROSS JOIN LATERAL (SELECT {columns} OFFSET 0) AS {sent}", f"int2send({len(sends)}::int2) || {cells}"


class RootSql:
    """The SQL of one root table."""

    def __init__(self, live: LiveRoot, version: int) -> None:
        self.live, self.version = live, version
        join, row = row_sql(live.table, "r", "s")
        joins, body = [join], [r"'\x00000001'::bytea", row]
        for number, (companion, table) in enumerate(live.companions):
            inner, cells = row_sql(table, "x", "y")
            same = " AND ".join(f"x.{quoted(own)} = r.{quoted(parent)}" for own, parent in companion.parent)
            order = ", ".join(
                f"x.{quoted(key)}" + (' COLLATE "C"' if table.column(key).base in _BIG else "")
                for key in companion.key
            ) or "y.c0"  # fmt: skip
            joins.append(
                "CROSS JOIN LATERAL (SELECT count(*)::int AS n, "
                f"string_agg({cells}, ''::bytea ORDER BY {order}) AS body "
                f"FROM {table.name} x {inner} WHERE {same}) AS k{number}"
            )
            body.append(f"CASE WHEN k{number}.n > 0 THEN int4send(k{number}.n) || k{number}.body ELSE ''::bytea END")
        self._joins = " ".join(joins)
        self._payload = " || ".join([f"({self._head()})", *body])
        self._times = ", ".join(
            (
                f"coalesce({moment_sql(live.root.created, live.table)}, 0) AS created",
                f"coalesce({moment_sql(live.root.updated, live.table)}, 0) AS updated",
                f"{moment_sql(live.root.expires, live.table)} AS expires",
            )
        )

    def _head(self) -> str:
        tables = self.live.tables
        columns = [(table.plain, [(c.name, c.kind) for c in table.columns]) for table in tables]
        beside = len(self.live.companions)
        heads = []
        for mask in range(1 << beside):
            some = [columns[0]] + [columns[n + 1] for n in range(beside) if mask >> n & 1]
            heads.append(f"'\\x{header('postgresql', some).hex()}'::bytea")
        if not beside:
            return heads[0]
        which = " + ".join(f"CASE WHEN k{n}.n > 0 THEN {1 << n} ELSE 0 END" for n in range(beside))
        return f"CASE {which} " + " ".join(f"WHEN {n} THEN {head}" for n, head in enumerate(heads)) + " END"

    def name(self, namespace: str) -> str:
        return name_sql(self.live, namespace)

    @property
    def place(self) -> str:
        """Where a row lies, as a text: (page,row), and in front of it in which partition."""
        return "r.tableoid::text || r.ctid::text" if self.live.table.partitioned else "r.ctid::text"

    def inside(self, namespace: str, alias: str = "r") -> str:
        return inside(self.live.root.namespace, self.live.table, alias, namespace)

    def names(self, namespace: str, number: int) -> str:
        """name, number, place, size of every row of the namespace."""
        big = [c.name for c in self.live.table.columns if c.base.partition("(")[0] in _BIG] or ["ctid"]
        size = " + ".join(f"coalesce(pg_column_size(r.{quoted(name)}), 0)" for name in big)
        return (
            f"SELECT {self.name(namespace)} AS name, {number} AS number, {self.place} AS place, {size} AS size "
            f"FROM {self.live.table.name} r WHERE {self.inside(namespace)}{self.named}"
        )

    @property
    def named(self) -> str:
        """A row without a key is no record."""
        keys = [key for key in self.live.root.key if self.live.table.column(key).empty]
        return "".join(f" AND r.{quoted(key)} IS NOT NULL" for key in keys)

    def records(self, namespace: str, source: str) -> str:
        """name, created, updated, expires, payload and whether the record is sound; ``source`` joins the table r."""
        return (
            f"SELECT {self.name(namespace)} AS name, {self._times}, {self._payload} AS payload, "
            f"{_sound(self.live, self.version)} AS sound FROM {source} {self._joins}"
        )


def checksummed(records: str, namespace: str) -> str:
    """The same with the checksum beside (as _codec makes it), empty where the record is not sound."""
    raw = namespace.encode()
    head = (
        f"int4send({len(raw)}) || int4send(octet_length(q.name)) || '\\x{bytes(4 + 16).hex()}'::bytea || "
        "int8send(q.created) || int8send(q.updated) || int8send(coalesce(q.expires, -1)) || int8send(-1) || "
        f"'\\x{(MAGIC + raw).hex()}'::bytea || convert_to(q.name, 'UTF8')"
    )
    return (
        f"SELECT convert_to(q.name, 'UTF8') AS name, q.created, q.updated, q.expires, q.payload, "
        f"CASE WHEN q.sound THEN sha256({head} || q.payload) ELSE ''::bytea END AS checksum FROM ({records}) AS q"
    )
