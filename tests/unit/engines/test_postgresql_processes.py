# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Several processes on one PostgreSQL store: what a snapshot may show, what a fork may do, what a fence stops."""
from __future__ import annotations

import os
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.processes import PROCESSES
from tests.unit.engines.postgresql_help import new_postgresql, raw
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, row, structure, write


@pytest.fixture
def store(postgresql_server):
    opened = new_postgresql(postgresql_server)
    yield opened
    opened.close()


def write_until(params, space, stop, told):
    """Writes, and tells how many were acknowledged and whether the fence ended it."""
    store = open_store(params)
    n, fenced = 0, False
    while not stop.is_set() and not fenced:
        try:
            write(store, space, {f"{os.getpid()}-{n}": b"x", f"{n % 7}": b"shared"}, actor="w")
            store.append_log([(0, 5, space, "hit", "k", None, None, None, None, "r", None, b"")])
            n += 1
        except NamespaceQuarantined:
            fenced = True
    told.put((n, fenced))
    store.close()


def start(params, spaces):
    stop, told = PROCESSES.Event(), PROCESSES.Queue()
    processes = [PROCESSES.Process(target=write_until, args=(params, space, stop, told)) for space in spaces]
    for process in processes:
        process.start()
    return processes, stop, told


def test_no_snapshot_shows_a_sequence_without_those_before_it(postgresql_server, store):
    params = postgresql_server.application(store.sql.plain_schema)
    processes, stop, told = start(params, ["one", "one", "two"])
    seen = 0
    deadline = time.monotonic() + 300
    try:
        while seen < 150:
            assert time.monotonic() < deadline
            with store.reader() as reader:
                log = [entry for batch in reader.log() for entry in batch]
                assert [entry.id for entry in log] == list(range(1, len(log) + 1))
                given = [entry.sequence for entry in log if entry.sequence is not None]
                assert given == list(range(1, len(given) + 1))
                assert reader.identity.sequence == len(given)
                assert reader.log_health()["intact"]
                seen = len(given)
    finally:
        stop.set()
        counts = [told.get(timeout=900) for _process in processes]
        for process in processes:
            process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert store.identity().sequence == 2 * sum(n for n, _fenced in counts)
    assert structure(store) == []


def test_nothing_that_was_acknowledged_is_lost_and_nothing_comes_after_the_fence(postgresql_server, store):
    store.create_namespace("n")
    claim = store.claim("n", "a", "op", new_incident="i")
    params = postgresql_server.application(store.sql.plain_schema)
    processes, stop, told = start(params, ["n", "n"])
    try:
        deadline = time.monotonic() + 300
        while store.identity().sequence < 40:
            assert time.monotonic() < deadline
        assert store.fence(claim)
        with store.reader() as reader:
            at_the_fence = reader.count("n")
            sequence = reader.identity.sequence
        counts = [told.get(timeout=900) for _process in processes]
    finally:
        stop.set()
        for process in processes:
            process.join(300)
    assert [fenced for _n, fenced in counts] == [True, True]
    assert len(all_rows(store, "n")) == at_the_fence
    assert store.identity().sequence == sequence == 2 * sum(n for n, _fenced in counts)
    assert health(store)["intact"]


def read_at(params, point, found):
    store = open_store(params)
    try:
        with store.reader(point) as reader:
            found.put([r[0] for batch in reader.scan("n", batch=10) for r in batch])
    except CannotProceed as exc:
        found.put(exc.message)
    store.close()


def test_readers_of_one_point_see_the_same_in_every_process(postgresql_server, store):
    write(store, "n", {f"{n:03}": b"x" for n in range(50)})
    params, found = postgresql_server.store(store.sql.plain_schema), PROCESSES.Queue()

    def elsewhere(point):
        process = PROCESSES.Process(target=read_at, args=(params, point, found))
        process.start()
        result = found.get(timeout=900)
        process.join(300)
        return result

    with store.point() as point:
        write(store, "n", {"late": b"x", "001": None})
        assert elsewhere(point) == [f"{n:03}" for n in range(50)]
        with store.reader(point) as reader:
            kept = reader
            assert reader.count("n") == 50
            with store.reader() as now:
                assert now.count("n") == 51
            assert not kept.moved("n")
    assert "has passed" in elsewhere(point)
    for wrong in ("x", "'; DROP TABLE memory_records --", ""):
        with pytest.raises(CannotProceed):
            store.reader(wrong)


def test_a_forked_child_opens_its_own_sessions_and_leaves_the_parents_alone(postgresql_server, store):
    write(store, "n", {"a": b"1"})
    with store.reader() as reader:
        scan = reader.scan("n", batch=1)
        assert next(scan)[0][0] == "a"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                write(store, "n", {"child": b"1"})
                reader.close()
                assert keys_of(store, "n") == ["a", "child"]
                store.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert reader.count("n") == 1  # this transaction goes on
    write(store, "n", {"parent": b"1"})
    assert keys_of(store, "n") == ["a", "child", "parent"]


def test_a_write_of_memory_and_of_others_wait_for_each_other(postgresql_server, store):
    """An operator's change holds the namespace, so that no application comes between its look and its write."""
    store.create_namespace("n")
    claim = store.claim("n", "a", "op", new_incident="i")
    write(store, "n", {"a": b"1"})
    with raw(postgresql_server, store) as agent:
        agent.execute("SET lock_timeout = '200ms'")
        with store._operating(claim, unfenced=True) as session:
            store._own_generation(session, claim, None)
            with pytest.raises(Exception, match="lock timeout"):
                agent.execute("UPDATE memory_records SET payload = 'x' WHERE generation = 1")
            store._put_rows(session, 1, [row("n", "a", 1, 1, 1, b"better")])
    assert [r[8] for r in all_rows(store, "n")] == [b"better"]
