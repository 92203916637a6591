# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A snapshot of Valkey while an application writes, and what it costs that application."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey import ValkeyStore
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory

from .data import NAMESPACE, Place, key_of
from .measure import Side, Table, ratio, said, turns
from .served import WHOLE, Served
from .snapshots import fresh, take

WRITES = 2000


def compare(table: Table, place: Place, served: Served, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    whole = served.params(WHOLE)
    _writes(table, place, served, whole, rounds)

    def ours(at: dict[str, t.Any]) -> None:
        taken = take(whole, place.keyring, at)["snapshot"]
        found = Repository.open(at).snapshot("memory", taken, Keyring.open(place.keyring))
        if found.manifest["consistency"] != "point-in-time":
            raise RuntimeError("The snapshot is fuzzy")

    peer = served.backups(place, repository)[0]
    began, ended = (multiprocessing.get_context("fork").Event() for _one in range(2))
    writer = multiprocessing.get_context("fork").Process(target=_write_on, args=(place, whole, began, ended))
    writer.start()
    began.wait()
    try:
        found = turns(rounds, {"ours": Side(lambda: fresh(repository), ours), peer.name: peer.side()}, served.pid)
    finally:
        ended.set()
        writer.join()
    table.add(f"{served.engine}: snapshot while an application writes : {peer.what}",
              ratio(found["ours"], found[peer.name]), peer.limit, detail=said(found))  # fmt: skip


def _writes(table: Table, place: Place, served: Served, whole: dict[str, t.Any], rounds: int) -> None:
    """Of one record each, every time another one: all of them are copied."""

    def write(kept: bool) -> None:
        numbers = random.sample(range(place.records), WRITES)
        with contextlib.ExitStack() as reading:
            if kept:
                store = reading.enter_context(contextlib.closing(t.cast(ValkeyStore, open_store(whole))))
                reading.enter_context(store.keeping())
                with store.point() as point:
                    reader = reading.enter_context(store.reader(point))
            with Memory(store=whole, keyring=place.keyring) as memory:
                for number in numbers:
                    memory.write(NAMESPACE, key_of(number), number)
            if kept and reader.moved(NAMESPACE):
                raise RuntimeError("The point was not kept")

    found = turns(rounds, {"kept": Side(lambda: True, write), "alone": Side(lambda: False, write)}, served.pid)
    table.add(f"{served.engine}: {WRITES} writes while a snapshot is read : the same writes",
              ratio(found["kept"], found["alone"]), None, detail=said(found))  # fmt: skip


def _write_on(place: Place, whole: dict[str, t.Any], began: t.Any, ended: t.Any) -> None:
    with Memory(store=whole, keyring=place.keyring) as memory:
        for number in itertools.count(1):
            memory.write(NAMESPACE, key_of(random.randrange(place.records)), number)
            began.set()
            if ended.is_set():
                return
