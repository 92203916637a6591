# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Applications that keep their memories with the OpenAI Agents SDK, with Google's ADK, with agno or with mem0, and know
nothing of the collection. Run and called as langgraph_application.py is."""
from __future__ import annotations

import asyncio
import os
import sys
import typing as t

KEY = "an application's own key, 40 characters.."


class OpenAI:
    """SQLiteSession, or SQLAlchemySession on a server; with ``encrypted`` an EncryptedSession on top of it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.sessions: dict[t.Any, t.Any] = {}
        self.engine: t.Any = None

    def open(self, where: str) -> None:
        """``where``: a path, or a URL of PostgreSQL."""
        self.close()
        self.where = where
        if "://" in where:
            from sqlalchemy.ext.asyncio import create_async_engine

            self.engine = create_async_engine(where.replace("postgresql://", "postgresql+psycopg://"))
        self.items("memops-none")

    def close(self) -> None:
        for one in self.sessions.values():
            plain = getattr(one, "underlying_session", one)
            if hasattr(plain, "close"):
                plain.close()
        self.sessions = {}
        if self.engine is not None:
            self.loop.run_until_complete(self.engine.dispose())
            self.engine = None

    def _session(self, name: str, encrypted: bool = False, key: str = KEY, ttl: int = 10**9) -> t.Any:
        from agents import SQLiteSession
        from agents.extensions.memory import EncryptedSession, SQLAlchemySession

        if (name, encrypted, key, ttl) not in self.sessions:
            plain: t.Any
            if self.engine is not None:
                plain = SQLAlchemySession(name, engine=self.engine, create_tables=True)
            else:
                plain = SQLiteSession(name, self.where)
            self.sessions[name, encrypted, key, ttl] = (
                EncryptedSession(name, plain, key, ttl=ttl) if encrypted else plain
            )
        return self.sessions[name, encrypted, key, ttl]

    def add(self, name: str, items: list[t.Any], encrypted: bool = False, key: str = KEY) -> None:
        self.loop.run_until_complete(self._session(name, encrypted, key).add_items(items))

    def items(self, name: str, encrypted: bool = False, key: str = KEY, ttl: int = 10**9) -> list[t.Any]:
        return list(self.loop.run_until_complete(self._session(name, encrypted, key, ttl).get_items()))

    def pop(self, name: str) -> t.Any:
        return self.loop.run_until_complete(self._session(name).pop_item())


class Adk:
    def open(self, path: str) -> None:
        from google.adk.sessions import DatabaseSessionService

        self.loop = asyncio.new_event_loop()
        self.service = DatabaseSessionService("sqlite+aiosqlite:///" + path)
        self.loop.run_until_complete(self.service.list_sessions(app_name="none"))  # makes the tables

    def close(self) -> None:
        self.loop.run_until_complete(self.service.db_engine.dispose())

    def begin(self, app: str, user: str, session: str, state: dict[str, t.Any]) -> None:
        self.loop.run_until_complete(
            self.service.create_session(app_name=app, user_id=user, session_id=session, state=state)
        )

    def say(self, app: str, user: str, session: str, texts: list[str]) -> None:
        from google.adk.events import Event
        from google.genai import types

        found = self.loop.run_until_complete(
            self.service.get_session(app_name=app, user_id=user, session_id=session)
        )
        for number, text in enumerate(texts):
            content = types.Content(parts=[types.Part(text=text)])
            event = Event(author="user", invocation_id=f"call {number}", content=content)
            self.loop.run_until_complete(self.service.append_event(found, event))

    def session(self, app: str, user: str, session: str) -> t.Any:
        found = self.loop.run_until_complete(
            self.service.get_session(app_name=app, user_id=user, session_id=session)
        )
        return None if found is None else [found.state, [one.content.parts[0].text for one in found.events]]


class Agno:
    def open(self, path: str) -> None:
        from agno.db.sqlite import SqliteDb

        self.db = SqliteDb(db_file=path)
        self.remember("nobody", {})

    def close(self) -> None:
        self.db.db_engine.dispose()

    def remember(self, user: str, memories: dict[str, str]) -> None:
        from agno.db.schemas import UserMemory

        self.db.get_user_memories(user_id=user)
        for name, text in memories.items():
            self.db.upsert_user_memory(UserMemory(memory=text, memory_id=name, topics=["topic"], user_id=user))

    def memories(self, user: str) -> dict[str, str]:
        return {one.memory_id: one.memory for one in self.db.get_user_memories(user_id=user)}

    def forget(self, user: str, name: str) -> None:
        self.db.delete_user_memory(name, user_id=user)


class Mem0History:
    """The storage of mem0's Memory beside its vectors."""

    def open(self, path: str) -> None:
        os.environ.update(MEM0_TELEMETRY="False", MEM0_DIR=os.path.dirname(path))
        from mem0.memory.storage import SQLiteManager

        self.storage = SQLiteManager(path)

    def close(self) -> None:
        self.storage.close()

    def write(self, memory: str, scope: str, number: int) -> None:
        made, at = f"2026-01-{number % 28 + 1:02}T10:00:00+00:00", "2026-02-01T03:00:00.5-07:00"
        self.storage.add_history(memory, None, f"fact {number}", "ADD", created_at=made)
        self.storage.add_history(memory, f"fact {number}", "newer", "UPDATE", created_at=made, updated_at=at)
        if hasattr(self.storage, "save_messages"):  # not before release 2
            self.storage.save_messages([{"role": "user", "content": f"message {number}"}], scope)

    def history(self, memory: str) -> list[t.Any]:
        return self.storage.get_history(memory)

    def everything(self, memories: list[str], scopes: list[str]) -> list[t.Any]:
        return [[self.storage.get_history(one) for one in memories]] + [
            [self.storage.get_last_messages(one) for one in scopes]
        ]


if __name__ == "__main__":
    from serving import serve

    serve({"openai": OpenAI, "adk": Adk, "agno": Agno, "mem0": Mem0History}[sys.argv[1]])
