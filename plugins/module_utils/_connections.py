# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Open stores of an application: fixed, or following the route file; one connection per store.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import os
import threading
import typing as t

from ._errors import MemoryOpsError
from ._route import read_route, resolve
from ._store import Store, open_store

#: Connections that must not be closed: of a parent process, or to a file that was replaced (SQLite, closing the last
#: connection, would delete the log of the NEW file, which has the same name).
_ABANDONED: list[Store] = []


class _Open(t.NamedTuple):
    store: Store
    params: dict[str, t.Any]
    inode: tuple[int, int] | None


class Connections:
    """Use it only while its ``lock`` is held. Never makes a store."""

    def __init__(
        self, store: t.Mapping[str, t.Any] | None, route: str | None, clock: t.Callable[[], int] | None = None
    ) -> None:
        self.lock = threading.RLock()
        self._fixed = dict(store) if store is not None else None
        self._path = route
        self._clock = clock
        self._route: dict[str, t.Any] = {}
        self._signature: tuple[int, ...] | None = None
        self._open: dict[str, _Open] = {}

    def params(self, namespace: str | None) -> dict[str, t.Any]:
        """The store parameters that serve the namespace (None: the default's) now.

        Errors: InvalidInput, StoreUnavailable (route file missing or damaged).
        """
        if self._fixed is not None:
            return self._fixed
        if self._path is None:
            raise AssertionError("self._path")
        signature = _signature(self._path)
        if signature is None or signature != self._signature:
            self._route = read_route(self._path)
            self._signature = signature
            named = {_name(p) for p in (self._route["default"], *self._route["namespaces"].values())}
            for name in [name for name in self._open if name not in named]:
                self._drop(name)
        return dict(self._route["default"]) if namespace is None else resolve(self._route, namespace)

    def at(self, params: t.Mapping[str, t.Any]) -> Store:
        """The open store of these parameters; opened again when its file was replaced."""
        name = _name(params)
        found = self._open.get(name)
        if found is not None:
            inode = _inode(params)
            if inode is None or inode == found.inode:  # a file that is gone is the engine's to report
                return found.store
            _ABANDONED.append(self._open.pop(name).store)
        store = open_store(params)
        if self._clock is not None:
            t.cast(t.Any, store).clock = self._clock
        self._open[name] = _Open(store, dict(params), _inode(params))
        return store

    @property
    def routed(self) -> bool:
        return self._path is not None

    def alone(self) -> bool:
        """Whether the default store is the only one there is."""
        return not self.routed or not self._route.get("namespaces")

    def moved(self, namespace: str, params: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
        """Where the route, read anew, points if that is elsewhere than ``params``; else None."""
        if self._path is None:
            return None
        self._signature = None
        now = self.params(namespace)
        return None if now == dict(params) else now

    def close(self) -> None:
        for name in list(self._open):
            self._drop(name)

    def after_fork(self) -> None:
        """In the child: the parent's connections and locks are not ours."""
        _ABANDONED.extend(one.store for one in self._open.values())
        self._open = {}
        self.lock = threading.RLock()

    def _drop(self, name: str) -> None:
        one = self._open.pop(name)
        if _inode(one.params) != one.inode:
            _ABANDONED.append(one.store)
            return
        try:
            one.store.close()
        except MemoryOpsError:
            pass  # a store that is away cannot be closed in order, and nothing of ours is open in it


def _name(params: t.Mapping[str, t.Any]) -> str:
    return json.dumps(params, sort_keys=True, default=str)


def _inode(params: t.Mapping[str, t.Any]) -> tuple[int, int] | None:
    """The identity of an embedded store's file; None where there is no file."""
    path = params.get("path")
    if not isinstance(path, str):
        return None
    try:
        found = os.stat(os.path.expanduser(path))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)
