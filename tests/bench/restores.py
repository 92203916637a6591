# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Restore and repair beside copying the file, ATTACH, INSERT … SELECT and integrity_check; readers go on meanwhile."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import time
import typing as t
from functools import partial

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, incident, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_file import Entry, PlanFile
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory

from . import peers
from .data import NAMESPACE, Place, key_of, write
from .measure import Side, Table, ratio, run, said, turns
from .snapshots import take

REPAIRED = 100


def compare(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    """``sealed.db`` is what was saved, in a directory (as the peer's file lies on this machine) and on S3; the live
    store has gone on since (one record in fifty is newer)."""
    saved = place.params("sealed.db")
    sources = {
        "directory": {"url": "file://" + place.path("restores-repository")},
        "S3": {**repository, "url": f"{repository['url']}/restores"},
    }
    # in other processes: this one shall have no threads
    taken = {name: run(take, saved, place.keyring, at).value["snapshot"] for name, at in sources.items()}
    place.copy("sealed.db", "moved.db")
    moved = list(range(0, place.records, 50))
    for start in range(0, len(moved), 5000):
        write(place.params("moved.db"), place.ring(), NAMESPACE, moved[start : start + 5000])
    checkpoint(place.path("moved.db"))

    def live() -> dict[str, t.Any]:
        return place.copy("moved.db", "live.db")

    def ours(source: str, params: dict[str, t.Any]) -> dict[str, t.Any]:
        with reading(params, place.keyring):
            return restore.restore(
                store_params=params, repository=sources[source], keyring=Keyring.open(place.keyring), name="memory",
                snapshot_id=taken[source], namespace=NAMESPACE,
            )  # fmt: skip

    def peer(params: dict[str, t.Any]) -> None:
        with reading(params, place.keyring):
            peers.attach_and_insert(saved["path"], place.path("scratch.db"), params["path"])

    def repair(source: str, given: tuple[dict[str, t.Any], str]) -> dict[str, t.Any]:
        params, plan_path = given
        store = open_store(params)
        run = incident.Run("bench:1:1", "bench")
        claim = incident.claim(store, NAMESPACE, run)
        ring = Keyring.open(place.keyring)
        with PlanFile.open(plan_path) as plan:
            snapshot = Repository.open(sources[source]).snapshot("memory", taken[source], ring)
            result = apply.Applier(store, claim, plan, {taken[source]: snapshot}, ring).soft()
        store.close()
        if result["applied"] != REPAIRED:
            raise RuntimeError(f"The repair says {result}")
        return result

    sides = {f"restore from {name}": Side(live, partial(ours, name)) for name in sources}
    sides["copy"] = Side(live, peer)
    for name in sources:
        sides[f"repair from {name}"] = Side(partial(_live_and_damaged, live, place, taken[name]), partial(repair, name))
    found = turns(rounds, sides)
    for name in sources:
        table.add(f"restore from {name}, live readers : copy, ATTACH, INSERT, check",
                  ratio(found[f"restore from {name}"], found["copy"]), 1.1,
                  detail=said({side: found[side] for side in (f"restore from {name}", "copy")}))  # fmt: skip
        table.memory(f"restore from {name} (with the reader)", *found[f"restore from {name}"])
    for name in sources:
        table.add(f"repair of {REPAIRED} records from {name} : the same copy",
                  ratio(found[f"repair from {name}"], found["copy"]), 0.02,
                  detail=said({"repair": found[f"repair from {name}"]}))  # fmt: skip
        table.memory(f"repair from {name}", *found[f"repair from {name}"])
    for name in ("live.db", "moved.db", "scratch.db"):
        place.remove(name)
    shutil.rmtree(place.path("restores-repository"))


def _live_and_damaged(
    live: t.Callable[[], dict[str, t.Any]], place: Place, snapshot: str
) -> tuple[dict[str, t.Any], str]:
    return live(), _damage(place, snapshot)


def checkpoint(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _damage(place: Place, snapshot: str) -> str:
    """Break REPAIRED records of live.db, and the plan for exactly these."""
    numbers = random.Random(3).sample([n for n in range(place.records) if n % 50], REPAIRED)
    entries = []
    with contextlib.closing(sqlite3.connect(place.path("live.db"), isolation_level=None)) as con:
        con.execute("BEGIN")
        for number in numbers:
            checksum, payload = con.execute(
                "SELECT checksum, payload FROM memory_records WHERE generation = 1 AND key = ?", (key_of(number),)
            ).fetchone()
            con.execute(
                "UPDATE memory_records SET payload = ? WHERE generation = 1 AND key = ?",
                (payload[:60] + bytes([payload[60] ^ 1]) + payload[61:], key_of(number)),
            )
            entries.append(Entry(key_of(number), "repair", "checksum", checksum, snapshot, checksum, None, None))
        con.execute("COMMIT")
    path = place.path("bench-plan.db")
    draft = PlanFile.create(path + ".new")
    draft.add(entries)
    draft.finish(path, counts={}, unlogged=0, log_intact=True, newest=0).close()
    checkpoint(place.path("live.db"))
    return path


@contextlib.contextmanager
def reading(params: t.Mapping[str, t.Any], keyring: t.Mapping[str, t.Any]) -> t.Iterator[None]:
    """An application that reads some hundred memories a second, and must see every one of them."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    here, there = context.Pipe()
    process = context.Process(target=_read, args=(params, keyring, stop, there))
    process.start()
    try:
        yield
    finally:
        stop.set()
        reads, missed = here.recv()
        process.join()
        if missed or not reads:
            raise RuntimeError(f"The live reader missed {missed} of {reads} memories")


def _read(params: t.Mapping[str, t.Any], keyring: t.Mapping[str, t.Any], stop: t.Any, there: t.Any) -> None:
    reads = missed = 0
    with Memory(store=params, keyring=keyring, actor="reader") as memory:
        while not stop.is_set():
            number = (reads * 50 + 1) % 1000
            missed += memory.read(NAMESPACE, key_of(number)) is None
            reads += 1
            time.sleep(0.003)
    there.send((reads, missed))
    os._exit(0)
