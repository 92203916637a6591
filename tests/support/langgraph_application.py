# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application that keeps its memories with LangGraph's SqliteStore, a vector of 8 numbers for all of each, and knows
nothing of the collection. It runs under the interpreter of tests/support/frameworks.py, and is called by
tests/support/framework_process.py.
"""
from __future__ import annotations

import threading
import time
import typing as t

from embedding import embed
from extensible_sqlite import sqlite3  # before the framework
from langgraph.store.base import PutOp
from langgraph.store.sqlite import SqliteStore

BUSY = 20.0
DIMS = 8


class Application:
    con: sqlite3.Connection | None = None

    def open(self, path: str) -> None:
        self.close()
        self.path = path
        self.con, self.store = opened(path)
        self.live: dict[str, Live] = {}

    def close(self) -> None:
        if self.con is not None:
            self.con.close()

    def put(
        self, namespace: list[str], key: str, value: dict[str, t.Any], ttl: float | None = None, index: t.Any = None
    ) -> None:
        self.store.put(tuple(namespace), key, value, ttl=ttl, index=index)

    def fill(self, namespace: list[str], values: dict[str, t.Any], index: t.Any = None) -> None:
        self.store.batch([PutOp(tuple(namespace), key, value, index) for key, value in values.items()])

    def get(self, namespace: list[str], key: str) -> t.Any:
        found = self.store.get(tuple(namespace), key, refresh_ttl=False)
        return None if found is None else found.value

    def delete(self, namespace: list[str], *keys: str) -> None:
        self.store.batch([PutOp(tuple(namespace), key, None) for key in keys])

    def everything(self, namespace: list[str]) -> list[t.Any]:
        """What a search finds, in its order."""
        found = self.store.search(tuple(namespace), limit=100_000, refresh_ttl=False)
        return [
            [list(item.namespace), item.key, item.value, item.created_at.isoformat(), item.updated_at.isoformat()]
            for item in found
        ]

    def ranked(self, namespace: list[str], *texts: str) -> list[t.Any]:
        """What is found for each of these texts, in the order of their nearness, which is given with it."""
        return [
            [[list(item.namespace), item.key, item.value, item.score] for item in self.store.search(
                tuple(namespace), query=text, limit=20, refresh_ttl=False
            )]
            for text in texts
        ]  # fmt: skip

    def namespaces(self) -> list[list[str]]:
        return sorted(list(one) for one in self.store.list_namespaces(limit=10_000))

    def sweep(self) -> int:
        return self.store.sweep_ttl()

    def begin(self, namespace: list[str]) -> None:
        """From now on another thread goes on writing and reading there."""
        self.live[".".join(namespace)] = one = Live(self.path, tuple(namespace))
        one.start()

    def tell(self, namespace: list[str]) -> dict[str, t.Any]:
        return self.live[".".join(namespace)].told()

    def stop(self, namespace: list[str]) -> dict[str, t.Any]:
        one = self.live.pop(".".join(namespace))
        one.ended.set()
        one.join()
        return one.told()


class Live(threading.Thread):
    def __init__(self, path: str, namespace: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.path, self.namespace, self.ended = path, namespace, threading.Event()
        self.written: dict[str, int] = {}
        self.refused = 0
        self.wrong: list[str] = []
        self.other: list[str] = []

    def told(self) -> dict[str, t.Any]:
        return {"written": dict(self.written), "refused": self.refused, "wrong": self.wrong, "other": self.other}

    def run(self) -> None:
        con, store = opened(self.path)
        number = 0
        while not self.ended.is_set():
            number += 1
            key = f"live {number % 50}"
            try:
                store.put(self.namespace, key, {"number": number})
                self.written[key] = number
                found = store.get(self.namespace, key, refresh_ttl=False)
                if found is not None and found.value != {"number": number}:
                    self.wrong.append(key)
                elif found is None:  # it was isolated between the two: then it is refused next
                    self.refused += 1
            except sqlite3.IntegrityError as exc:
                if "memops fence" in str(exc):
                    self.refused += 1
                else:
                    self.other.append(repr(exc))
            except Exception as exc:  # whatever else reaches the application is a fault of ours
                self.other.append(repr(exc))
            time.sleep(0.01)  # so that others have a turn at the file
        con.close()


def opened(path: str) -> tuple[sqlite3.Connection, SqliteStore]:
    con = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY)
    store = SqliteStore(con, index={"dims": DIMS, "embed": lambda texts: embed(texts, DIMS)})
    store.setup()
    return con, store


if __name__ == "__main__":
    from serving import serve

    serve(Application)
