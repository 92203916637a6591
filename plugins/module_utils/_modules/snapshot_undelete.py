# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_undelete does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.holds import undelete


def operate(context: Context) -> dict[str, t.Any]:
    result = undelete(
        repository=context.repository(),
        keyring=context.keyring(),
        name=context.name,
        by=context.run.owner,
        reason=context.params["reason"],
        snapshots=context.params["snapshots"] or (),
        check=context.check,
    )
    return {**result, "diff": diff({"snapshots": []}, {"snapshots": sorted(result["snapshots"])}, context.name)}


def main() -> None:
    options = {
        "snapshots": {"type": "list", "elements": "str"},
        "reason": {"type": "str", "default": "it was removed by mistake"},
    }
    execute(operate, options, repository=True, keyring=True)
