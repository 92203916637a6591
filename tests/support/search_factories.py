# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application gives for its own search to be asked: factories of its memory object around a connection.

They run in the environment of tests/support/frameworks.py. The embedding function is a hash: the same text is found
first, and every other one is somewhere.
"""
from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import sys
import threading
import typing as t


def embed(texts: t.Sequence[str], dims: int) -> list[list[float]]:
    """As langgraph_app.py has it."""
    found = []
    for text in texts:
        raw = b"".join(hashlib.sha256(f"{n} {text}".encode()).digest() for n in range(dims * 2 // 32 + 1))
        found.append([int.from_bytes(raw[2 * n : 2 * n + 2], "big") / 65535 - 0.5 for n in range(dims)])
    return found


def refusing(texts: t.Sequence[str]) -> list[list[float]]:
    raise ConnectionError("no route to the embedding service")


def index(dims: int, down: bool = False) -> dict[str, t.Any]:
    return {"dims": dims, "fields": ["text"], "embed": refusing if down else lambda texts: embed(texts, dims)}


# --- PostgreSQL -----------------------------------------------------------------------------------------------------
def langgraph(connection: str, dims: int = 8, down: bool = False) -> t.Any:
    from langgraph.store.postgres import PostgresStore

    print("what an application prints", connection)
    print("and what it complains about", file=sys.stderr)
    ttl = {"refresh_on_read": True, "default_ttl": 60}
    return PostgresStore.from_conn_string(connection, index=index(dims, down) if dims else None, ttl=ttl)


def langgraph_former(connection: str, more: str) -> t.Any:
    """As former releases search: what is below a prefix, and whatever else begins with its letters."""
    from langgraph.store.postgres import PostgresStore

    class Former(PostgresStore):
        def search(self, prefix: t.Any, **options: t.Any) -> t.Any:
            return super().search((more,), **options) + super().search(prefix, **options)

    return Former.from_conn_string(connection, index=index(8))


def langgraph_elsewhere(connection: str, url: str) -> t.Any:
    """Takes its own connection in place of the one that it is given."""
    os.environ.pop("PGOPTIONS")
    return langgraph(url)


def langgraph_writing(connection: str) -> t.Any:
    """Writes before it is asked anything, in every way."""
    said = []
    with langgraph(connection) as store:
        for how, *given in (("put", ("agent-7",), "x", {"text": "x"}), ("delete", ("agent-7",), "a/b"), ("sweep_ttl",)):
            try:
                getattr(store, how)(*given)
            except Exception as exc:
                said.append(f"{how} {type(exc).__name__}: {exc}")
    raise RuntimeError("; ".join(said))


def mem0(connection: str) -> t.Any:
    os.environ["OPENAI_API_KEY"] = "none is asked"
    from mem0 import Memory

    store = {"connection_string": connection, "collection_name": "mem0", "embedding_model_dims": 8, "hnsw": True}
    memory = Memory.from_config(
        {"vector_store": {"provider": "pgvector", "config": store}, "history_db_path": ":memory:"}
    )
    memory.embedding_model = Hashing()
    return memory


class Hashing:
    """As framework_apps.py has it."""

    def embed(self, text: str, memory_action: t.Any = None) -> list[float]:
        return [byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]

    def embed_batch(self, texts: t.Sequence[str], memory_action: t.Any = None) -> list[list[float]]:
        return [self.embed(text) for text in texts]


# --- SQLite ---------------------------------------------------------------------------------------------------------
class Loading(sqlite3.Connection):
    """For interpreters that were built without the loading of extensions: sqlite-vec's one function that is asked."""

    def enable_load_extension(self, _enabled: bool) -> None:
        self.create_function("vec_distance_cosine", 2, distance)

    def load_extension(self, _path: str) -> None: ...


def distance(one: bytes, other: bytes) -> float:
    a, b = struct.unpack(f"{len(one) // 4}f", one), struct.unpack(f"{len(other) // 4}f", other)
    dot = sum(x * y for x, y in zip(a, b))
    return float(1 - dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)


def langgraph_sqlite(connection: str, dims: int = 8, write: bool = False) -> t.Any:
    from langgraph.store.sqlite import SqliteStore

    if not dims:
        return SqliteStore.from_conn_string(connection)
    con = sqlite3.connect(connection, check_same_thread=False, isolation_level=None, factory=Loading)
    store = SqliteStore(con, index=index(dims))
    if write:
        store.put(("agent-7",), "made by a probe", {"text": "x"})
    return store


# --- what never works -----------------------------------------------------------------------------------------------
def hanging(connection: str, folder: str) -> t.Any:
    """Leaves word that it began, and never ends."""
    with open(os.path.join(folder, "pid"), "w", encoding="ascii") as stream:
        stream.write(str(os.getpid()))
    threading.Event().wait()


def telling(connection: str) -> t.Any:
    """Says in its error all that it knows, with the password where a long text is cut off."""
    password = os.environ["PGPASSWORD"]
    raise RuntimeError((connection + "x" * 300)[: 300 - len(password) // 2] + password)


def leaving(connection: str) -> t.Any:
    os._exit(3)
