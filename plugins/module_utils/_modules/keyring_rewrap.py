# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module keyring_rewrap does.

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
from .._operations.master_key import rewrap_keyring


def operate(context: Context) -> dict[str, t.Any]:
    keyring = dict(context.params["keyring"])
    found = rewrap_keyring(
        keyring,
        context.new_master(),
        retire=context.params["retire"],
        force=context.params["force"],
        check=context.check,
    )
    before, after = ({"master keys": found["masters"][when]} for when in ("before", "after"))
    found["diff"] = diff(before, after, keyring["path"])
    return context.judged(found, "give the master key that opens it, or set memory_force=true to leave it as it is")


def main() -> None:
    options = {
        "new_master": mapping(MASTER),
        "retire": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
    }
    execute(operate, options, store=False, keyring=True)
