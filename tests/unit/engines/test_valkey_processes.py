# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Writers that lose the hold or their connection on a Valkey store, readers under changes, a server that is killed."""
from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    MemoryOpsError,
    NamespaceQuarantined,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.engines.sqlite_help import entries, health, keys_of, row, structure, write
from tests.unit.engines.valkey_help import Mortal, new_valkey, same

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def store(valkey_server):
    opened = new_valkey(valkey_server)
    yield opened
    opened.close()


# --- the hold -------------------------------------------------------------------------------------------------------
def test_a_write_that_lost_its_hold_stores_nothing(store, valkey_server):
    write(store, "n", {"a": b"1"})
    other = same(store, valkey_server)
    with pytest.raises(StoreUnavailable, match="overtaken by another one; nothing of it was stored"):
        with store.writing("n", 1) as w:
            rows = [row("n", "a", w.epoch, w.first_sequence, w.at, b"2")]
            w.put(rows, entries("n", rows, w.lock))
            with valkey_server.client() as client:
                client.delete(store.names.hold)  # as the end of its lease does
            taken = write(other, "n", {"b": b"1"})
    assert taken[0][2] == 2
    assert keys_of(store, "n") == ["a", "b"]
    assert health(store)["intact"]
    assert write(store, "n", {"a": b"3"})[0][2] == 3
    other.close()


def test_writers_of_other_namespaces_wait_and_a_busy_store_says_so(store, valkey_server):
    other = same(store, valkey_server, busy_timeout=0.1)
    with store.writing("n", 1):
        with pytest.raises(StoreUnavailable, match="another writer held it longer"):
            write(other, "m", {"a": b"1"})
    write(other, "m", {"a": b"1"})
    other.close()


def test_a_fence_does_not_wait_for_a_writer_that_sleeps(store, valkey_server):
    store.create_namespace("n")
    operator = same(store, valkey_server)
    claim = operator.claim("n", "a", "op", new_incident="i")
    with pytest.raises(NamespaceQuarantined, match="incident i"):
        with store.writing("n", 1) as w:
            rows = [row("n", "a", w.epoch, w.first_sequence, w.at)]
            w.put(rows, entries("n", rows, w.lock))
            assert operator.fence(claim)
    assert keys_of(operator, "n") == []
    operator.close()


def test_a_connection_lost_before_the_end_stores_nothing_and_the_next_write_works(store, valkey_server):
    with pytest.raises(StoreUnavailable, match="nothing was stored"):
        with store.writing("n", 1) as w:
            rows = [row("n", "a", w.epoch, w.first_sequence, w.at)]
            w.put(rows, entries("n", rows, w.lock))
            store.wire.drop()
    assert write(store, "n", {"b": b"1"})[0][2] == 1
    assert keys_of(store, "n") == ["b"]


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_connection_lost_with_the_write_under_way_is_looked_into(store, monkeypatch, carried_out):
    from redis.exceptions import ConnectionError as Lost

    store.create_namespace("n")
    many = store.wire.many

    def lose(commands):
        if commands and b"EXEC" in commands[-1] and len(commands) > 3:
            monkeypatch.setattr(store.wire, "many", many)
            if carried_out:
                many(commands)
            store.wire.drop()
            raise Lost("Connection reset by peer")
        return many(commands)

    monkeypatch.setattr(store.wire, "many", lose)
    if carried_out:
        write(store, "n", {"a": b"1"})
    else:
        with pytest.raises(StoreUnavailable, match="nothing was stored"):
            write(store, "n", {"a": b"1"})
    assert keys_of(store, "n") == (["a"] if carried_out else [])
    assert write(store, "n", {"b": b"1"})[0][2] == (2 if carried_out else 1)


def test_a_reader_lives_through_a_lost_connection(store, valkey_server):
    write(store, "n", {f"{i}": b"x" for i in range(10)})
    with store.reader() as reader, valkey_server.client() as client:
        scan = reader.scan("n", batch=4)
        first = next(scan)
        client.client_kill_filter(_type="normal", skipme=True)
        assert [r[0] for r in first] + [r[0] for batch in scan for r in batch] == [f"{i}" for i in range(10)]
        assert not reader.moved("n")


# --- readers --------------------------------------------------------------------------------------------------------
def test_a_reader_tells_what_was_changed_under_it(store, valkey_server):
    write(store, "n", {"a": b"1"})
    write(store, "quiet", {"a": b"1"})
    operator = same(store, valkey_server)
    claim = operator.claim("n", "a", "op", new_incident="i")
    with store.reader() as reader:
        assert not reader.moved("n")
        operator.append_log([(0, 5, "n", "hit", "a", None, None, None, None, "r", None, b"")])
        operator.renew(claim)
        operator.fence(claim)
        operator.begin_generation(claim)
        assert not reader.moved("n")  # nothing of what a snapshot holds
        operator.unfence(claim)
        write(operator, "n", {"a": b"2"})
        assert (reader.moved("n"), reader.moved("quiet")) == (True, False)
    operator.close()


def test_a_point_is_passed_by_the_next_write(store, valkey_server):
    other = same(store, valkey_server)
    write(store, "n", {"a": b"1"})
    with store.point() as point, other.reader(point) as reader:
        assert [r[0] for batch in reader.scan("n") for r in batch] == ["a"]
    write(store, "n", {"a": b"2"})
    with pytest.raises(MemoryOpsError, match="has passed"):
        other.reader(point)
    other.close()


def test_a_generation_that_is_dropped_under_a_reader_is_no_short_result(store, valkey_server):
    write(store, "n", {f"{i}": b"x" for i in range(10)})
    operator = same(store, valkey_server)
    claim = operator.claim("n", "a", "op", new_incident="i")
    with store.reader() as reader:
        scan = reader.scan("n", batch=4)
        next(scan)
        first = operator.generations("n")[0]
        operator.switch(claim, operator.begin_generation(claim), first)
        operator.drop_generation(claim, first)
        with pytest.raises(MemoryOpsError, match="was dropped while it was read"):
            list(scan)
    operator.close()


# --- the server -----------------------------------------------------------------------------------------------------
def test_what_was_acknowledged_outlives_a_killed_server(tmp_path):
    acknowledged: list[str] = []
    stop = threading.Event()

    def write_on(params, name):
        store, n = open_store(params), 0
        while not stop.is_set():
            n += 1
            with contextlib.suppress(MemoryOpsError):
                write(store, "n", {f"{name}-{n}": b"x"}, wait=0)
                acknowledged.append(f"{name}-{n}")
        store.close()

    with Mortal(tmp_path, *ALWAYS) as server:
        store = open_store(server.params(), create=True)
        store.create_namespace("n")
        claim = store.claim("n", "a", "op", new_incident="i", lease=600)
        for turn in range(2):
            stop.clear()
            writers = [
                threading.Thread(target=write_on, args=(server.params(busy_timeout=1), f"{turn}{name}"))
                for name in "ab"
            ]
            for writer in writers:
                writer.start()
            before = len(acknowledged)
            while len(acknowledged) == before:
                time.sleep(0.01)
            time.sleep(random.random() / 2)
            server.kill()
            stop.set()
            for writer in writers:
                writer.join(300)
            server.start()
            store.note(claim, turn=turn)
            there = set(keys_of(store, "n"))
            assert set(acknowledged) <= there
            assert len(there - set(acknowledged)) <= 2 * (turn + 1)  # what was stored, but not acknowledged any more
            assert health(store)["intact"]
            assert structure(store) == []
        assert acknowledged
        store.fence(claim)
        server.kill()
        server.start()
        with store.reader() as reader:
            assert reader.namespace("n").state == "quarantined"
        store.close()


def test_a_server_that_forgot_its_data_is_no_quiet_namespace(tmp_path):
    with Mortal(tmp_path) as server:
        store = open_store(server.params(), create=True)
        write(store, "n", {"a": b"1"})
        assert store.warnings() == ["the server saves nothing to its disk: a crash or a restart loses the whole store"]
        with store.reader() as reader:
            server.kill()
            server.start()
            with pytest.raises(MemoryOpsError, match="lost its identity"):
                reader.moved("n")
        with pytest.raises(MemoryOpsError, match="lost its identity"):
            write(store, "n", {"a": b"1"})
        with pytest.raises(StoreUnavailable, match="There is no memory store"):
            open_store(server.params())
        store.close()
