# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Damage that lies on the disk of a PostgreSQL server or was done past Memory: found, worked around, mended."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreDamaged, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer
from tests.unit.engines.postgresql_help import answers, new_postgresql, raw, same, spoil
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, structure, write


@pytest.fixture(scope="module")
def server():
    """A server that may be hurt. Before version 18 initdb made no data checksums by itself."""
    with PostgresqlServer(initdb=["--data-checksums"]) as one:
        yield one


@pytest.fixture
def store(server):
    opened = new_postgresql(server)
    yield opened
    opened.close()


def operate(server, store, text, *values):
    """As a superuser, past the fence."""
    with raw(server, store, "postgres") as con:
        con.execute("SET memops.operating = 'on'")
        con.execute(text, values)


def test_an_index_that_is_damaged_on_disk_is_found_and_rebuilt(server, store):
    write(store, "n", {f"{n:05}": b"x" * 50 for n in range(2000)})
    name = f'"{store.sql.plain_schema}".memory_access_log_writes'
    spoil(server, name, 2)
    found = structure(store)
    assert any(line.startswith("index memory_access_log_writes: ") for line in found), found
    assert store.repair_structure() == ["rebuilt the index memory_access_log_writes"]
    assert structure(store) == []
    with store.reader() as reader:
        assert sum(len(batch) for batch in reader.last_writes("n")) == 2000


def test_an_index_whose_page_ends_the_servers_process_is_named():
    """Before version 18 initdb made no data checksums, which keep a process from such a page."""
    with PostgresqlServer(version="16") as server:
        store = new_postgresql(server)
        assert store.warnings()[1:] == [
            "data_checksums is off: damage on the server's disk may be read as data, or end the server's processes"
        ]
        write(store, "n", {f"{n:05}": b"x" * 50 for n in range(2000)})
        index = store.sql.name("memory_access_log_writes")
        spoil(server, index, 2)
        with pytest.raises(StoreUnavailable, match="was lost while amcheck looked into the index") as caught:
            structure(store)
        assert caught.value.next_step.endswith(f"REINDEX INDEX {index}, as its owner")
        answers(server)
        with raw(server, store, "memops") as con:
            con.execute(f"REINDEX INDEX {index}")
        assert structure(store) == []
        store.close()


def test_an_index_that_lacks_rows_is_found_when_amcheck_may_be_used(server, store):
    write(store, "n", {f"{n:05}": b"x" for n in range(500)})
    text = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'memory_access_log_writes'::regclass"
    operate(server, store, text)
    assert structure(store) == ["index memory_access_log_writes is invalid"]
    assert store.repair_structure() == ["rebuilt the index memory_access_log_writes"]
    with server.connect() as con:
        con.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM memops, PUBLIC")
    try:
        assert structure(store) == []  # nothing that is not known is said
    finally:
        with server.connect() as con:
            con.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO memops")


def test_what_lies_around_a_damaged_page_is_read(server, store):
    write(store, "n", {f"{n:04}": bytes([n % 256]) * 300 for n in range(400)})
    spoil(server, f'"{store.sql.plain_schema}".memory_records', 4)
    whole = [f"{n:04}" for n in range(400)]
    with store.reader() as reader:
        got = []
        for descending in (False, True):
            part = []
            with pytest.raises(StoreDamaged, match="is damaged: invalid page in block 4"):
                for batch in reader.scan("n", descending=descending):
                    part += [r[0] for r in batch]
            got.append(part)
        up, down = got
        assert up == whole[: len(up)] and down == whole[::-1][: len(down)]
        assert 370 <= len(up) + len(down) < 400
        assert reader.get_many("n", ["0000", "0399"]).keys() == {"0000", "0399"}  # the reader goes on
        assert sum(len(batch) for batch in reader.last_writes("n")) == 400
        assert reader.log_health()["intact"]
    store.create_namespace("other")
    claim = store.claim("n", "a", "op", new_incident="i")
    store.fence(claim)
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"]


def test_rows_whose_key_is_no_text_are_set_aside(server, store):
    codec = RecordCodec("n")
    write(store, "n", {"a": b"1", "b\\": b"2", "c\x00é": b"3", "k" * 2000 + "é": b"4"})
    operate(server, store, r"UPDATE memory_records SET key = '\x62ff' WHERE key = '\x625c'")
    operate(server, store, r"UPDATE memory_records SET key_id = '\xff80' WHERE key = 'a'")
    assert keys_of(store, "n", batch=1) == ["a", "c\x00é", "k" * 2000 + "é"]
    damaged, *others = all_rows(store, "n")
    assert damaged[7] == "\udcff\udc80" and not codec.intact(damaged) and all(map(codec.intact, others))
    assert structure(store) == ["generation 1 holds 1 row whose key is no text"]
    assert store.repair_structure() == ["set 1 row of generation 1 aside whose key was no text"]
    assert structure(store) == []
    with store.reader() as reader:
        assert reader.count("n") == 3
        ((incident, reason, row),) = next(iter(reader.aside("n")))
    assert (incident, reason, row[0], row[8]) == ("structure", "the key is no text", "b\udcff", b"2")


def test_what_was_dropped_is_made_again(server, store):
    write(store, "n", {"a": b"1"})
    for text in (
        "DROP INDEX memory_access_log_writes",
        "DROP INDEX memory_records_expires",
        "DROP TABLE memops_sample",
        "DROP FUNCTION memops_fence() CASCADE",
        "DROP FUNCTION memops_writable(bigint) CASCADE",
        "DROP FUNCTION memops_create_namespace(bytea, text, double precision, bigint)",
    ):
        operate(server, store, text)
    assert len(structure(store)) >= 10
    assert len(store.repair_structure()) >= 10
    assert structure(store) == []
    application = open_store(server.application(store.sql.plain_schema))
    write(application, "m", {"b": b"1"})  # its rights are back, too
    application.close()
    assert health(store)["intact"]


def test_a_store_that_lost_its_control_table_says_so(server, store):
    operate(server, store, "DROP TABLE memops_store")
    for create in (False, True):
        with pytest.raises(StoreDamaged, match="lost its control tables"):
            open_store(server.store(store.sql.plain_schema), create=create)
    with pytest.raises(StoreDamaged, match="lost a part of its structure"):
        store.identity()


def test_what_a_crash_may_cost_is_said(server, store):
    assert store.warnings() == ["fsync is off: a crash of the server's machine may damage the whole store"]
    with server.connect() as con:
        con.execute("ALTER ROLE memops SET synchronous_commit = off")
    try:
        again = same(store, server)
        try:
            assert again.warnings()[1:] == [
                "synchronous_commit is off: a crash of the server may lose the last acknowledged writes"
            ]
        finally:
            again.close()
    finally:
        with server.connect() as con:
            con.execute("ALTER ROLE memops RESET synchronous_commit")


def test_a_connection_that_is_lost_is_no_finding(server, store):
    write(store, "n", {"a": b"x"})
    with store.reader() as reader:
        with raw(server, store, "postgres") as con:
            con.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(StoreUnavailable, match="was lost"):
            reader.structure()
