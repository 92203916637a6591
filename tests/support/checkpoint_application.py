# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A graph of LangGraph that remembers in a file (SqliteSaver) or a server (PostgresSaver), encrypted where a key is
given, and knows nothing of the collection. Run and called as langgraph_application.py is.
"""
from __future__ import annotations

import contextlib
import json
import operator
import sqlite3
import typing as t


class State(t.TypedDict):
    words: t.Annotated[list, operator.add]
    name: str
    count: int


class Checkpoints:
    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def open(self, where: str) -> None:
        """``where``: a path, or a URL of PostgreSQL."""
        self.close()
        self.where = where
        self.savers: dict[str | None, t.Any] = {}
        self.history("memops-none")  # makes the tables

    def close(self) -> None:
        self.stack.close()

    def saver(self, key: str | None) -> t.Any:
        if key not in self.savers:
            from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

            serde = None if key is None else EncryptedSerializer.from_pycryptodome_aes(key=key.encode())
            if "://" in self.where:
                from langgraph.checkpoint.postgres import PostgresSaver

                saver = self.stack.enter_context(PostgresSaver.from_conn_string(self.where))
                saver.serde = serde or saver.serde
            else:
                from langgraph.checkpoint.sqlite import SqliteSaver

                con = sqlite3.connect(self.where, check_same_thread=False, timeout=20)
                self.stack.callback(con.close)
                saver = SqliteSaver(con, serde=serde)
            saver.setup()
            self.savers[key] = saver
        return self.savers[key]

    def graph(self, thread: str, key: str | None) -> tuple[t.Any, t.Any]:
        from langgraph.graph import END, START, StateGraph

        builder = StateGraph(State)
        builder.add_node("think", lambda state: {"words": ["thought"], "count": len(state["words"])})
        builder.add_edge(START, "think")
        builder.add_edge("think", END)
        return builder.compile(checkpointer=self.saver(key)), {"configurable": {"thread_id": thread}}

    def say(
        self, thread: str, words: list[str], key: str | None = None, more: dict[str, t.Any] | None = None
    ) -> None:
        """``more``: what the application adds to the configuration of a call, and so to the metadata."""
        graph, config = self.graph(thread, key)
        config["configurable"].update(more or {})
        for word in words:
            graph.invoke({"words": [word], "name": f"secret of {thread}", "count": 0}, config)

    def history(self, thread: str, key: str | None = None) -> list[t.Any]:
        """All that the framework tells of the thread, newest first."""
        graph, config = self.graph(thread, key)
        told = [
            [
                one.values, one.next, one.metadata, one.created_at, one.config,
                [[task.name, task.result] for task in one.tasks],
            ]
            for one in graph.get_state_history(config)
        ]  # fmt: skip
        return t.cast("list[t.Any]", json.loads(json.dumps(told, default=str)))

    def seal(self, key: str, plain: str) -> str:
        """Both in hexadecimal, as all that the framework encrypts."""
        return str(self.saver_cipher(key).encrypt(bytes.fromhex(plain))[1].hex())

    def unseal(self, key: str, value: str) -> str:
        return str(self.saver_cipher(key).decrypt("aes", bytes.fromhex(value)).hex())

    def saver_cipher(self, key: str) -> t.Any:
        from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

        return EncryptedSerializer.from_pycryptodome_aes(key=key.encode()).cipher

    def forget(self, thread: str) -> None:
        self.saver(None).delete_thread(thread)


if __name__ == "__main__":
    from serving import serve

    serve(Checkpoints)
