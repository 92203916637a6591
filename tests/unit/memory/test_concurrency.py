# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Threads, processes, forks, locks, and a route that moves under a running program."""
from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._route import switch_route
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    InvalidInput,
    NamespaceLocked,
    NamespaceQuarantined,
)
from tests.unit.memory.conftest import Place

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def place(tmp_path, bench):
    return Place(tmp_path, bench=bench)


def run(threads):
    errors = []

    def guarded(target):
        try:
            target()
        except BaseException as exc:
            errors.append(exc)

    started = [threading.Thread(target=guarded, args=(target,)) for target in threads]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(300)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def until(seen):
    deadline = time.monotonic() + 300
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_threads_share_one_memory(memory):
    def work(number):
        def go():
            for n in range(30):
                memory.write("a", f"{number}/{n}", n)
                assert memory.read("a", f"{number}/{n}") == n
            list(memory.list_keys("a"))

        return go

    run([work(number) for number in range(4)])
    assert len(list(memory.list_keys("a"))) == 120


def test_lock_makes_read_and_write_one_step_between_threads(memory):
    memory.write("a", "counter", 0)

    def count():
        for _turn in range(15):
            with memory.lock("a") as number, memory.lock("a") as again:
                assert number == again
                memory.write("a", "counter", memory.read("a", "counter") + 1)

    run([count] * 4)
    assert memory.read("a", "counter") == 60


def _count(place, times):
    with place.memory(clock=None) as memory:
        for _turn in range(times):
            with memory.lock("a"):
                memory.write("a", "counter", memory.read("a", "counter", 0) + 1)


def test_lock_makes_read_and_write_one_step_between_processes(place):
    with place.memory(clock=None) as memory:
        memory.write("a", "counter", 0)
        workers = [FORK.Process(target=_count, args=(place, 20)) for _turn in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(300)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert memory.read("a", "counter") == 40
        writes = [line for line in memory.get_access_logs("a") if line["operation"] == "write"]
    assert [line["sequence"] for line in writes] == list(range(1, 42))
    assert len({line["lock"] for line in writes}) == 41
    assert len({line["actor"] for line in writes}) == 3


def test_a_held_lock_refuses_others_and_ends_with_its_lease(place):
    with place.memory() as one, place.memory() as two:
        with one.lock("a", lease=1000):
            with pytest.raises(NamespaceLocked) as caught, two.lock("a", wait=0.05):
                pass
            assert caught.value.next_step
            assert two.read("a", "k") is None  # reads never wait for it
            two.write("b", "k", 1)  # nor do other namespaces
            place.clock.turn(1001)
            with two.lock("a", wait=5) as number:
                two.write("a", "k", 2)
            for _turn in range(2):  # also the second time: the whole block has lost its lock
                with pytest.raises(NamespaceLocked, match="ran out"):
                    one.write("a", "k", 1)
        assert one.read("a", "k") == 2
        assert number > 1


def test_a_fork_opens_its_own_connections_and_logs_its_own_reads(place):
    memory = place.memory(buffer_seconds=1000)
    memory.write("a", "k", "parent")
    memory.read("a", "k")
    with memory.lock("a", lease=1000):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert memory.read("a", "k") == "parent"
                try:
                    with memory.lock("a", wait=0):
                        pass
                except NamespaceLocked:
                    status = 0
                memory.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    memory.write("a", "k", "parent still")
    actors = [line["actor"] for line in memory.get_access_logs("a") if line["operation"] == "hit"]
    assert len(actors) == 2
    assert len(set(actors)) == 2
    memory.close()


def test_a_program_that_ends_without_close_leaves_its_reads_in_the_log(place):
    program = (
        "import sys, json\n"
        "from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory\n"
        "m = Memory(store=json.loads(sys.argv[1]), keyring=json.loads(sys.argv[2]), buffer_seconds=1000)\n"
        "m.write('a', 'k', 1); m.read('a', 'k')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", program, json.dumps(place.store), json.dumps(place.keyring)]
    place.memory().close()
    subprocess.run(arguments, check=True, env=environment, timeout=900)
    assert place.logged("hit") == 1


@pytest.fixture
def two_stores(place, bench):
    """Two stores with the same memories, and a route to the first."""
    other = Place(place.folder, "other", bench)
    for one in (place, other):
        with one.memory() as memory:
            memory.write_many("a", {f"k{n}": n for n in range(20)})
            memory.write("b", "k", "b")
        if "password" in one.store:  # a route holds none
            login = place.folder / "agent.password"
            login.write_text(one.store.pop("password"))
            one.store["password_file"] = str(login)
    route = str(place.folder / "route.json")
    switch_route(route, None, place.store)
    return place, other, route


def test_failover_moves_a_running_program_without_an_error_on_reads(two_stores):
    place, other, route = two_stores
    stop, moved = threading.Event(), threading.Event()
    seen = {"reads": 0, "refused": 0, "after": 0}
    with place.memory(route=route, clock=None) as memory:

        def read():
            while not stop.is_set():
                assert memory.read("a", "k1") in (1, None)
                assert memory.read("b", "k") == "b"
                seen["reads"] += 1

        def write():
            while not stop.is_set():
                done = moved.is_set()
                try:
                    memory.write("a", "new", seen["after"])
                    seen["after"] += done
                except NamespaceQuarantined:
                    assert not done  # once the route is switched no write meets the old fence
                    seen["refused"] += 1

        def failover():
            try:
                until(lambda: seen["reads"] > 20)
                place.fence("a")
                until(lambda: seen["refused"])
                switch_route(route, "a", other.store)
                moved.set()
                until(lambda: seen["after"] >= 5)
            finally:
                stop.set()

        run([read, write, failover])
        assert seen["refused"] > 0
        assert seen["after"] >= 5
        assert memory.read("a", "k1") == 1
        memory.write("b", "k", "still on the first")
        assert memory.read("a", "new") is not None
    with place.memory(store=other.store) as second:
        assert second.read("b", "k") == "b"
        assert second.read("a", "new") is not None


def test_a_write_that_meets_a_fence_looks_at_the_route_again(two_stores, monkeypatch):
    place, other, route = two_stores
    with place.memory(route=route) as memory:
        memory.write("a", "k1", "before")
        place.fence("a")
        writes = memory._session._writes
        stale = writes.params("a")
        switch_route(route, "a", other.store)
        genuine, answers = writes.params, [stale]  # the switch came just after the look at the route
        monkeypatch.setattr(writes, "params", lambda name: answers.pop() if answers else genuine(name))
        memory.write("a", "k1", "after")
        monkeypatch.undo()
        assert memory.read("a", "k1") == "after"


def test_a_lock_does_not_move_with_the_route(two_stores):
    place, other, route = two_stores
    with place.memory(route=route) as memory:
        with memory.lock("a"):
            value = memory.read("a", "k1")
            switch_route(route, "a", other.store)
            with pytest.raises(NamespaceLocked, match="moved") as caught:
                memory.write("a", "k1", value + 1)
            assert caught.value.next_step
        with memory.lock("a"):
            memory.write("a", "k1", memory.read("a", "k1") + 1)
        assert memory.read("a", "k1") == 2


def test_a_lost_primary_and_a_damaged_or_missing_route(two_stores, bench):
    place, other, route = two_stores
    with place.memory(route=route) as memory:
        assert memory.read("a", "k1") == 1
        bench.raw("store").wipe()
        switch_route(route, None, other.store)
        assert memory.read("a", "k1") == 1
        assert memory.read("b", "k") == "b"
        kept = pathlib.Path(route).read_text()
        with open(route, "w") as file:
            file.write("{")
        with pytest.raises(InvalidInput, match="damaged"):
            memory.read("a", "k1")
        with open(route, "w") as file:
            file.write(kept)
        assert memory.read("a", "k1") == 1
    switch_route(route, "a", other.store)
    switch_route(route, None, place.store)
    with place.memory(route=route) as memory:  # the default is away; what lives elsewhere goes on
        assert memory.read("a", "k1") == 1
