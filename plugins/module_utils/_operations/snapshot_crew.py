# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one snapshot: they read one point in time and take ranges until there are none.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import time
import typing as t

from .._model import NamespaceState
from .._store import Reader, open_store
from .snapshot_manifest import Scanned
from .snapshot_plan import gathered, plan
from .snapshot_scan import Job, Scribe, Tallies, Task
from .workers import Parent, Worker

TELL_SECONDS = 0.2  # between two words about progress
Say = t.Callable[[int], None]
StatesOf = t.Callable[[Reader], t.List[NamespaceState]]


def scan(store_params: dict[str, t.Any], job: Job, states_of: StatesOf, count: int, told: Say) -> Scanned:
    """Read and store everything, with ``count`` processes; ``told`` hears of rows. No reader may be open here."""
    if count == 1:
        return _alone(store_params, job, states_of, told)
    return _together(store_params, job, states_of, count, told)


def _alone(store_params: dict[str, t.Any], job: Job, states_of: StatesOf, told: Say) -> Scanned:
    with contextlib.closing(open_store(store_params)) as store, store.reader() as reader:
        states = states_of(reader)
        tasks = plan(reader, states, job, 1)
        scribe = Scribe(job, reader)
        try:
            found = {number: scribe.run(task, told) for number, task in enumerate(tasks)}
            packs = scribe.finish()
        except BaseException:
            scribe.stop()
            raise
        return Scanned(reader.at, reader.identity, states, *gathered(tasks, found), packs, _moved(reader, states))


def _together(store_params: dict[str, t.Any], job: Job, states_of: StatesOf, count: int, told: Say) -> Scanned:
    """This process and ``count`` - 1 forked ones over the tasks of one point in time."""
    # The numbers of the tasks stand in a file whose position all of them share: who reads a number has the task.
    with tempfile.TemporaryFile(buffering=0) as numbers:
        crew = [Worker(_work, store_params, job, numbers, number, count) for number in range(1, count)]
        try:
            with contextlib.closing(open_store(store_params)) as store, contextlib.ExitStack() as open_readers:
                with store.point() as point:
                    for worker in crew:
                        worker.send(point)
                    reader = open_readers.enter_context(store.reader(point))
                    for worker in crew:
                        worker.receive()  # its reader is open: the point may be given up
                states = states_of(reader)
                tasks = plan(reader, states, job, count)
                os.pwrite(numbers.fileno(), b"".join(struct.pack(">I", n) for n in range(len(tasks))), 0)
                for worker in crew:
                    worker.send((states, tasks))
                found: dict[int, Tallies] = {}
                packs: list[list[t.Any]] = []
                moved: set[str] = set()
                running = list(crew)
                heard = time.monotonic()

                def hear(worker: Worker) -> None:
                    kind, value = worker.receive()
                    if kind == "rows":
                        told(value)
                    elif kind == "result":
                        found.update(value[0])
                        packs.extend(value[1])
                        moved.update(value[2])
                    elif kind == "done":
                        running.remove(worker)

                def say(rows: int) -> None:
                    nonlocal heard
                    told(rows)
                    if time.monotonic() - heard > TELL_SECONDS:
                        heard = time.monotonic()
                        for worker in list(running):
                            while worker in running and worker.channel.poll():
                                hear(worker)

                packs += _share(job, reader, tasks, numbers.fileno(), 0, count, say, found)
                while running:
                    hear(running[0])
                moved.update(_moved(reader, states))
                parts, log = gathered(tasks, found)
                return Scanned(reader.at, reader.identity, states, parts, log, sorted(packs), sorted(moved))
        finally:
            for worker in crew:
                worker.stop()


def _work(
    parent: Parent, store_params: dict[str, t.Any], job: Job, numbers: t.IO[bytes], number: int, count: int
) -> None:
    """A forked process: opens a reader of the given point, then stores ranges until there are none."""
    point = parent.receive()
    with open_store(store_params).reader(point) as reader:
        parent.send("ready", None)
        states, tasks = parent.receive()
        done = 0
        told = time.monotonic()

        def say(rows: int) -> None:
            nonlocal done, told
            done += rows
            parent.check()
            if time.monotonic() - told > TELL_SECONDS:
                parent.send("rows", done)
                done, told = 0, time.monotonic()

        found: dict[int, Tallies] = {}
        packs = _share(job, reader, tasks, numbers.fileno(), number, count, say, found)
        parent.send("rows", done)
        parent.send("result", (found, packs, _moved(reader, states)))
        parent.send("done", None)


def _moved(reader: Reader, states: t.Sequence[NamespaceState]) -> list[str]:
    return [state.name for state in states if reader.moved(state.name)]


def _share(
    job: Job, reader: Reader, tasks: t.Sequence[Task], numbers: int, first: int, step: int,
    say: t.Callable[[int], None], found: dict[int, Tallies],
) -> list[list[t.Any]]:  # fmt: skip
    """One process's share: takes tasks until there are none. Returns its packs."""
    scribe = Scribe(job, reader, first, step)
    try:
        for taken in iter(lambda: os.read(numbers, 4), b""):
            number = struct.unpack(">I", taken)[0]
            found[number] = scribe.run(tasks[number], say)
        return scribe.finish()
    except BaseException:
        scribe.stop()
        raise
