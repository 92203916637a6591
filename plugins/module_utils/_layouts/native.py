# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection's own layout, with everything that the runbook presumes.

PRIVATE to the collection.
"""
from __future__ import annotations

from . import ALL_CAPABILITIES, Layout

NATIVE = Layout(
    name="native",
    capabilities=frozenset(ALL_CAPABILITIES) - {"outside-fence"},
    engines=("sqlite", "postgresql", "valkey"),
)
