# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Stores on a real PostgreSQL server for the engine's tests, and what may happen to such a server."""
from __future__ import annotations

import itertools
import os
import signal
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer

_NUMBERS = itertools.count()


def schema(name: str = "t") -> str:
    """A schema that no other test of this run uses."""
    return f"{name}_{os.getpid()}_{next(_NUMBERS)}"


def new_postgresql(server: PostgresqlServer, **more: t.Any) -> t.Any:
    return open_store(server.store(schema(), **more), create=True)


def same(store: t.Any, server: PostgresqlServer, **more: t.Any) -> t.Any:
    """Another session with the same store."""
    return open_store(server.store(store.sql.plain_schema, **more))


def raw(server: PostgresqlServer, store: t.Any, user: str = "agent") -> t.Any:
    """A program's own connection, in the store's schema, in autocommit mode."""
    con = server.connect(user)
    con.execute(f'SET search_path = "{store.sql.plain_schema}"')
    return con


def crash(server: PostgresqlServer) -> None:
    """Kill one process of the server with SIGKILL: it ends all others, forgets its memory and recovers from its log."""
    con = server.connect()
    os.kill(con.info.backend_pid, signal.SIGKILL)
    answers(server)


def answers(server: PostgresqlServer) -> None:
    """Returns when it does again, after one of its processes ended."""
    from psycopg import OperationalError

    deadline = time.monotonic() + 300
    while True:
        time.sleep(0.05)
        try:
            server.connect().close()
            return
        except OperationalError:
            if time.monotonic() > deadline:
                raise


def spoil(server: PostgresqlServer, relation: str, page: int) -> None:
    """Overwrite some bytes of a page on disk, behind the server's back."""
    with server.connect() as con:
        con.execute("CHECKPOINT")
        path = con.execute("SELECT pg_relation_filepath(%s::regclass)", (relation,)).fetchone()[0]
    crash(server)  # its copies of the pages are gone after that
    with server.connect() as con:
        con.execute("CHECKPOINT")
    with open(os.path.join(server.data, path), "r+b") as file:
        file.seek(page * 8192 + 4000)
        file.write(b"damage" * 40)
    crash(server)
