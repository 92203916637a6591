# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a store is, as the parameters of ``memory_store`` say it. No I/O.

PRIVATE to the collection.
"""
from __future__ import annotations

import os
import typing as t
import urllib.parse

from ._errors import InvalidInput

#: How addresses of an engine's servers begin.
OF_SCHEMES: t.Final = {
    "postgresql": "postgresql", "postgres": "postgresql", "valkey": "valkey", "valkeys": "valkey", "redis": "valkey",
    "rediss": "valkey",
}  # fmt: skip


#: What ends the name of the folder beside a store's file that holds what operators noted about it.
FOLDER: t.Final = ".memops"


def check_scheme(engine: str, params: t.Mapping[str, t.Any]) -> None:
    """Errors: InvalidInput when the address is one of another engine. It may hold a password, so it is not shown."""
    url = params.get("url")
    scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else ""
    meant = OF_SCHEMES.get(scheme)
    said = f"memory_store.engine is {engine}" if params.get("engine") else f"the engine is {engine} where none is set"
    if meant is not None and meant != engine:
        raise InvalidInput(
            f"memory_store.url is an address of {meant} ({scheme}://), and {said}.",
            f"set memory_store.engine to {meant}"
            + (", or path in place of url" if engine == "sqlite" else ", or correct memory_store.url"),
        )
    if engine == "sqlite" and url and not params.get("path"):
        raise InvalidInput(
            f"memory_store.url is for a server, and {said}, which keeps a store in a file.",
            "set memory_store.path, or memory_store.engine to postgresql | valkey",
        )


def location(params: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """Where the store is, alike for all who reach it there: (engine, address, part), without any login. Behind Sentinel
    it is the same one whichever server is its primary."""
    engine = str(params.get("engine") or "sqlite")
    if params.get("path") and not params.get("url"):
        return engine, os.path.realpath(os.path.expanduser(str(params["path"]))), ""
    url = urllib.parse.urlsplit(str(params.get("url") or ""))
    hosts = ",".join(sorted(url.netloc.rpartition("@")[2].lower().split(",")))  # of a Cluster several
    database = url.path.strip("/")
    if params.get("sentinels"):
        database = database or "0"
        hosts = f"{params.get('sentinel_service')}@{','.join(sorted(map(str.lower, params['sentinels'])))}"
    part = params.get("schema") if engine == "postgresql" else params.get("prefix")
    if params.get("layout") == "keyspace":
        part = f"{part or 'memops'} {params.get('pattern')}"
    return engine, f"{hosts}/{database}", str(part or "memops")
