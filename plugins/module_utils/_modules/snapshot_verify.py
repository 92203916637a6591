# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_verify does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._application_seals import Tried, seals_of
from .._operations.verify import verify


def operate(context: Context) -> dict[str, t.Any]:
    seals = seals_of(context.store_params) if context.params.get("store") else None
    found = verify(
        repository=context.repository(),
        keyring=context.keyring() if context.has_keyring else None,
        name=context.name,
        snapshot_id=context.params["snapshot"],
        depth=context.params["depth"],
        record=not context.check,
        application=Tried(seals) if seals is not None and seals.keys else None,
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
