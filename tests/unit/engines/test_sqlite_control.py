# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Control rows of a SQLite store that do not lead to a namespace's records any more."""
from __future__ import annotations

import contextlib
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    NamespaceDamaged,
    NamespaceQuarantined,
)
from tests.unit.engines.sqlite_help import all_rows, new, structure, write


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    yield opened
    opened.close()


def change(store, sql, *values):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as con:
        return con.execute(sql, values).fetchall()


DAMAGE = {
    "is gone, its records are there": ["DELETE FROM memops_namespace WHERE name = 'n'"],
    "names generation 99, which it does not have": ["UPDATE memops_namespace SET generation = 99 WHERE name = 'n'"],
    "names generation 1, which it does not have": ["DELETE FROM memops_generation WHERE namespace = 'n'"],
    "names generation 2, which it does not have": [
        "DROP INDEX memops_namespace_generation", "UPDATE memops_namespace SET generation = 2 WHERE name = 'n'",
    ],
    "has the state 'serv', which there is not": ["UPDATE memops_namespace SET state = 'serv' WHERE name = 'n'"],
    "has lost the state from before its quarantine (None stands there)": [
        "UPDATE memops_namespace SET state = 'quarantined' WHERE name = 'n'"
    ],
}  # fmt: skip


@pytest.mark.parametrize("why", DAMAGE)
def test_nothing_is_read_or_written_by_such_a_row_and_the_repair_leads_it_back(store, why):
    write(store, "n", {"a": b"1", "b": b"2"})
    write(store, "m", {"a": b"another's"})
    before = all_rows(store, "n")
    for text in DAMAGE[why]:
        change(store, text)
    said = f"The control row of namespace 'n' {why}."
    with store.reader() as reader:
        for ask in (reader.namespaces, lambda: reader.namespace("n"), lambda: reader.get_many("n", ["a"])):
            with pytest.raises(NamespaceDamaged) as caught:
                ask()
            assert caught.value.message == said
        assert caught.value.next_step == "ansible-playbook memops.agent_memory.rebuild -e memory_namespace=n"
        assert said[0].lower() + said[1:-1] in reader.structure()
        assert len(reader.get_many("m", ["a"])) == 1
    for attempt in (
        lambda: write(store, "n", {"a": b"3"}),
        lambda: store.lock("n", "me", 0, 1),
        lambda: store.create_namespace("n") or store.set_ttl("n", 1.0),
        lambda: store.claim("n", "a", "o", new_incident="i"),
    ):
        with pytest.raises(NamespaceDamaged):
            attempt()
    write(store, "m", {"b": b"goes on"})
    assert store.lead_back() and not store.lead_back()
    assert all_rows(store, "n") == before
    store.repair_structure()
    assert structure(store) == []
    if "generation" in why:  # it is known whether it was quarantined
        assert write(store, "n", {"a": b"3"})
        return
    with pytest.raises(NamespaceQuarantined):
        write(store, "n", {"a": b"3"})


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
