# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Applications with the memories of several frameworks, as programs of their own that know nothing of the collection.

    PYTHON framework_apps.py LAYOUT URL      # one JSON request a line, one JSON answer a line

Requests: {"do": "fill" | "view" | "damage" | "write", "namespace": …}. Runs in the environment of
tests/support/frameworks.py; no model and no network is needed. ``view`` is all that the framework's API tells.
"""
from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import operator
import os
import sys
import typing as t

LOOP = asyncio.new_event_loop()
COUNT = 12


def run(awaited: t.Any) -> t.Any:
    return LOOP.run_until_complete(awaited)


def alchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


class Mem0:
    """Namespaces are users; one of their memories has an expiry, which releases before 2 (``former``) do not know."""

    def __init__(self, url: str) -> None:
        os.environ.update(MEM0_TELEMETRY="False", OPENAI_API_KEY="none is asked", MEM0_DIR=os.environ["APP_FOLDER"])
        from mem0 import Memory

        store = {"connection_string": url, "collection_name": "mem0", "embedding_model_dims": 8, "hnsw": True}
        history = os.path.join(os.environ["APP_FOLDER"], "history.db")
        self.memory = Memory.from_config(
            {"vector_store": {"provider": "pgvector", "config": store}, "history_db_path": history}
        )
        self.memory.embedding_model = self
        self.former = "top_k" not in inspect.signature(self.memory.search).parameters

    def embed(self, text: str, memory_action: t.Any = None) -> list[float]:
        return [byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]

    def embed_batch(self, texts: t.Sequence[str], memory_action: t.Any = None) -> list[list[float]]:
        return [self.embed(text) for text in texts]

    def fill(self, namespace: str) -> None:
        for number in range(COUNT):
            self.memory.add(f"fact {number} of {namespace}", infer=False, metadata={"n": number}, **who(namespace))
        expiry = {} if self.former else {"expiration_date": "2060-02-29"}
        self.memory.add("over some day", infer=False, **expiry, **who(namespace))

    def view(self, namespace: str) -> t.Any:
        found = self.memory.get_all(**self.within(namespace, 1000))["results"]
        ranked = self.memory.search("fact 3", **self.within(namespace, 50))["results"]
        return [sorted(found, key=lambda one: str(one["id"])), ranked]

    def within(self, namespace: str, most: int) -> dict[str, t.Any]:
        return {"limit": most, **who(namespace)} if self.former else {"top_k": most, "filters": who(namespace)}

    def damage(self, namespace: str) -> None:
        rows = sorted(self.view(namespace)[0], key=lambda one: str(one["memory"]))
        self.memory.update(rows[0]["id"], data="garbage")
        self.memory.delete(rows[1]["id"])
        self.memory.add("made by the damage", infer=False, **who(namespace))

    def write(self, namespace: str) -> None:
        self.memory.add("more", infer=False, **who(namespace))


def who(namespace: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in namespace.split("&"))


class OpenaiAgents:
    """Namespaces are sessions; one of them is encrypted."""

    def __init__(self, url: str) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self.engine = create_async_engine(alchemy(url))

    def session(self, namespace: str) -> t.Any:
        from agents.extensions.memory import EncryptedSession, SQLAlchemySession

        plain = SQLAlchemySession(namespace, engine=self.engine, create_tables=True)
        return EncryptedSession(namespace, plain, encryption_key="k" * 32) if "secret" in namespace else plain

    def fill(self, namespace: str) -> None:
        items: list[t.Any] = [{"role": "user", "content": f"words {n} of {namespace} ключ"} for n in range(COUNT)]
        items += [
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "seen"},
        ]
        run(self.session(namespace).add_items(items))

    def view(self, namespace: str) -> t.Any:
        return run(self.session(namespace).get_items())

    def damage(self, namespace: str) -> None:
        run(self.session(namespace).pop_item())
        run(self.session(namespace).add_items([{"role": "user", "content": "made by the damage"}]))

    def write(self, namespace: str) -> None:
        run(self.session(namespace).add_items([{"role": "user", "content": "more"}]))


class GoogleAdk:
    """Namespaces are application/user, with two sessions each."""

    def __init__(self, url: str) -> None:
        from google.adk.sessions import DatabaseSessionService

        self.service = DatabaseSessionService(db_url=alchemy(url))

    def event(self, text: str, delta: dict[str, t.Any] | None = None) -> t.Any:
        from google.adk.events import Event, EventActions
        from google.genai import types

        content = types.Content(role="user", parts=[types.Part(text=text)])
        actions = EventActions(state_delta=delta or {})
        return Event(author="user", invocation_id="i", content=content, actions=actions)

    def names(self, namespace: str) -> dict[str, str]:
        app, user = namespace.split("/")
        return {"app_name": app, "user_id": user}

    def fill(self, namespace: str) -> None:
        for number in range(2):
            session = run(
                self.service.create_session(
                    **self.names(namespace), session_id=f"s{number}", state={"a": number, "user:name": namespace}
                )
            )
            for turn in range(COUNT // 2):
                run(self.service.append_event(session, self.event(f"turn {turn}", {"turn": turn})))

    def view(self, namespace: str) -> t.Any:
        listed = run(self.service.list_sessions(**self.names(namespace))).sessions
        found = [run(self.service.get_session(**self.names(namespace), session_id=one.id)) for one in listed]
        return sorted((json.loads(one.model_dump_json()) for one in found if one), key=lambda one: str(one["id"]))

    def damage(self, namespace: str) -> None:
        session = run(self.service.get_session(**self.names(namespace), session_id="s0"))
        run(self.service.append_event(session, self.event("garbage", {"a": "garbage", "user:name": "nobody"})))
        run(self.service.delete_session(**self.names(namespace), session_id="s1"))
        run(self.service.create_session(**self.names(namespace), session_id="made"))

    def write(self, namespace: str) -> None:
        session = run(self.service.get_session(**self.names(namespace), session_id="s0"))
        run(self.service.append_event(session, self.event("more")))


class Agno:
    """Namespaces are users."""

    def __init__(self, url: str) -> None:
        from agno.db.postgres import PostgresDb

        self.db = PostgresDb(db_url=alchemy(url), memory_table="agno_memories", db_schema=os.environ["APP_SCHEMA"])

    def put(self, namespace: str, name: str, text: str) -> None:
        from agno.db.schemas import UserMemory

        memory = UserMemory(memory=text, user_id=namespace, memory_id=f"{namespace} {name}", topics=["a", "b"])
        if self.db.upsert_user_memory(memory) is None:
            raise RuntimeError("the framework says that nothing was stored")

    def fill(self, namespace: str) -> None:
        for number in range(COUNT):
            self.put(namespace, str(number), f"fact {number} of {namespace}")

    def view(self, namespace: str) -> t.Any:
        found = self.db.get_user_memories(user_id=namespace)
        return sorted((one.to_dict() for one in found), key=lambda one: str(one["memory_id"]))

    def damage(self, namespace: str) -> None:
        self.put(namespace, "1", "garbage")
        self.db.delete_user_memory(f"{namespace} 2")
        self.put(namespace, "made", "by the damage")

    def write(self, namespace: str) -> None:
        self.put(namespace, "more", "more")


class State(t.TypedDict):
    words: t.Annotated[list, operator.add]
    count: int


class Checkpoints:
    """Namespaces are threads of a graph that remembers; those with a secret are encrypted."""

    def __init__(self, url: str) -> None:
        from langgraph.checkpoint.postgres import PostgresSaver
        from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

        self.stack = contextlib.ExitStack()
        self.savers = {}
        for kind in ("plain", "secret"):
            saver = self.stack.enter_context(PostgresSaver.from_conn_string(url))
            if kind == "secret":
                saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 32)
            self.savers[kind] = saver
        self.savers["plain"].setup()

    def graph(self, namespace: str) -> tuple[t.Any, t.Any]:
        from langgraph.graph import END, START, StateGraph

        builder = StateGraph(State)
        builder.add_node("think", lambda state: {"words": ["thought"], "count": len(state["words"])})
        builder.add_edge(START, "think")
        builder.add_edge("think", END)
        saver = self.savers["secret" if "secret" in namespace else "plain"]
        return builder.compile(checkpointer=saver), {"configurable": {"thread_id": namespace}}

    def fill(self, namespace: str) -> None:
        graph, config = self.graph(namespace)
        for turn in range(4):
            graph.invoke({"words": [f"turn {turn}"], "count": 0}, config)

    def view(self, namespace: str) -> t.Any:
        graph, config = self.graph(namespace)
        return [
            [one.values, one.next, one.metadata, one.created_at, one.config, [task.name for task in one.tasks]]
            for one in graph.get_state_history(config)
        ]

    def damage(self, namespace: str) -> None:
        self.write(namespace)

    def write(self, namespace: str) -> None:
        graph, config = self.graph(namespace)
        graph.invoke({"words": ["more"], "count": 0}, config)


KINDS = {
    "mem0": Mem0, "openai_agents": OpenaiAgents, "google_adk": GoogleAdk, "agno": Agno,
    "langgraph_checkpoint": Checkpoints,
}  # fmt: skip


def main(layout: str, url: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a framework prints goes elsewhere
    application = KINDS[layout](url)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said: dict[str, t.Any] = {"answer": getattr(application, asked["do"])(asked["namespace"])}
        except Exception as exc:
            said = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(said, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
