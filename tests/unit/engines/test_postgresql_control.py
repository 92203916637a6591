# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Control rows of a PostgreSQL store that are gone or do not lead to a namespace's records any more."""
from __future__ import annotations

import pytest

from tests.unit.engines.control_help import ROWS, filled, led_back, refused
from tests.unit.engines.postgresql_help import new_postgresql, raw
from tests.unit.engines.sqlite_help import all_rows, write


@pytest.fixture
def store(postgresql_server):
    opened = filled(new_postgresql(postgresql_server))
    yield opened
    opened.close()


@pytest.fixture
def change(store, postgresql_server):
    with raw(postgresql_server, store, "postgres") as con:
        con.execute("SET memops.operating = 'on'")
        yield lambda text, *values: con.execute(text, values)


def number(change, name="n"):
    return change("SELECT generation FROM memops_namespace WHERE name = %s", name.encode()).fetchone()[0]


@pytest.mark.parametrize("why", ROWS)
def test_nothing_is_read_or_written_by_such_a_row_and_the_repair_leads_it_back(store, change, why):
    before = all_rows(store, "n")
    for text in ROWS[why]:
        change(text)
    refused(store, why)
    led_back(store, before, serving="generation" in why)


def test_what_was_written_past_the_row_comes_along_where_it_is_newer(store, change):
    write(store, "n", {"d": b"old"})
    old = number(change)
    change("UPDATE memops_namespace SET generation = 99 WHERE name = 'n'")
    columns = "key_rest, key_mark, created, updated, expires, deleted, key_id, checksum"
    into = f"INSERT INTO memory_records (generation, key, epoch, sequence, payload, {columns}) SELECT 99, "
    change(f"{into} key, epoch, sequence + 50, 'new', {columns} FROM memory_records WHERE generation = %s "
           "AND key = 'a'", old)  # fmt: skip
    change(f"{into} key, epoch, 0, 'late', {columns} FROM memory_records WHERE generation = %s AND key = 'd'", old)
    assert store.repair_structure() == [f"led namespace 'n' back to its generation {old}"]
    assert {row[0]: row[8] for row in all_rows(store, "n")} == {"a": b"new", "b": b"2", "d": b"old"}
    assert change("SELECT key, payload, reason FROM memops_aside ORDER BY key").fetchall() == [
        (b"a", b"1", b"superseded"), (b"d", b"late", b"superseded"),
    ]  # fmt: skip
    assert number(change) == old


def test_a_note_that_is_lost_while_a_former_generation_is_kept(store, change):
    """What a rebuild left out does not come back from the generation before it."""
    claim = store.claim("n", "a", "o", new_incident="i")
    old, new = number(change), store.begin_generation(claim)
    store.load(claim, new, [*all_rows(store, "n")[:1], *all_rows(store, "m")])
    store.switch(claim, new, old)
    change("DELETE FROM memops_generation WHERE id = %s", new)
    assert store.repair_structure() == [f"noted generation {new} as that of namespace 'n'"]
    assert (number(change), len(all_rows(store, "n"))) == (new, 1)
    assert store.begin_generation(claim) > new
