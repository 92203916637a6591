# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every engine at hand for tests: stores of it, and the hands of somebody who changes them past Memory and the fence.

Whoever adds an engine adds it to ``RAW``, with a class of its own in a file beside this one.
"""
from __future__ import annotations

import os
import secrets
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._store import Store, open_store

from .raw import Raw
from .raw_postgresql import PostgresqlRaw
from .raw_sqlite import SqliteRaw
from .raw_valkey import ValkeyRaw

RAW: dict[str, type[Raw]] = {"sqlite": SqliteRaw, "postgresql": PostgresqlRaw, "valkey": ValkeyRaw}
ENGINES = tuple(RAW)


class Bench:
    """Stores of one engine for one test, each under a name. Leaves nothing on the server."""

    def __init__(self, engine: str, folder: t.Any, server: t.Any = None) -> None:
        self.engine, self.folder, self.server = engine, str(folder), server
        self._token = secrets.token_hex(4)
        self._names: set[str] = set()

    def _part(self, name: str) -> str:
        self._names.add(name)
        return f"t{self._token}_{name}"

    def params(self, name: str = "m", /, **more: t.Any) -> dict[str, t.Any]:
        """As an operator opens it."""
        if self.server is None:
            return {"engine": self.engine, "path": os.path.join(self.folder, f"{name}.db"), **more}
        return self.server.store(self._part(name), **more)

    def application(self, name: str = "m", /, **more: t.Any) -> dict[str, t.Any]:
        """As an application opens it."""
        return self.params(name, **more) if self.server is None else self.server.application(self._part(name), **more)

    def open(self, name: str = "m", *, create: bool = True, **more: t.Any) -> Store:
        return open_store(self.params(name, **more), create=create)

    def raw(self, name: str = "m") -> Raw:
        return RAW[self.engine](self, name)

    def close(self) -> None:
        for name in self._names:
            self.raw(name).wipe()
