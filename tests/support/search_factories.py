# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application gives for its own search to be asked: factories of its memory object around a connection.

They run in the environment of tests/support/frameworks.py.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import typing as t

import extensible_sqlite  # noqa: F401  # pylint: disable=unused-import
from embedding import embed


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
@contextlib.contextmanager
def langgraph_sqlite(connection: str, dims: int = 8, write: bool = False) -> t.Iterator[t.Any]:
    from langgraph.store.sqlite import SqliteStore

    found = {"dims": dims, "embed": lambda texts: embed(texts, dims)} if dims else None
    with SqliteStore.from_conn_string(connection, index=found) as store:
        if write:
            store.put(("agent-7",), "made by a probe", {"text": "x"})
        yield store


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
