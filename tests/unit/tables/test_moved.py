# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records on their way elsewhere: each form of a time moved as it was written, and every other byte as it was."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.custom import described_by
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.langgraph_store import LANGGRAPH_STORE
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.mem0 import MEM0
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.tables import Namespaces
from ansible_collections.memops.agent_memory.plugins.module_utils._table_moved import (
    DAY,
    SECOND,
    Unmovable,
    Wide,
    in_json,
    rebased,
    renamed,
    widened,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._table_records import (
    TableRows,
    header,
    outermost,
    pack,
    unpack,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._table_values import sqlite_cell, sqlite_value

HOUR = 3600 * SECOND
AT = 1_800_000_000 * SECOND


def record(engine, table, columns, cells, expires, namespace="agent-7"):
    payload = pack(header(engine, [(table, columns)]), [[cells]])
    row = ("key", 0, 0, 1, 2, expires, None, "", payload)
    return (*row, RecordCodec(namespace).checksum(row))


def custom(**expires):
    one = {"name": "memories", "namespace": {"columns": ["user"]}, "key": ["id"], "expires": expires}
    return described_by([one])


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("timestamp", "2026-11-23 23:44:25.018599+00:00", "2026-11-24 00:44:25.018599+00:00"),
        ("timestamp", "2026-02-28 23:44:25", "2026-03-01 00:44:25"),
        ("text", "2026-12-31T23:44:25.5+02:00", "2027-01-01T00:44:25.5+02:00"),
        ("text", "2026-11-23T01:44:25Z", "2026-11-23T02:44:25Z"),
        ("seconds", 1_800_000_000, 1_800_003_600),
        ("seconds", 1_800_000_000.25, 1_800_003_600.25),
        ("milliseconds", 1_800_000_000_123, 1_800_003_600_123),
        ("date", "2026-12-31", "2027-01-01"),  # never by less than the hour
    ],
)
def test_a_time_in_sqlite_is_moved_as_it_was_written(form, before, after):
    layout = custom(column="over", form=form)
    columns = [("user", "TEXT"), ("over", ""), ("said", "BLOB")]
    row = record("sqlite", "memories", columns, [*map(sqlite_cell, ("agent-7", before, b"x\0"))], AT)
    moved = rebased(row, layout, "agent-7", HOUR)
    _engine, tables = unpack(moved[8])
    assert [sqlite_value(cell) for cell in tables[0].rows[0]] == ["agent-7", after, b"x\0"]
    assert moved[5] == AT + (DAY if form == "date" else HOUR) and RecordCodec("agent-7").intact(moved)
    assert rebased(row, layout, "agent-7", 0) == row


@pytest.mark.parametrize(
    ("kind", "form", "before", "after"),
    [
        ("timestamp with time zone", "timestamp", struct.pack(">q", 7), struct.pack(">q", 7 + HOUR)),
        ("bigint", "milliseconds", struct.pack(">q", 9), struct.pack(">q", 9 + 3_600_000)),
        ("integer", "seconds", struct.pack(">i", 9), struct.pack(">i", 9 + 3600)),
        ("double precision", "seconds", struct.pack(">d", 9.5), struct.pack(">d", 3609.5)),
        ("text", "text", b"2026-11-23T01:44:25Z", b"2026-11-23T02:44:25Z"),
    ],
)
def test_a_time_in_postgresql_is_moved_as_its_type_sends_it(kind, form, before, after):
    row = record("postgresql", "memories", [("user", "text"), ("over", kind)], [b"agent-7", before], AT)
    moved = rebased(row, custom(column="over", form=form), "agent-7", HOUR)
    assert unpack(moved[8])[1][0].rows[0] == (b"agent-7", after) and moved[5] == AT + HOUR


def test_a_date_inside_json_is_moved_and_every_other_byte_stays():
    text = '{"n": 1.10, "deep": {"expiration_date": "2020-01-01"}, "expiration_date": "2026-12-31", "ü": [1e5]}'
    columns = [("id", "uuid"), ("vector", "vector(2)"), ("payload", "jsonb")]
    row = record("postgresql", "mem0", columns, [b"\0" * 16, None, b"\1" + text.encode()], AT)
    cells = unpack(rebased(row, MEM0, "agent-7", HOUR)[8])[1][0].rows[0]
    assert cells[2] == b"\1" + text.replace("2026-12-31", "2027-01-01").encode()


def test_what_has_no_expiry_stays_and_what_cannot_be_moved_says_why():
    layout = custom(column="over", form="text")
    row = record("sqlite", "memories", [("over", "TEXT")], [sqlite_cell("soon")], AT)
    assert rebased(row[:5] + (None,) + row[6:], layout, "agent-7", HOUR)[5] is None
    with pytest.raises(CannotProceed, match=r"'soon' is no time that is known.*memory_restore_expiry to keep"):
        rebased(row, layout, "agent-7", HOUR)
    with pytest.raises(CannotProceed, match="does not say where memories has it"):
        rebased(row, LANGGRAPH_STORE, "agent-7", HOUR)
    with pytest.raises(Unmovable, match="no over"):
        in_json('{"a": {"over": 1}}', "over", str)


def test_a_record_under_another_name_differs_in_nothing_else():
    columns = [("prefix", "text"), ("key", "text"), ("value", "jsonb")]
    row = record("postgresql", "store", columns, [b"agent-7.notes", b"agent-7", b'\1{"agent-7": 1}'], AT)
    moved = renamed(row, LANGGRAPH_STORE, "agent-7", "users.copy")
    assert unpack(moved[8])[1][0].rows[0] == (b"users.copy.notes", b"agent-7", b'\1{"agent-7": 1}')
    assert moved[:8] == row[:8] and RecordCodec("users.copy").intact(moved)
    numbers = record("postgresql", "store", [("prefix", "integer")], [struct.pack(">i", 7)], None)
    with pytest.raises(CannotProceed, match="no text"):
        renamed(numbers, LANGGRAPH_STORE, "7", "8")


def test_a_name_inside_json_changes_and_every_other_byte_stays():
    text = '{"n": 1.10, "data": "user_id", "run_id": "r", "user_id": "%s", "deep": {"user_id": "ann"}}'
    columns = [("id", "uuid"), ("payload", "jsonb")]

    def of(user):
        return record("postgresql", "mem0", columns, [b"\0" * 16, b"\1" + (text % user).encode()], AT)

    moved = renamed(of("ann"), MEM0, "user_id=ann&run_id=r", "user_id=a%26b %25 é&run_id=r")
    assert unpack(moved[8])[1][0].rows[0][1] == b"\1" + (text % "a&b % é").encode()
    assert moved[:8] == of("ann")[:8] and RecordCodec("user_id=a%26b %25 é&run_id=r").intact(moved)
    with pytest.raises(CannotProceed, match="'bob' stands there and not 'ann'"):
        renamed(of("bob"), MEM0, "user_id=ann", "user_id=zoe")
    with pytest.raises(InvalidInput, match="give a value to each of user_id and to no other"):
        renamed(of("ann"), MEM0, "user_id=ann", "agent_id=7")


def test_which_namespaces_have_every_record_once():
    prefix = Namespaces("prefix", ("prefix",))
    assert outermost(prefix, ["a.b.c", "a.b", "ab", "ab.c", "x.y"]) == ["a.b", "ab", "x.y"]
    fields = Namespaces("json", ("payload",), fields=("user", "run"))
    assert outermost(fields, ["user=a", "user=a&run=1", "user=b&run=1", "run=1"]) == ["run=1", "user=a"]
    assert outermost(Namespaces("columns", ("user",)), ["a", "a.b"]) == ["a", "a.b"]


@pytest.mark.parametrize(
    ("then", "today", "fits"),
    [
        ("vector(8)", "vector", True),
        ("character varying(20)", "character varying", True),
        ("timestamp(3) with time zone", "timestamp with time zone", True),
        ("vector", "vector(8)", False),
        ("vector(8)", "vector(4)", False),
        ("text", "bytea", False),
    ],
)
def test_a_type_that_lost_its_length_holds_the_same_bytes(then, today, fits):
    row = record("postgresql", "mem0", [("vector", then)], [b"bytes"], None)
    wide = {"mem0": Wide((("vector", today),), lambda _column: None)}
    found = widened(row, "postgresql", "agent-7", wide)
    assert unpack(found[8])[1][0] == TableRows("mem0", (("vector", today if fits else then),), ((b"bytes",),))
    assert RecordCodec("agent-7").intact(found)
