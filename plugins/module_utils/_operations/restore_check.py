# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Read a new generation back while it is still being loaded: rows, damage and digest of what the store really holds.

PRIVATE to the collection. Another process follows the loader from key to key, so that checking costs little time.
"""

from __future__ import annotations

import typing as t

from .._store import Store, open_store
from .snapshot_scan import Checker, Tally
from .workers import Parent, Worker, collect


def read_back(
    store: Store,
    namespace: str,
    target: str,
    generation: int,
    each: t.Callable[[], None] = lambda: None,
    after: str | None = None,
    until: str | None = None,
    tally: Tally | None = None,
) -> Tally:
    """What the rows with after < key <= until of ``target``'s generation come to; ``each`` is called per batch."""
    tally = tally or Tally()
    checker = Checker(namespace, tally)
    with store.reader() as reader:
        for rows in reader.scan(target, after=after, until=until, generation=generation):
            checker(rows)
            each()
    return tally


class Follower:
    """A process that reads back, range by range, what was committed so far."""

    def __init__(self, store_params: t.Mapping[str, t.Any], namespace: str, target: str, generation: int) -> None:
        self._worker = Worker(_follow, dict(store_params), namespace, target, generation)
        self._last: str | None = None

    def committed(self, key: str) -> None:
        """Every row up to ``key`` is committed; keys grow from call to call."""
        if self._last is None or self._last < key:
            self._worker.send(key)
            self._last = key

    def finish(self, each: t.Callable[[], None]) -> Tally:
        """What it found; ``each`` is called while it is waited for. Errors: what the worker raised."""
        self._worker.send(None)
        tally = Tally()
        for _worker, kind, value in collect([self._worker]):
            if kind == "tally":
                tally.rows, tally.total, tally.damaged = value
            each()
        return tally

    def stop(self) -> None:
        self._worker.stop()


def _follow(parent: Parent, store_params: dict[str, t.Any], namespace: str, target: str, generation: int) -> None:
    store = open_store(store_params)
    tally = Tally()
    after: str | None = None
    for until in iter(parent.receive, None):
        read_back(store, namespace, target, generation, parent.check, after, until, tally)
        after = until
    parent.send("tally", (tally.rows, tally.total, tally.damaged))
    parent.send("done", None)
