# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What SQLite puts together of the log is what its rows are, whatever stands in them."""
from __future__ import annotations

import sqlite3
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite_connect import lenient
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite_log_parts import log_part, log_parts
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite_schema import LOG_COLUMNS
from ansible_collections.memops.agent_memory.plugins.module_utils._log_parts import LogPart, entries_of
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.chunks import (
    LogChunker,
    RowPacker,
    unpack_rows,
)

Rows = t.List[Row]
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["", "\0", 'a"\\/\b\f\n\r\t\x1f\x7f', "\u2028é𐀀", "12", "1.50", "[1]", "null"]
)
NOT_UTF8 = st.sampled_from([b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
ODD = st.one_of(
    st.none(), INT64, st.floats(allow_nan=False), st.floats(allow_nan=False).map(lambda number: number / 3), TEXT,
    st.binary(max_size=40), NOT_UTF8.map(lambda raw: ("text", raw)),
)  # fmt: skip
SOUND: t.Sequence[st.SearchStrategy[t.Any]] = (
    st.integers(0, 1 << 53), st.just("n"), TEXT, st.none() | TEXT, st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 1 << 40), st.none() | st.binary(min_size=32, max_size=32) | st.binary(max_size=3),
    st.none() | st.integers(0, 99), TEXT, st.none() | TEXT, st.binary(min_size=16, max_size=16),
)  # fmt: skip
ENTRY = st.tuples(*SOUND)


@st.composite
def entries(draw: st.DrawFn) -> list[list[t.Any]]:
    """Sound ones for the most part, with ids that leave gaps, and some fields of any other kind."""
    rows = [list(row) for row in draw(st.lists(ENTRY, min_size=1, max_size=12))]
    for _time in range(draw(st.sampled_from([0, 0, 1, 2]))):
        rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(0, 10))] = draw(ODD)
    number = 0
    for row in rows:
        number += draw(st.sampled_from([1, 1, 1, 2, 700, 5000]))
        row.insert(0, number)
    return rows


def log_of(rows: t.Iterable[t.Sequence[t.Any]]) -> sqlite3.Connection:
    """A log whose columns take values of any type, as a damaged page does."""
    con = sqlite3.connect(":memory:", isolation_level=None)
    con.execute(f"CREATE TABLE log ({LOG_COLUMNS.replace('id,', 'id INTEGER PRIMARY KEY,')})")
    for row in rows:
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, tuple) else "?" for value in row)
        values = [value[1] if isinstance(value, tuple) else value for value in row]
        con.execute(f"INSERT INTO log VALUES ({marks})", values)
    return con


def plain_rows(con: sqlite3.Connection, after: int, until: int) -> t.Iterator[Rows]:
    con.text_factory = lenient
    rows = con.execute(f"SELECT {LOG_COLUMNS} FROM log WHERE id > ? AND id <= ? ORDER BY id", (after, until)).fetchall()
    con.text_factory = str
    if rows:
        yield rows


def exactly(rows: t.Iterable[Row]) -> list[str]:
    return [repr(row) for row in rows]  # tells 1 from 1.0 and from True


@settings(max_examples=300)
@given(entries(), st.integers(0, 900))
def test_parts_are_the_rows(rows: list[list[t.Any]], after: int) -> None:
    con = log_of(rows)
    until = rows[-1][0]
    wanted = [row for part in plain_rows(con, after, until) for row in part]
    found: Rows = []
    chunked: dict[t.Any, Rows] = {}
    chunkers: dict[t.Any, LogChunker] = {}
    for part in log_parts(con, "log", after, until, lambda low, high: plain_rows(con, low, high)):
        if isinstance(part, LogPart):
            made: t.Sequence[Row] = entries_of(part.fields())
            assert (part.rows, part.first, part.last) == (len(made), made[0][0], made[-1][0])
        else:
            made = part
        found += made
        for name in {repr(row[2]) for row in made}:
            own = part if isinstance(part, LogPart) else [row for row in part if repr(row[2]) == name]
            for chunk in chunkers.setdefault(name, LogChunker()).add(own):
                chunked.setdefault(name, []).extend(unpack_rows(chunk[0]))
    assert exactly(found) == exactly(wanted)
    for name, chunker in chunkers.items():
        rest = chunker.rest()
        both = chunked.get(name, []) + list(unpack_rows(rest[0]))
        assert exactly(both) == exactly(unpack_rows(RowPacker().pack([r for r in wanted if repr(r[2]) == name])))
    con.close()


@settings(max_examples=300)
@given(st.lists(ENTRY, min_size=1, max_size=3), st.integers(0, 10), ODD | st.integers(0, 3).map(float))
def test_a_comparison_sees_what_it_does_not_prove(rows: list[tuple[t.Any, ...]], column: int, value: t.Any) -> None:
    con = log_of([(number, *row) for number, row in enumerate(rows, 1)])
    exact = log_part(con, "log", 0, len(rows), compared=True)
    assert exact == log_part(con, "log", 0, len(rows))
    before = next(plain_rows(con, 0, len(rows)))
    name = LOG_COLUMNS.split(", ")[1 + column]
    mark = "CAST(? AS TEXT)" if isinstance(value, tuple) else "?"
    con.execute(f"UPDATE log SET {name} = {mark} WHERE id = 1", (value[1] if isinstance(value, tuple) else value,))
    same = exactly(next(plain_rows(con, 0, len(rows)))) == exactly(before)
    assert (log_part(con, "log", 0, len(rows), compared=True) == exact) == same
    con.close()


@given(st.lists(ENTRY, min_size=1, max_size=5))
def test_sound_entries_of_one_namespace_are_put_together(rows: list[tuple[t.Any, ...]]) -> None:
    con = log_of([(number, *row) for number, row in enumerate(rows, 1)])
    part = log_part(con, "log", 0, len(rows))
    con.close()
    assert part is not None
    assert entries_of(part.fields()) == [(number, *row) for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", 1.5), ("at", 1e300), ("at", b"5"), ("epoch", 0.5), ("lock", b""), ("operation", 7),
        ("operation", b"hit"), ("key", 3.25), ("actor", 1e-5), ("reason", b"r"), ("digest", "text"), ("digest", 9),
        ("checksum", "c" * 16), ("checksum", b"c" * 15), ("checksum", None), ("namespace", b"n"), ("namespace", 4),
        ("at", None), ("namespace", None), ("actor", None),
    ],
)  # fmt: skip
def test_what_json_would_change_is_left_to_the_rows(column: str, value: t.Any) -> None:
    sound = (7, "n", "write", "k", 1, 2, b"d" * 32, 3, "a", None, b"c" * 16)
    con = log_of([(1, *sound), (2, *sound)])
    exact = log_part(con, "log", 0, 2)
    assert exact is not None and log_part(con, "log", 0, 2, compared=True) == exact
    con.execute(f"UPDATE log SET {column} = ? WHERE id = 2", (value,))
    assert log_part(con, "log", 0, 2) is None
    assert log_part(con, "log", 0, 2, compared=True) != exact
    con.close()


def test_ids_far_apart_are_found_without_looking_at_every_stretch_between() -> None:
    sound = (7, "n", "write", "k", 1, 2, b"d" * 32, 3, "a", None, b"c" * 16)
    con = log_of([(number, *sound) for number in (5, 1 << 40, (1 << 62) + 3)])
    asked: list[tuple[int, int]] = []

    def rows(low: int, high: int) -> t.Iterator[Rows]:
        asked.append((low, high))
        return plain_rows(con, low, high)

    parts = list(log_parts(con, "log", 0, 1 << 62 | 3, rows))
    assert [part.first for part in parts if isinstance(part, LogPart)] == [5, 1 << 40, (1 << 62) + 3]
    assert len(asked) == 2  # the stretches without any
    con.close()
