# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Several processes on one store of every engine, and processes that die."""
from __future__ import annotations

import os
import random
import signal
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceLocked
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.processes import PROCESSES
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, row, structure, write

LOAD = 400


def write_many(params, name, times):
    store = open_store(params)
    for n in range(times):
        write(store, "n", {f"{name}-{n}": b"x", "shared": name.encode()}, actor=name)
    store.close()


def make(params, _number):
    open_store(params, create=True).close()


def write_for_ever(params, ready):
    store = open_store(params)
    n = 0
    while True:
        n += 1
        write(store, "n", {f"{n}-{i}": bytes(300) for i in range(40)})
        ready.set()


def operate_for_ever(params, ready):
    store = open_store(params)
    claim = store.claim("n", f"attempt-{os.getpid()}", "op", new_incident="i", takeover=store_attempt(store))
    while True:
        with store.reader() as reader:
            first = reader.namespace("n").generation
        generation = store.begin_generation(claim)
        store.fence(claim)
        store.load(claim, generation, [row("n", f"{i:04}", 1, i + 1, 1, bytes(300)) for i in range(LOAD)])
        store.switch(claim, generation, first)
        ready.set()
        store.unfence(claim)
        store.drop_generation(claim, first)


def store_attempt(store):
    found = store.incidents("n")
    return found[0].attempt if found else None


def hold_the_lock(params, ready, go):
    store = open_store(params)
    number = store.lock("n", "holder", wait=5, lease=60)
    ready.set()
    go.wait(300)
    write(store, "n", {"held": b"x"})
    store.unlock("n", number)
    store.close()


def together(target, calls):
    processes = [PROCESSES.Process(target=target, args=args) for args in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def killed(target, params, seconds):
    """Run ``target`` in a process and kill it with SIGKILL some time after it began to work."""
    ready = PROCESSES.Event()
    process = PROCESSES.Process(target=target, args=(params, ready))
    process.start()
    try:
        assert ready.wait(300)
        time.sleep(seconds)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join(300)


def test_several_processes_make_one_store(bench):
    together(make, [(bench.params(), n) for n in range(3)])
    bench.open(create=False).close()


def test_two_processes_write_at_once_without_a_gap_or_a_lost_write(store, bench):
    together(write_many, [(bench.params(), "left", 60), (bench.params(), "right", 60)])
    rows = all_rows(store, "n")
    assert len(rows) == 121
    with store.reader() as reader:
        log = [entry for batch in reader.log("n") for entry in batch]
        newest = {w.key: w for batch in reader.last_writes("n") for w in batch}
    assert sorted(entry.sequence for entry in log) == list(range(1, 241))
    assert [e.at for e in log] == sorted(e.at for e in log)
    locks = [(entry.lock, entry.actor) for entry in log]
    assert len(set(locks)) == 120  # one lock number for each transaction
    assert {lock for lock, _actor in locks} == set(range(1, 121))
    assert all(newest[r[0]].digest == r[9] and newest[r[0]].sequence == r[2] for r in rows)
    assert health(store)["intact"]


def test_a_writer_waits_for_the_lock_of_another_process(store, bench):
    ready, go = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=hold_the_lock, args=(bench.params(), ready, go))
    process.start()
    try:
        assert ready.wait(300)
        with pytest.raises(NamespaceLocked, match="locked by holder"):
            write(store, "n", {"early": b"x"}, wait=0)
        go.set()
        write(store, "n", {"late": b"x"}, wait=30)
    finally:
        go.set()
        process.join(300)
    rows = {r[0]: r[2] for r in all_rows(store, "n")}
    assert rows == {"held": 1, "late": 2}


def test_a_killed_writer_leaves_whole_transactions(store, bench):
    for _turn in range(4):
        killed(write_for_ever, bench.params(), random.random() / 10)
        rows = all_rows(store, "n")
        found = health(store)
        assert len(rows) % 40 == 0
        assert found["intact"]
        assert found["entries"] == store.identity().sequence == found["last_sequence"]
        assert structure(store) == []
        write(store, "other", {"alive": b"x"}, wait=5)


def test_a_killed_operator_leaves_the_fence_whole(store, bench):
    write(store, "n", {f"{i:04}": b"x" for i in range(LOAD)})
    for _turn in range(4):
        killed(operate_for_ever, bench.params(), random.random() / 10)
        found = structure(store)
        if bench.engine == "valkey" and found:  # killed in a release, which lets the server's users in first
            assert all("is down" in line for line in found), found
            with store.reader() as reader:
                assert reader.namespace("n").state == "quarantined"
            store.repair_structure()
        assert structure(store) == []  # all triggers and indexes are there
        assert len(all_rows(store, "n")) == LOAD
        with store.reader() as reader:
            space = reader.namespace("n")
            assert reader.count("n") == LOAD
        if space.state == "serving":
            assert not store.prove("n")["writes_refused"]
        policy = (space.state, space.prior_state, space.serving_ttl)
        assert policy in (("serving", None, None), ("quarantined", "serving", 1.0))
    claim = store.claim("n", "last", "op", new_incident="i", takeover=store_attempt(store))
    store.fence(claim)
    assert store.prove("n")["writes_refused"]
    store.unfence(claim)
    assert not store.prove("n")["writes_refused"]
    for generation in store.generations("n"):
        if generation != space.generation:
            store.drop_generation(claim, generation)
    assert store.generations("n") == [space.generation]
    assert keys_of(store, "n") == [f"{i:04}" for i in range(LOAD)]
    store.close()
