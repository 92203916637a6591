# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sessions of Google's Agent Development Kit (DatabaseSessionService, schema version 1).

PRIVATE to the collection. A namespace is an application and a user (``app/user``): sessions, their events, the user's
state. The state of an application as a whole belongs to no user.
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
        payload=("event_data",),
        json=("event_data",),
    ),
    Root(
        name="user_states",
        label="state",
        namespace=_USER,
        key=(),
        updated=Moment("update_time"),
        payload=("state",),
        json=("state",),
    ),
    engines=("sqlite",),
    findings=("adk",),
)
