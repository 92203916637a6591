# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_info does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.inform import snapshots


def operate(context: Context) -> dict[str, t.Any]:
    keyring = context.keyring() if context.has_keyring else None
    return {"snapshots": snapshots(context.repository(), context.name, keyring, context.params["namespace"])}


def main() -> None:
    options = {
        "namespace": {"type": "str"},
    }
    execute(operate, options)
