# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_verify does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.verify import verify


def operate(context: Context) -> dict[str, t.Any]:
    found = verify(
        repository=context.repository(),
        keyring=context.keyring() if context.has_keyring else None,
        name=context.name,
        snapshot_id=context.params["snapshot"],
        depth=context.params["depth"],
        record=not context.check,
    )
    found["reasons"] = [str(problem.get("reason")) for problem in found["problems"]]
    found["changed"] = False
    return context.judged(found, "restore from another snapshot and take a new one")


def main() -> None:
    options = {
        "snapshot": {"type": "str"},
        "depth": {"type": "str", "default": "hashed", "choices": ["listed", "hashed", "opened", "restored"]},
    }
    execute(operate, options)
