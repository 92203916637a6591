# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_rewrap does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import (
    MASTER,
    Context,
    diff,
    execute,
    mapping,
)
from .._operations.master_key import rewrap_repository


def operate(context: Context) -> dict[str, t.Any]:
    found = rewrap_repository(
        context.repository_params(),
        context.name,
        dict(context.params["keyring"]),
        context.new_master(),
        spool=context.params["spool"],
        retire=context.params["retire"],
        force=context.params["force"],
        check=context.check,
    )
    before = {"to be wrapped": found["wrapped"], "to give up other master keys": found["retired"]}
    after = dict.fromkeys(before, 0)
    found["diff"] = diff(before, after, context.name)
    return context.judged(
        found, "keep the former master key; give the one that opens them, or set memory_force=true to leave them out"
    )


def main() -> None:
    options = {
        "new_master": mapping(MASTER),
        "spool": {"type": "path"},
        "retire": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
    }
    execute(operate, options, repository=True, keyring=True)
