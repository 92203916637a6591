# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What nearly every process of the tests imports (processes.py)."""
from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.module_utils import memory  # noqa: F401
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (  # noqa: F401
    integrity,
    snapshot,
)
