# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection's own layout, with everything that the runbook presumes.

PRIVATE to the collection.
"""
from __future__ import annotations

from . import ALL_CAPABILITIES, Columns, Layout

NATIVE = Layout(
    name="native",
    records="memory_records",
    columns=Columns(
        key="key",
        payload="payload",
        generation="generation",
        epoch="epoch",
        sequence="sequence",
        created="created",
        updated="updated",
        expires="expires",
        deleted="deleted",
        key_id="key_id",
        checksum="checksum",
    ),
    log="memory_access_log",
    capabilities=frozenset(ALL_CAPABILITIES) - {"outside-fence"},
    engines=("sqlite", "postgresql", "valkey"),
)
