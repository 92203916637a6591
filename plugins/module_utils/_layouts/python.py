# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object, used through its methods alone: ``memory_store.factory`` names what makes it.

PRIVATE to the collection. A record is what ``read`` gives for a key that ``list_keys`` names. Whether a fence is there
depends on the object: see _engines/python_fence.py.
"""
from __future__ import annotations

from . import Layout

PYTHON = Layout(
    name="python",
    capabilities=frozenset(("fence-reads", "fence-writes", "generations", "outside-fence")),
    engines=("python",),
)
