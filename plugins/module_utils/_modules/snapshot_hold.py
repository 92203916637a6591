# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_hold does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.holds import hold


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    result = hold(
        repository=context.repository(),
        keyring=context.keyring(),
        name=context.name,
        label=params["hold"],
        present=params["state"] == "present",
        by=context.run.owner,
        reason=params["reason"],
        snapshots=params["snapshots"] or (),
        of_incident=params["of_incident"],
        check=context.check,
    )
    what = {True: result["snapshots"], False: []}
    present = params["state"] == "present"
    return {**result, "diff": diff({"held": what[not present]}, {"held": what[present]}, params["hold"])}


def main() -> None:
    options = {
        "hold": {"type": "str", "required": True},
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        "reason": {"type": "str", "default": ""},
        "snapshots": {"type": "list", "elements": "str"},
        "of_incident": {"type": "str"},
    }
    execute(operate, options, repository=True, keyring=True)
