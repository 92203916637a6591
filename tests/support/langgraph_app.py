# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application with LangGraph's long-term memory, as a program of its own: it knows nothing of the collection.

    PYTHON langgraph_app.py serve URL DIMS       # one JSON request a line, one JSON answer a line
    PYTHON langgraph_app.py agent URL DIMS NS    # writes and reads its namespace until its input ends, then reports

Runs in the environment of tests/support/frameworks.py. URL: of PostgreSQL. DIMS: of the vector index; 0: none.
"""
from __future__ import annotations

import json
import sys
import threading
import typing as t

from embedding import embed
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore


def opened(url: str, dims: int) -> t.Any:
    index = {"dims": dims, "embed": lambda texts: embed(texts, dims), "fields": ["text"]} if dims else None
    return PostgresStore.from_conn_string(url, index=index)


def view(store: t.Any, namespace: tuple[str, ...], queries: t.Sequence[str]) -> dict[str, t.Any]:
    """Everything that the framework's own API says of a namespace, without putting off an expiry."""
    items = []
    while True:
        page = store.search(namespace, limit=500, offset=len(items), refresh_ttl=False)
        items += page
        if len(page) < 500:
            break
    found = {}
    for item in items:
        again = store.get(item.namespace, item.key, refresh_ttl=False)
        found[json.dumps([item.namespace, item.key])] = [
            again.value, again.created_at.isoformat(), again.updated_at.isoformat()
        ]  # fmt: skip
    return {
        "items": found,
        "order": [[item.namespace, item.key] for item in items],
        "namespaces": sorted(store.list_namespaces(prefix=namespace, limit=1000)),
        "ranked": [
            [[item.namespace, item.key, item.score] for item in store.search(
                namespace, query=query, limit=15, refresh_ttl=False
            )]
            for query in queries
        ],
    }  # fmt: skip


def answer(store: t.Any, asked: dict[str, t.Any]) -> t.Any:
    do, namespace = asked["do"], tuple(asked.get("namespace", ()))
    if do == "setup":
        return store.setup()
    if do == "put":  # [[namespace, key, value, ttl in minutes or null]]
        operations = [PutOp(tuple(ns), key, value, ttl=ttl) for ns, key, value, ttl in asked["items"]]
        size = asked.get("together", 1)  # one by one each has a time of its own, so that the order of a search is fixed
        for start in range(0, len(operations), size):
            store.batch(operations[start : start + size])
        return len(operations)
    if do == "delete":
        return [store.delete(namespace, key) for key in asked["keys"]]
    if do == "read":  # as applications do: it puts off the expiry
        return store.get(namespace, asked["key"]).value
    if do == "get":
        item = store.get(namespace, asked["key"], refresh_ttl=False)
        return None if item is None else item.value
    return view(store, namespace, asked.get("queries", ()))


def serve(store: t.Any) -> None:
    for line in sys.stdin:
        try:
            said = {"answer": answer(store, json.loads(line))}
        except Exception as exc:
            said = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(said), flush=True)


def agent(store: t.Any, namespace: tuple[str, ...]) -> None:
    """Reports {writes, refused, wrong, other}: what it wrote, and what went otherwise than its code expects."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    counts: dict[str, t.Any] = {"writes": 0, "refused": 0, "wrong": 0, "other": []}
    while not ended.wait(0.002):
        key, value = f"live {counts['writes'] % 40}", {"text": f"number {counts['writes']}", "n": counts["writes"]}
        try:
            store.put(namespace, key, value)
            item = store.get(namespace, key)
            counts["wrong"] += item is None or item.value != value
            counts["writes"] += 1
            if counts["writes"] == 20:
                print("at work", flush=True)
        except Exception as exc:
            if "memops fence" in str(exc) or "row-level security" in str(exc):
                counts["refused"] += 1
            else:
                counts["other"].append(f"{type(exc).__name__}: {exc}")
    print(json.dumps(counts), flush=True)


def main(what: str, url: str, dims: str, *namespace: str) -> None:
    with opened(url, int(dims)) as store:
        if what == "serve":
            serve(store)
        else:
            agent(store, tuple(namespace[0].split(".")))


if __name__ == "__main__":
    main(*sys.argv[1:])
