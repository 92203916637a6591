# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_accept does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute


def operate(context: Context) -> dict[str, t.Any]:
    repository, keyring, snapshot = context.repository(), context.keyring(), context.params["snapshot"]
    info = repository.snapshot(context.name, snapshot, keyring).info
    changed = info.suspect and not info.accepted
    if changed and not context.check:
        repository.accept(context.name, snapshot, keyring, context.run.owner, context.params["reason"])
    before = {"suspect": info.suspect, "accepted": info.accepted}
    after = {**before, "accepted": info.accepted or changed}
    return {"changed": changed, "snapshot": snapshot, "diff": diff(before, after, snapshot)}


def main() -> None:
    options = {
        "snapshot": {"type": "str", "required": True},
        "reason": {"type": "str", "default": ""},
    }
    execute(operate, options)
