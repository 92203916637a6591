# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sessions of Google's Agent Development Kit (DatabaseSessionService, schema 1). A namespace is application and user.

PRIVATE to the collection. Its records are sessions, their events, and the state of the user. The state that all users
of an application share (app_states) belongs to no namespace.
"""
from __future__ import annotations

from .tables import Moment, Namespaces, Root, described

_USER = Namespaces("columns", ("app_name", "user_id"))

GOOGLE_ADK = described(
    "google_adk",
    Root(
        name="sessions",
        label="session",
        namespace=_USER,
        key=("id",),
        created=Moment("create_time"),
        updated=Moment("update_time"),
        payload=("state",),
        json=("state",),
    ),
    Root(
        name="events",
        label="event",
        namespace=_USER,
        key=("session_id", "id"),
        created=Moment("timestamp"),
        updated=Moment("timestamp"),
        payload=("event_data",),
        json=("event_data",),
    ),
    Root(
        name="user_states",
        label="user_state",
        namespace=_USER,
        key=(),
        updated=Moment("update_time"),
        payload=("state",),
        json=("state",),
    ),
    engines=("postgresql", "sqlite"),
    findings=("event-without-session",),
)
