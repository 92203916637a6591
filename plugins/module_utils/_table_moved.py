# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A record of another application, changed so that it can go somewhere else: later, into wider tables, or under another
name. No I/O.

PRIVATE to the collection. Every function gives the record as the engine would read it back, with its checksum.
"""
from __future__ import annotations

import datetime
import functools
import json
import re
import struct
import typing as t

from ._codec import RecordCodec
from ._errors import CannotProceed, InvalidInput
from ._layouts import Layout
from ._layouts.tables import Moment, Namespaces, Root, TablesLayout
from ._model import CHECKSUM, EXPIRES, PAYLOAD, Row
from ._table_records import (
    MAGIC,
    Cell,
    TableRows,
    header,
    namespace_columns,
    namespace_fields,
    pack,
    unpack,
)
from ._table_values import sqlite_cell, sqlite_value

SECOND: t.Final = 1_000_000  # µs
DAY: t.Final = 86_400 * SECOND
_WHEN = re.compile(r"\s*(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d:\d\d)(.*)", re.DOTALL)
_MODIFIER = re.compile(r"\([0-9, ]*\)")
_NUMBERS: t.Final = {"smallint": ">h", "integer": ">i", "bigint": ">q", "real": ">f", "double precision": ">d"}
_TEXT: t.Final = frozenset(("text", "character varying", "character", "name", "citext"))


class Unmovable(ValueError):
    """What stands there cannot be changed without guessing; says what it is."""


def resealed(row: Row, namespace: str, payload: bytes, expires: int | None) -> Row:
    """``row`` with another payload and expiry, and the checksum that it has in ``namespace``."""
    head = (*row[:EXPIRES], expires, *row[EXPIRES + 1 : PAYLOAD], payload)
    return (*head, RecordCodec(namespace).checksum(head))


# --- later ----------------------------------------------------------------------------------------------------------
def rebased(row: Row, layout: Layout, namespace: str, shift: int) -> Row:
    """``row`` with its expiry ``shift`` µs (whole seconds) later; one without an expiry, or not sound, as it is.

    A date is moved by whole days, never by less than the time that passed. Errors: CannotProceed.
    """
    if row[EXPIRES] is None or not shift or not row[CHECKSUM]:
        return row
    if not row[PAYLOAD].startswith(MAGIC):
        return resealed(row, namespace, row[PAYLOAD], row[EXPIRES] + shift)
    engine, tables = unpack(row[PAYLOAD])
    root, moment = _expiring(layout, engine, tables[0].name)
    if root is None or moment is None:
        raise CannotProceed(
            f"The expiry of {row[0]!r:.80} cannot be moved: this layout does not say where {tables[0].name} has it.",
            "set memory_restore_expiry to keep, or describe the table as it was when the snapshot was taken",
        )
    later = -(-shift // DAY) * DAY if moment.form == "date" else shift
    place = [name for name, _kind in tables[0].columns].index(moment.column)
    kind = tables[0].columns[place][1]
    try:
        cells = [*tables[0].rows[0]]
        cells[place] = _sqlite(cells[place], moment, later) if engine == "sqlite" else _sent(
            cells[place], kind, moment, later
        )
    except (ValueError, OverflowError, struct.error) as exc:
        raise CannotProceed(
            f"The expiry of {row[0]!r:.80} cannot be moved: {exc}.", "set memory_restore_expiry to keep"
        ) from None
    changed = TableRows(tables[0].name, tables[0].columns, (tuple(cells),))
    return resealed(row, namespace, packed(engine, [changed, *tables[1:]]), row[EXPIRES] + later)


def _expiring(layout: Layout, engine: str, table: str) -> tuple[Root | None, Moment | None]:
    if not isinstance(layout, TablesLayout):
        return None, None
    root = next((one for one in layout.tables(engine) if one.name == table), None)
    return root, None if root is None else root.expires


def packed(engine: str, tables: t.Sequence[TableRows]) -> bytes:
    return pack(header(engine, [(one.name, one.columns) for one in tables]), [one.rows for one in tables])


def _sqlite(cell: Cell, moment: Moment, shift: int) -> Cell:
    if moment.json is None:
        return sqlite_cell(_value(sqlite_value(cell), moment.form, shift))
    value = sqlite_value(cell)
    text = value.decode() if isinstance(value, bytes) else value
    changed = in_json(text, moment.json, lambda one: _value(one, moment.form, shift))
    return sqlite_cell(changed.encode() if isinstance(value, bytes) else changed)


def _sent(cell: Cell, kind: str, moment: Moment, shift: int) -> Cell:
    """A value as PostgreSQL's types send it."""
    if cell is None:
        raise Unmovable("it is NULL")
    base = kind.partition("(")[0]
    if moment.json is not None:
        mark, body = (cell[:1], cell[1:]) if base == "jsonb" else (b"", cell)
        return mark + in_json(body.decode(), moment.json, lambda one: _value(one, moment.form, shift)).encode()
    if base.startswith("timestamp"):
        return struct.pack(">q", struct.unpack(">q", cell)[0] + shift)
    if base == "date":
        return struct.pack(">i", struct.unpack(">i", cell)[0] + shift // DAY)
    if base in _NUMBERS:
        return struct.pack(_NUMBERS[base], _value(struct.unpack(_NUMBERS[base], cell)[0], moment.form, shift))
    if base in _TEXT:
        return str(_value(cell.decode(), moment.form, shift)).encode()
    raise Unmovable(f"{moment.column} has the type {kind}")


def _value(value: t.Any, form: str, shift: int) -> t.Any:
    """A time in one of the layouts' forms, later, as it was written."""
    if form in ("seconds", "milliseconds"):
        if isinstance(value, str):
            raise Unmovable("it is a text where a number should be")
        return value + shift // (SECOND if form == "seconds" else 1000)
    if not isinstance(value, str):
        raise Unmovable("it is no text")
    if form == "date":
        return (datetime.date.fromisoformat(value) + datetime.timedelta(microseconds=shift)).isoformat()
    found = _WHEN.fullmatch(value)
    if found is None:
        raise Unmovable(f"{value!r:.40} is no time that is known")
    day, between, clock, rest = found.groups()  # rest: fraction and zone, which stay
    at = datetime.datetime.fromisoformat(f"{day} {clock}") + datetime.timedelta(microseconds=shift)
    return at.strftime("%Y-%m-%d").zfill(10) + between + at.strftime("%H:%M:%S") + rest


def in_json(text: str, field: str, change: t.Callable[[t.Any], t.Any]) -> str:
    """A JSON object with one of its fields changed, and every other byte as it was. Errors: Unmovable."""
    decoder, at = json.JSONDecoder(), _blank(text, 0)
    if text[at : at + 1] != "{":
        raise Unmovable("its JSON is no object")
    at = _blank(text, at + 1)
    while text[at : at + 1] == '"':
        name, at = decoder.raw_decode(text, at)
        at = _blank(text, _blank(text, at) + 1)
        value, end = decoder.raw_decode(text, at)
        if name == field:
            return text[:at] + json.dumps(change(value), ensure_ascii=False) + text[end:]
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at : at + 1] == "," else at
    raise Unmovable(f"its JSON has no {field}")


def _blank(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at


# --- into wider tables ----------------------------------------------------------------------------------------------
class Wide(t.NamedTuple):
    """A table of today. ``default``: the cell of a column that a row does not have. Errors of it: CannotProceed."""

    columns: tuple[tuple[str, str], ...]
    default: t.Callable[[str], Cell]


def widened(row: Row, engine: str, namespace: str, today: t.Mapping[str, Wide]) -> Row:
    """``row`` with the columns that its tables have today: those that came since take their default.

    One whose tables have lost a column, or have another type there, stays as it is: who puts it says so.
    """
    if not row[PAYLOAD].startswith(MAGIC):
        return row
    made_by, tables = unpack(row[PAYLOAD])
    if made_by != engine:
        return row
    fitted = []
    for one in tables:
        wide, then = today.get(one.name), dict(one.columns)
        kinds = {} if wide is None else dict(wide.columns)
        if wide is None or set(then) - set(kinds) or not all(_holds(kinds[name], then[name]) for name in then):
            return row
        places = {name: place for place, (name, _kind) in enumerate(one.columns)}
        defaults = {name: wide.default(name) for name in kinds if name not in places}
        rows = tuple(
            tuple(cells[places[name]] if name in places else defaults[name] for name in kinds) for cells in one.rows
        )
        fitted.append(TableRows(one.name, wide.columns, rows))
    if [one.columns for one in fitted] == [one.columns for one in tables]:
        return row
    return resealed(row, namespace, packed(engine, fitted), row[EXPIRES]) if row[CHECKSUM] else row


def _holds(today: str, then: str) -> bool:
    """Whether a column of that type today holds every value of the type then, in the same bytes: ``vector`` those of
    ``vector(8)``."""
    return today in (then, _MODIFIER.sub("", then))


# --- under another name ---------------------------------------------------------------------------------------------
def renamed(row: Row, layout: Layout, namespace: str, target: str) -> Row:
    """``row`` as a record of the namespace ``target``. Errors: InvalidInput, CannotProceed where it cannot be one."""
    if not isinstance(layout, TablesLayout) or not row[PAYLOAD].startswith(MAGIC):
        raise InvalidInput(f"{row[0]!r:.80} is no record of tables.", "restore it under its own name")
    engine, tables = unpack(row[PAYLOAD])
    root = next((one for one in layout.tables(engine) if one.name == tables[0].name), None)
    if root is None:
        raise CannotProceed(
            f"This layout has no table {tables[0].name}.", "restore the records under their own name"
        )
    if root.namespace.kind == "json":
        first = _in_fields(tables[0], root.namespace, namespace, target)
        return resealed(row, target, packed(engine, [first, *tables[1:]]), row[EXPIRES])
    old, new = namespace_columns(root.namespace, namespace), namespace_columns(root.namespace, target)
    moved = []
    for one in tables:
        own = {column: column for column in root.namespace.columns}
        if one is not tables[0]:
            beside = next((c for c in root.companions if c.name == one.name), None)
            if beside is None:
                raise CannotProceed(f"This layout has no table {one.name}.", "restore them under their own name")
            own = {column: parents for column, parents in beside.parent if parents in own}
        places = [(n, own[name], kind) for n, (name, kind) in enumerate(one.columns) if name in own]
        rows = []
        for cells in one.rows:
            changed = [*cells]
            for place, column, kind in places:
                changed[place] = _named(engine, kind, cells[place], old[column], new[column])
            rows.append(tuple(changed))
        moved.append(TableRows(one.name, one.columns, tuple(rows)))
    return resealed(row, target, packed(engine, moved), row[EXPIRES])


def same_fields(rule: Namespaces, namespace: str, target: str) -> dict[str, tuple[str, str]]:
    """Of a namespace inside JSON: {field: (what it is, what it becomes)}. Errors: InvalidInput."""
    old, new = namespace_fields(rule, namespace), namespace_fields(rule, target)
    if set(old) != set(new):
        raise InvalidInput(
            f"The namespace {target!r:.80} is not made of the same fields as {namespace!r:.80}.",
            f"give a value to each of {', '.join(old)} and to no other",
        )
    return {field: (value, new[field]) for field, value in old.items()}


def _in_fields(table: TableRows, rule: Namespaces, namespace: str, target: str) -> TableRows:
    """The root's row with other values in these fields of its JSON column, as PostgreSQL sends it."""
    place = [name for name, _kind in table.columns].index(rule.columns[0])
    cells = [*table.rows[0]]
    cell = cells[place] or b""
    mark = cell[:1] if table.columns[place][1] == "jsonb" else b""
    try:
        text = cell[len(mark) :].decode()
        for field, (old, new) in same_fields(rule, namespace, target).items():
            text = in_json(text, field, functools.partial(_instead, old, new))
    except ValueError as exc:
        raise CannotProceed(
            f"The namespace inside {rule.columns[0]} cannot be another one: {exc}.",
            "restore the records under their own name",
        ) from None
    cells[place] = mark + text.encode()
    return TableRows(table.name, table.columns, (tuple(cells),))


def _instead(old: str, new: str, value: t.Any) -> str:
    if value != old:
        raise Unmovable(f"{value!r:.40} stands there and not {old!r:.40}")
    return new


def _named(engine: str, kind: str, cell: Cell, old: str, new: str) -> Cell:
    mark = b"t" if engine == "sqlite" else b""  # SQLite's values say themselves what they are
    begins = mark + old.encode()
    if (engine == "postgresql" and kind.partition("(")[0] not in _TEXT) or cell is None or not cell.startswith(begins):
        raise CannotProceed(
            f"The column of the namespace is no text ({kind}), so it takes no other name.",
            "restore the records under their own name",
        )
    return mark + new.encode() + cell[len(begins) :]
