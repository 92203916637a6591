# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one snapshot: they read one point in time and take ranges until there are none.

PRIVATE to the collection. Forked processes read and seal, this one sends what they sealed. They are forked before
anything else is done: in a process that ever had a thread each lock inside SQLite costs several times as much, which
makes reading a row a quarter slower.
"""
from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import time
import typing as t

from .._errors import MemoryOpsError
from .._model import NamespaceState
from .._repository.manifest import folder
from .._repository.objects import ObjectStore
from .._repository.packs import PACK_BYTES, Put, Uploader
from .._store import Reader, Store, open_store
from .._store_optional import CopyOnWrite, ManyNamespaces
from . import dropped_keys
from .snapshot_manifest import Scanned
from .snapshot_plan import gathered, plan
from .snapshot_scan import Job, Scribe, Tallies
from .workers import Parent, Worker, collect

TELL_SECONDS = 0.2  # between two words about progress
SLOT_BYTES = PACK_BYTES + (4 << 20)  # shared memory for one pack; one of huge rows goes through the channel
Say = t.Callable[[int], None]
StatesOf = t.Callable[[Reader], t.List[NamespaceState]]


class Crew:
    """``count`` processes that wait for a job; none when one process is to do it all."""

    def __init__(self, store_params: dict[str, t.Any], keyring: t.Any, count: int) -> None:
        self._store_params = store_params
        self._keyring = keyring
        # The numbers of the tasks stand in a file whose position all of them share: who reads a number has the task.
        self._numbers = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._slots: dict[int, mmap.mmap] = {}
        self._workers: list[Worker] = []
        for number in range(count if count > 1 else 0):
            slot = mmap.mmap(-1, SLOT_BYTES)
            self._workers.append(Worker(_work, store_params, keyring, self._numbers, number, count, slot))
            self._slots[id(self._workers[-1])] = slot

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_exc: object) -> None:
        for worker in self._workers:
            worker.stop()
        for slot in self._slots.values():
            slot.close()
        self._numbers.close()

    def scan(
        self, job: Job, objects: ObjectStore, read_back: bool, states_of: StatesOf, alone: bool, told: Say
    ) -> Scanned:
        """Read and store everything, ``alone`` in this process; ``told`` hears of rows. No reader may be open here."""
        uploader = Uploader(objects, read_back=read_back)
        where = folder(job.name, job.snapshot)

        def put(key: str, parts: list[bytes], sha256: bytes) -> None:
            uploader.put(where + key, b"".join(parts), sha256)

        try:
            if alone or not self._workers:
                scanned = self._alone(job, put, states_of, told)
            else:
                scanned = self._together(job, put, states_of, told)
            uploader.finish()
        except BaseException:
            uploader.abandon()
            raise
        return scanned

    def _alone(self, job: Job, put: Put, states_of: StatesOf, told: Say) -> Scanned:
        with contextlib.closing(open_store(self._store_params)) as store, _keeping(store), _reader(store) as reader:
            states, drops = states_of(reader), dropped_keys.begin(reader)
            tasks = plan(reader, states, job, 1)
            scribe = Scribe(job, reader, put, self._keyring)
            found = {number: scribe.run(task, told) for number, task in enumerate(tasks)}
            packs = scribe.finish()
            parts, log = gathered(tasks, found)
            moved, dropped = _moved(reader, states), dropped_keys.dropped(reader, drops)
            return Scanned(reader.at, reader.identity, states, parts, log, packs, moved, dropped)

    def _together(self, job: Job, put: Put, states_of: StatesOf, told: Say) -> Scanned:
        crew = self._workers
        with contextlib.ExitStack() as open_readers:
            store = open_readers.enter_context(contextlib.closing(open_store(self._store_params)))
            open_readers.enter_context(_keeping(store))
            with store.point() as point:
                for worker in crew:
                    worker.send(point)
                reader = open_readers.enter_context(store.reader(point))
                for worker in crew:
                    worker.receive()  # its reader is open: the point may be given up
            states, drops = states_of(reader), dropped_keys.begin(reader)
            tasks = plan(reader, states, job, len(crew))
            os.pwrite(self._numbers.fileno(), b"".join(struct.pack(">I", n) for n in range(len(tasks))), 0)
            for worker in crew:
                worker.send((job, states, tasks))
            found: dict[int, Tallies] = {}
            packs: list[list[t.Any]] = []
            moved: set[str] = set()
            for worker, kind, value in collect(crew):
                if kind == "rows":
                    told(value)
                elif kind == "pack":
                    key, parts, sha256 = value
                    if isinstance(parts, int):  # so many bytes of the shared memory
                        parts = [self._slots[id(worker)][:parts]]
                        worker.send(None)
                    put(key, parts, sha256)
                elif kind == "result":
                    found.update(value[0])
                    packs += value[1]
                    moved.update(value[2])
            moved.update(_moved(reader, states))
            parts, log = gathered(tasks, found)
            dropped = dropped_keys.dropped(reader, drops)
            return Scanned(reader.at, reader.identity, states, parts, log, sorted(packs), sorted(moved), dropped)


def _work(
    parent: Parent, store_params: dict[str, t.Any], keyring: t.Any, numbers: t.IO[bytes], number: int, count: int,
    slot: mmap.mmap,
) -> None:  # fmt: skip
    """A forked process: opens a reader of the given point, then stores ranges until there are none."""
    point = parent.receive()
    with open_store(store_params).reader(point) as reader:
        parent.send("ready", None)
        job, states, tasks = parent.receive()
        done = 0
        told = time.monotonic()
        full = False  # the slot holds a pack that was not taken yet

        def say(rows: int) -> None:
            nonlocal done, told
            done += rows
            parent.check()
            if time.monotonic() - told > TELL_SECONDS:
                parent.send("rows", done)
                done, told = 0, time.monotonic()

        def put(key: str, parts: list[bytes], sha256: bytes) -> None:
            nonlocal full
            if full:
                parent.receive()
                full = False
            size = sum(map(len, parts))
            if size > SLOT_BYTES:
                parent.send("pack", (key, parts, sha256))
                return
            slot.seek(0)
            for part in parts:
                slot.write(part)
            full = True
            parent.send("pack", (key, size, sha256))

        found: dict[int, Tallies] = {}
        scribe = Scribe(job, reader, put, keyring, number, count)
        for taken in iter(lambda: os.read(numbers.fileno(), 4), b""):
            task = struct.unpack(">I", taken)[0]
            found[task] = scribe.run(tasks[task], say)
        packs = scribe.finish()
        if full:
            parent.receive()
        parent.send("rows", done)
        parent.send("result", (found, packs, _moved(reader, states)))
        parent.send("done", None)


def _keeping(store: Store) -> t.ContextManager[None]:
    return store.keeping() if isinstance(store, CopyOnWrite) else contextlib.nullcontext()


def _reader(store: Store) -> Reader:
    if isinstance(store, CopyOnWrite):
        try:
            with store.point() as point:
                return store.reader(point)
        except MemoryOpsError:  # nobody can write there, or the user may not: what is there is read as it is
            pass
    return store.reader()


def _moved(reader: Reader, states: t.Sequence[NamespaceState]) -> list[str]:
    names = [state.name for state in states]
    if isinstance(reader, ManyNamespaces):
        return reader.moved_among(names)
    return [name for name in names if reader.moved(name)]
