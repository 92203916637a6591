# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows of another application's tables as records: their names as text, their columns as canonical bytes. No I/O.

PRIVATE to the collection.

A *name* is the values of the key columns, each escaped (``%`` and ``/`` as ``%25`` and ``%2F``, an empty one as ``%-``)
and joined by ``/``: first the label of the root table where there are several, then what of a prefix lies below the
namespace, if anything does, then the other key columns. Whole numbers have 19 digits, so that they are in order.

A *payload* is MAGIC, the length of a header (4 bytes), the header, and of each table that it names the number of rows
(4 bytes) and the rows; a row is the number of its columns (2 bytes) and of each the length (4 bytes, -1: NULL) and the
value as the engine gives it without loss. All numbers are big-endian. The header is JSON: {"engine": …, "tables":
[[table, [[column, type], …]], …]}, the root first; companions without rows are left out. So two payloads are the same
bytes when the record is the same, and one says by itself which columns the tables had when it was made.
"""
from __future__ import annotations

import functools
import json
import re
import struct
import typing as t
from dataclasses import dataclass

from ._errors import InvalidInput, RecordCorrupt
from ._layouts.tables import WHOLE, Namespaces, Root
from ._model import Row

MAGIC: t.Final = b"memops tables 1\0"
_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">H")
_CELL = struct.Struct(">i")
_NULL = _CELL.pack(-1)
_ESCAPED = re.compile("%(25|2F|26|-)")
_MEANT: t.Final = {"25": "%", "2F": "/", "26": "&", "-": ""}
DIGITS: t.Final = 19
NUMBER = re.compile(r"-?[0-9]{1,19}")

Cell = t.Optional[bytes]
Cells = t.Sequence[Cell]  # of one row


# --- names ----------------------------------------------------------------------------------------------------------
def escape(part: str) -> str:
    """In SQL: CASE x WHEN '' THEN '%-' ELSE replace(replace(x, '%', '%25'), '/', '%2F') END."""
    return part.replace("%", "%25").replace("/", "%2F") if part else "%-"


def unescape(part: str) -> str:
    return _ESCAPED.sub(lambda found: _MEANT[found[1]], part)


def number(text: str) -> str:
    """A whole number with all its digits."""
    return text.zfill(DIGITS + text.startswith("-"))


@dataclass(frozen=True)
class RecordName:
    """Which row a record is: its root, and the text of each of that row's key columns and namespace columns."""

    root: Root
    columns: dict[str, str]


def name_of(root: Root, namespace: str, columns: t.Mapping[str, str]) -> str:
    """The key of the record whose row has these texts in its key columns (and in the column of a prefix)."""
    parts = [escape(root.label)] if root.label else []
    if root.namespace.kind == "prefix":
        below = columns[root.namespace.columns[0]][len(namespace) + len(root.namespace.separator) :]
        parts += [escape(below)] if below else []
    parts += [number(columns[key]) if key in root.numbers else escape(columns[key]) for key in root.key]
    return "/".join(parts)


def parse_name(roots: t.Sequence[Root], namespace: str, text: str) -> RecordName:
    """The inverse of ``name_of``. Errors: InvalidInput for what is no name of a record of these roots."""
    wrong = InvalidInput(
        f"{text!r:.80} is no key of namespace {namespace!r:.80}.", "name one as a plan or an export writes it"
    )
    parts = text.split("/")
    for root in roots:
        rest = parts
        if root.label:
            if unescape(parts[0]) != root.label:
                continue
            rest = parts[1:]
        columns = dict(namespace_columns(root.namespace, namespace))
        if root.namespace.kind == "prefix" and len(rest) == len(root.key) + 1:
            columns[root.namespace.columns[0]] += root.namespace.separator + unescape(rest[0])
            rest = rest[1:]
        if len(rest) != len(root.key):
            raise wrong
        for key, part in zip(root.key, rest):
            if key in root.numbers:
                if not NUMBER.fullmatch(part):
                    raise wrong
                columns[key] = str(int(part))
            else:
                columns[key] = unescape(part)
        if name_of(root, namespace, columns) != text:
            raise wrong
        return RecordName(root, columns)
    raise wrong


# --- namespaces -----------------------------------------------------------------------------------------------------
def namespace_columns(rule: Namespaces, namespace: str) -> dict[str, str]:
    """What the namespace's columns are (of a prefix: at its top; of JSON nothing). Errors: InvalidInput."""
    if rule.kind == "json":
        return {}
    if rule.kind == "whole":
        if namespace != WHOLE:
            raise InvalidInput(f"{namespace!r:.80} is no namespace here: there is one.", f"write {WHOLE}")
        return {}
    if len(rule.columns) == 1:
        return {rule.columns[0]: namespace}
    parts = namespace.split("/")
    if len(parts) != len(rule.columns):
        raise InvalidInput(
            f"{namespace!r:.80} is no namespace here: it is made of {' and '.join(rule.columns)}.",
            f"write it as {'/'.join(rule.columns)}",
        )
    return dict(zip(rule.columns, map(unescape, parts)))


def namespace_fields(rule: Namespaces, namespace: str) -> dict[str, str]:
    """Which fields of the JSON column have which values (of ``json`` alone). Errors: InvalidInput."""
    found: dict[str, str] = {}
    for part in namespace.split("&"):
        field, equals, value = part.partition("=")
        if not equals or field not in rule.fields or field in found:
            raise InvalidInput(
                f"{namespace!r:.80} is no namespace here: it is made of {', '.join(rule.fields)}.",
                f"write it as {rule.fields[0]}=<value>, more of them joined by &",
            )
        found[field] = unescape(value)
    if namespace_of_fields(rule, found) != namespace:
        raise InvalidInput(
            f"{namespace!r:.80} is not how that namespace is written.", f"use {namespace_of_fields(rule, found)!r:.80}"
        )
    return found


def namespace_of(rule: Namespaces, columns: t.Mapping[str, str]) -> str:
    """The namespace at whose top a row with these columns is (not of ``json``)."""
    if rule.kind == "whole":
        return WHOLE
    values = [columns[name] for name in rule.columns]
    return values[0] if len(values) == 1 else "/".join(map(escape, values))


def namespace_of_fields(rule: Namespaces, fields: t.Mapping[str, str]) -> str:
    escaped = {name: value.replace("%", "%25").replace("&", "%26") for name, value in fields.items()}
    return "&".join(f"{name}={escaped[name]}" for name in rule.fields if name in escaped)


def overlap(rule: Namespaces, one: str, other: str) -> bool:
    """Whether a row can belong to both."""
    if one == other:
        return True
    if rule.kind == "prefix":
        ends = rule.separator
        return one.startswith(other + ends) or other.startswith(one + ends)
    if rule.kind == "json":
        first, second = namespace_fields(rule, one), namespace_fields(rule, other)
        return all(second.get(field, value) == value for field, value in first.items())
    return False


def outermost(rule: Namespaces, names: t.Iterable[str]) -> list[str]:
    """Of these namespaces those that lie in none of the others: together they have every record once."""
    names = sorted(set(names))
    if rule.kind == "prefix":
        there, ends = set(names), rule.separator
        return [
            name
            for name in names
            if not any(name.startswith(ends, at) and name[:at] in there for at in range(1, len(name)))
        ]
    if rule.kind == "json":
        known = {name: set(namespace_fields(rule, name).items()) for name in names}
        return [name for name in names if not any(known[name] > other for other in known.values())]
    return names


# --- payloads -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TableRows:
    """The rows of one table in a payload."""

    name: str
    columns: tuple[tuple[str, str], ...]  # (column, type)
    rows: tuple[tuple[Cell, ...], ...]


def header(engine: str, tables: t.Sequence[tuple[str, t.Sequence[tuple[str, str]]]]) -> bytes:
    """What a payload begins with: MAGIC, length, and which columns the tables have, the root first."""
    body = {"engine": engine, "tables": [[name, [list(column) for column in columns]] for name, columns in tables]}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return MAGIC + _LENGTH.pack(len(text)) + text


def pack_row(cells: Cells) -> bytes:
    parts = [_COUNT.pack(len(cells))]
    for cell in cells:
        parts += (_NULL,) if cell is None else (_CELL.pack(len(cell)), cell)
    return b"".join(parts)


def pack(head: bytes, tables: t.Sequence[t.Sequence[Cells]]) -> bytes:
    """A payload; ``tables`` are those of the header, in its order."""
    parts = [head]
    for rows in tables:
        parts.append(_LENGTH.pack(len(rows)))
        parts += map(pack_row, rows)
    return b"".join(parts)


def unpack(payload: bytes) -> tuple[str, list[TableRows]]:
    """Engine and tables. Errors: RecordCorrupt."""
    try:
        return _unpack(payload)
    except (ValueError, TypeError, KeyError, IndexError, struct.error) as exc:
        raise RecordCorrupt(
            f"This is no record of tables: {exc}.", "take the record from a snapshot of this store"
        ) from None


def put_off(live: Row, copy: Row) -> bool:
    """Whether ``live`` differs from ``copy`` in that it expires later, and in nothing else: LangGraph puts that off
    with every read of a record that has a time to live. One that expires sooner, or that never did, was changed."""
    if live[5] is None or copy[5] is None or live[5] <= copy[5] or live[3:5] != copy[3:5]:
        return False
    if not (live[8].startswith(MAGIC) and copy[8].startswith(MAGIC)):
        return False
    try:
        (_engine, first), (_engine, second) = unpack(live[8]), unpack(copy[8])
    except RecordCorrupt:
        return False
    if first[1:] != second[1:] or first[0].columns != second[0].columns:
        return False
    return sum(a != b for a, b in zip(first[0].rows[0], second[0].rows[0])) == 1


def unwritten(live: Row, copy: Row, taken: int, once: bool = False) -> bool:
    """Whether ``live`` says by its own times that nobody wrote it after ``copy`` was made at ``taken`` (µs).

    A change within the unit of its own update time may have come after that. ``once``: the application never changes
    such a record.
    """
    return once or (bool(live[4]) and live[3:5] == copy[3:5] and taken > live[4] + _unit(live[4]))


def silent(live: Row, copy: Row, taken: int, once: bool = False) -> bool:
    """Whether what ``live`` says was changed since ``copy`` although its update time was not, or although it is written
    ``once``: no application did that.

    Expiry and companions (embeddings that were made anew) do not count, and tables whose columns are others neither.
    ``taken``: when the copy was made, µs.
    """
    if not unwritten(live, copy, taken, once):
        return False
    if not (live[9] and copy[9] and live[8].startswith(MAGIC) and copy[8].startswith(MAGIC)):
        return False
    try:
        (_engine, first), (_engine, second) = unpack(live[8]), unpack(copy[8])
    except RecordCorrupt:
        return False
    if first[0].columns != second[0].columns:
        return False
    differing = sum(a != b for a, b in zip(first[0].rows[0], second[0].rows[0]))
    return bool(differing > (live[5] != copy[5]))


def _unit(at: int) -> int:
    """In what a time seems to be counted, µs: SQLite's CURRENT_TIMESTAMP has whole seconds."""
    return 1_000_000 if at % 1_000_000 == 0 else 1000


def _unpack(payload: bytes) -> tuple[str, list[TableRows]]:
    if not payload.startswith(MAGIC):
        raise ValueError("it begins with something else")
    at = len(MAGIC)
    (length,) = _LENGTH.unpack_from(payload, at)
    at += 4
    engine, tables = _parsed(payload[at : at + length])
    at += length
    found = []
    for name, columns in tables:
        (count,) = _LENGTH.unpack_from(payload, at)
        at += 4
        rows = []
        for _row in range(count):
            (width,) = _COUNT.unpack_from(payload, at)
            if width != len(columns):
                raise ValueError("a row has another number of columns")
            at += 2
            cells: list[Cell] = []
            for _column in range(width):
                (size,) = _CELL.unpack_from(payload, at)
                at += 4
                if size < 0:
                    cells.append(None)
                    continue
                if at + size > len(payload):
                    raise ValueError("it is cut off")
                cells.append(payload[at : at + size])
                at += size
            rows.append(tuple(cells))
        found.append(TableRows(name, columns, tuple(rows)))
    if at != len(payload):
        raise ValueError("there is more behind it")
    return engine, found


@functools.lru_cache(maxsize=64)
def _parsed(text: bytes) -> tuple[str, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]]:
    """Of a header: engine, and of each table its name and columns. Records of a table have the same one."""
    body = json.loads(text)
    tables = ((name, tuple((one, kind) for one, kind in columns)) for name, columns in body["tables"])
    return str(body["engine"]), tuple(tables)
