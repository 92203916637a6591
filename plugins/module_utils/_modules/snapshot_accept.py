# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_accept does.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t

from .._ansible import Context, diff, execute
from .._errors import InvalidInput
from .._inputs import check_reason


def operate(context: Context) -> dict[str, t.Any]:
    reason = context.params["reason"]
    check_reason(reason)
    if not reason.strip() or re.fullmatch(r"\s*<.*>\s*", reason):  # as the commands leave it to be filled in
        raise InvalidInput("To accept a snapshot needs a reason.", "say why it is right in memory_accept_reason")
    repository, keyring, snapshot = context.repository(), context.keyring(), context.params["snapshot"]
    info = repository.snapshot(context.name, snapshot, keyring).info
    changed = repository.accept(context.name, snapshot, keyring, context.run.owner, reason, check=context.check)
    before = {"suspect": info.suspect, "accepted": info.accepted}
    after = {**before, "accepted": info.accepted or changed}
    return {"changed": changed, "snapshot": snapshot, "suspect": info.suspect, "diff": diff(before, after, snapshot)}


def main() -> None:
    options = {
        "snapshot": {"type": "str", "required": True},
        "reason": {"type": "str", "required": True},
    }
    execute(operate, options)
