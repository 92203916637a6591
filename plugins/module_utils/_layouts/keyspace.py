# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's own keys in a Valkey or Redis server, whatever types they have.

PRIVATE to the collection. A record is one key: its name after the namespace, its value as DUMP gives it, its expiry.
"""
from __future__ import annotations

from . import Layout

KEYSPACE = Layout(
    name="keyspace",
    capabilities=frozenset(("expiry", "fence-reads", "fence-raw-reads", "fence-writes", "generations")),
    engines=("valkey",),
)
