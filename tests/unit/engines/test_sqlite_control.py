# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Control rows of a SQLite store that do not lead to a namespace's records any more."""
from __future__ import annotations

import contextlib
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    NamespaceQuarantined,
)
from tests.unit.engines.control_help import ROWS, filled, led_back, refused
from tests.unit.engines.sqlite_help import all_rows, new, structure, write


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    yield opened
    opened.close()


def change(store, sql, *values):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as con:
        return con.execute(sql, values).fetchall()


@pytest.mark.parametrize("why", ROWS)
def test_nothing_is_read_or_written_by_such_a_row_and_the_repair_leads_it_back(store, why):
    before = all_rows(filled(store), "n")
    for text in ROWS[why]:
        change(store, text)
    refused(store, why)
    led_back(store, before, serving="generation" in why)


def test_a_namespace_whose_generation_is_another_ones_and_that_has_none_gets_an_empty_one(store):
    write(store, "n", {"a": b"1"})
    write(store, "m", {"a": b"another's"})
    change(store, "DROP INDEX memops_namespace_generation")
    change(store, "DELETE FROM memops_generation WHERE namespace = 'n'")
    change(store, "UPDATE memops_namespace SET generation = 2 WHERE name = 'n'")
    said = "gave namespace 'n' the new generation 3; its records have to come from a snapshot"
    assert said in store.repair_structure()
    assert (structure(store), all_rows(store, "n"), len(all_rows(store, "m"))) == ([], [], 1)


def test_a_namespace_is_led_back_to_its_records_and_keeps_what_was_written_since(store):
    write(store, "n", {"a": b"old", "b": b"kept", "d": b"old"})
    write(store, "m", {"a": b"another's"})
    ((old,),) = change(store, "SELECT generation FROM memops_namespace WHERE name = 'n'")
    change(store, "UPDATE memops_namespace SET generation = 99 WHERE name = 'n'")
    change(store, "DROP TRIGGER memops_fence_insert")
    rows = "created, updated, expires, deleted, key_id, {}, checksum FROM memory_records "
    for name, sequence, payload, source in (
        ("a", "sequence + 50", "'new'", "a"), ("c", "sequence + 50", "'new'", "a"), ("d", "0", "x'00'", "d"),
    ):  # fmt: skip
        change(  # the last one comes late: it is older than what is there
            store, f"INSERT INTO memory_records SELECT 99, '{name}', epoch, {sequence}, "
            + rows.format(f"CAST({payload} AS BLOB)") + "WHERE generation = ? AND key = ?", old, source,
        )  # fmt: skip
    assert structure(store)[-1] == "the control row of namespace 'n' names generation 99, which it does not have"
    assert f"led namespace 'n' back to its generation {old}" in store.repair_structure()
    assert structure(store) == []
    assert store.generations("n") == [old]
    assert {r[0]: r[8] for r in all_rows(store, "n")} == {"a": b"new", "b": b"kept", "c": b"new", "d": b"old"}
    assert {r[0]: r[8] for r in all_rows(store, "m")} == {"a": b"another's"}
    assert change(store, "SELECT key, payload, reason FROM memops_aside ORDER BY key") == [
        ("a", b"old", "superseded"), ("d", b"\0", "superseded"),
    ]  # fmt: skip
    assert change(store, "SELECT count(*) FROM memory_records WHERE generation = 99") == [(0,)]
    assert store.repair_structure() == []


def test_a_namespace_without_any_generation_keeps_the_one_that_it_names(store):
    write(store, "n", {"a": b"1"})
    change(store, "DELETE FROM memops_generation")
    assert len(structure(store)) == 1
    assert store.repair_structure() == ["noted generation 1 as that of namespace 'n'"]
    assert (structure(store), store.generations("n"), len(all_rows(store, "n"))) == ([], [1], 1)


def test_a_namespace_whose_row_is_gone_comes_back_quarantined(store):
    """Whether it was quarantined is not known, and its applications are not to go on with an empty one."""
    write(store, "n", {"a": b"1"})
    write(store, "n", {"a": b"2"})
    change(store, "DELETE FROM memops_namespace")
    assert structure(store) == ["the control row of namespace 'n' is gone, its records are there"]
    assert store.repair_structure() == [
        "made the control row of namespace 'n' again; it is quarantined, as it may have been"
    ]
    assert structure(store) == []
    assert [r[8] for r in all_rows(store, "n")] == [b"2"]
    with pytest.raises(NamespaceQuarantined):
        write(store, "n", {"a": b"3"})
    claim = store.claim("n", "attempt-1", "operator", new_incident="inc-1")
    assert store.fence(claim)
    assert store.unfence(claim)
    assert write(store, "n", {"a": b"3"})[0][2] == 3
    assert change(store, "SELECT max(lock) FROM memory_access_log WHERE operation = 'write'") == [(3,)]
