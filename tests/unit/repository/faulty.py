# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A directory as a repository's place, one call to which fails, or kills the process that makes it."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import RepositoryUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.objects import ObjectInfo


class Faults:
    """Call number ``fail_at`` (``writes``: of those that write) fails. ``late``: a write, after it has done its work.
    ``deadly``: in place of an error, the end of the process. Several places may share it."""

    def __init__(self, fail_at: int = 0, late: bool = False, writes: bool = False, deadly: bool = False) -> None:
        self.fail_at, self.late, self.writes, self.deadly = fail_at, late, writes, deadly
        self.calls = 0
        self.failed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, write: bool) -> t.Iterator[None]:
        with self._lock:
            self.calls += write or not self.writes
            strikes = self.calls == self.fail_at and (write or not self.writes)
        if strikes and not (write and self.late):
            self._strike()
        yield
        if strikes:
            self._strike()

    def _strike(self) -> t.NoReturn:
        self.failed = True
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RepositoryUnavailable("The place failed.", "try again")


class FaultyObjects(DirectoryObjects):
    def __init__(self, path: str, faults: Faults) -> None:
        super().__init__(path)
        self.faults = faults

    def put(self, key: str, data: bytes, **more: t.Any) -> None:
        with self.faults.call(write=True):
            super().put(key, data, **more)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self.faults.call(write=False):
            return super().get(key, start, length)

    def list(self, prefix: str) -> t.Iterator[ObjectInfo]:
        with self.faults.call(write=False):
            return super().list(prefix)

    def children(self, prefix: str) -> t.List[str]:
        with self.faults.call(write=False):
            return super().children(prefix)

    def delete(self, keys: t.Sequence[str]) -> None:
        with self.faults.call(write=True):
            super().delete(keys)


def faulty(root: os.PathLike[str], faults: Faults, **more: t.Any) -> Repository:
    """The repository in this folder; ``more``: as of Repository.at."""
    return Repository.at(FaultyObjects(os.fspath(root), faults), **more)
