# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sessions of the OpenAI Agents SDK (SQLiteSession, SQLAlchemySession, and EncryptedSession on top of them).

PRIVATE to the collection. A namespace is a session; its records are the messages, by their numbers, and the session's
own row.
"""
from __future__ import annotations

from .._application_ciphers import FERNET
from .tables import Moment, Namespaces, Root, Sealed, described

_SESSION = Namespaces("columns", ("session_id",))

OPENAI_AGENTS = described(
    "openai_agents",
    Root(
        name="agent_sessions",
        label="session",
        namespace=_SESSION,
        key=(),
        created=Moment("created_at"),
        updated=Moment("updated_at"),
    ),
    Root(
        name="agent_messages",
        label="message",
        namespace=_SESSION,
        key=("id",),
        numbers=frozenset(("id",)),
        created=Moment("created_at"),
        updated=Moment("created_at"),
        payload=("message_data",),
        json=("message_data",),
        sealed=Sealed(FERNET, "message_data"),
    ),
    engines=("postgresql", "sqlite"),
    findings=("envelopes", "result-without-call"),
)
