# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The program that asks an agent framework in its application's place, in the application's own Python.

PRIVATE to the collection. ``_search.py`` hands the text of this file to that interpreter, so it imports nothing of ours
and runs under any Python from 3.8 on. One JSON object comes in on standard input; the answers go out as JSON lines.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
import threading
import time
import typing as t

MOST_TEXT = 300  # characters of what an exception says
MOST_VALUE = 1 << 20  # of a value that is looked into


class Unranked(Exception):
    """The search answers every query with the same: it has no index."""


def said(exc: BaseException, secrets: t.Sequence[str]) -> str:
    try:
        text = str(exc)
    except Exception:
        text = ""
    for secret in secrets:
        text = text.replace(secret, "...")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MOST_TEXT]
    return f"{type(exc).__name__}: {line}" if line else type(exc).__name__


class Langgraph:
    """A store with search(prefix, query=, limit=), which must not put off an expiry.

    Former releases find what begins with the same letters, too: of a.b also that of a.bc, which does not count.
    """

    def __init__(self, store: t.Any, within: t.Any) -> None:
        self.store, self.within = store, within

    @staticmethod
    def prepare() -> None:
        """Nothing has to be."""

    def some(self, **options: t.Any) -> list[t.Any]:
        return list(self.store.search(tuple(self.within.split(".")), refresh_ttl=False, **options))

    def any(self) -> bool:
        return bool(self.some(limit=1))

    def find(self, query: str, top: int) -> list[t.Any]:
        items = self.some(query=query, limit=top)
        if items and all(item.score is None for item in items):
            raise Unranked("the store has no vector index: it answers every query with what was written last")
        named = [(".".join(item.namespace), item) for item in items]
        return [
            [{"prefix": name, "key": item.key}, text_of(item.value)]
            for name, item in named
            if f"{name}.".startswith(f"{self.within}.")
        ]


class Mem0:
    """A Memory with search(query, filters=, top_k=) and get_all(filters=, top_k=); formerly (limit=, user_id=)."""

    def __init__(self, memory: t.Any, within: t.Any) -> None:
        self.memory, self.within = memory, dict(within)

    @staticmethod
    def prepare() -> None:
        """It would make its table, which is there, where that is in no schema called public: in former releases as soon
        as its object is made."""
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module("mem0.vector_stores.pgvector").PGVector.create_col = lambda _store: None

    def listed(self, method: str, top: int, *query: str) -> list[t.Any]:
        call = getattr(self.memory, method)
        if "top_k" in inspect.signature(call).parameters:
            found = call(*query, filters=dict(self.within), top_k=top)
        else:
            found = call(*query, limit=top, **self.within)
        return list(found["results"] if isinstance(found, dict) else found)

    def any(self) -> bool:
        return bool(self.listed("get_all", 1))

    def find(self, query: str, top: int) -> list[t.Any]:
        return [[{"id": str(one["id"])}, text_of(one.get("memory"))] for one in self.listed("search", top, query)]


ADAPTERS: t.Dict[str, t.Any] = {"langgraph": Langgraph, "mem0": Mem0}


def text_of(value: t.Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:MOST_VALUE]


def made(asked: dict[str, t.Any], kept: list[t.Any]) -> t.Any:
    """What the factory gives; a context manager is entered, and kept so that it stays open."""
    module, _colon, name = asked["factory"].partition(":")
    open_as_address(asked["connection"])
    found: t.Any = importlib.import_module(module)
    open_as_address(asked["connection"])  # of the sqlite3 that the module may have put in place of Python's
    for part in name.split("."):
        found = getattr(found, part)
    adapter = ADAPTERS[asked["adapter"]]
    adapter.prepare()
    found = found(asked["connection"], **asked["arguments"])
    if hasattr(found, "__enter__") and not hasattr(found, "search"):
        kept.append(found)
        found = found.__enter__()
    return adapter(found, asked["within"])


def twice(call: t.Callable[[], t.Any]) -> t.Any:
    """A second try for an embedding service that stumbled once."""
    try:
        return call()
    except Unranked:
        raise
    except Exception:
        time.sleep(0.5)
        return call()


def answered(memory: t.Any, query: str | None, asked: dict[str, t.Any]) -> dict[str, t.Any]:
    """What it finds; of no query whether there is anything at all."""
    try:
        if query is None:
            return {"any": memory.any()}
        return {"found": twice(lambda: memory.find(query, asked["top"]))}
    except BaseException as exc:  # SystemExit of a library is no reason to end either
        return {"error": said(exc, asked["secrets"])}


def open_as_address(connection: str) -> None:
    """Let sqlite3 take the address for what it is: frameworks hand it on as if it were a path."""
    if not connection.startswith("file:"):
        return
    import sqlite3

    plain = sqlite3.connect

    def connect(database: t.Any, *arguments: t.Any, **options: t.Any) -> t.Any:
        if database == connection:
            options["uri"] = True
        return plain(database, *arguments, **options)

    sqlite3.connect = connect


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    sys.dont_write_bytecode = True
    sys.path[:] = [path for path in sys.path if path]  # not the folder that this was started in
    asked = json.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the application prints goes nowhere
        os.dup2(nothing, number)

    def tell(**answer: t.Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    os.environ.setdefault("MEM0_TELEMETRY", "False")  # a question of ours is no use of the application
    os.environ.update(asked["variables"])
    sys.path[:0] = asked["path"]
    kept: list[t.Any] = []
    try:
        memory = made(asked, kept)
    except BaseException as exc:
        tell(broken=said(exc, asked["secrets"]))
    else:
        for query in (None, *asked["queries"]):
            answer = answered(memory, query, asked)
            tell(**answer)
            if "error" in answer:
                break
        tell(done=True)
    os._exit(0)  # pools and threads of the application do not keep us


if __name__ == "__main__":
    main()
