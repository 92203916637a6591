# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.snapshot_step import publish


def operate(context: Context) -> dict[str, t.Any]:
    result = publish(
        store=context.store,
        store_params=context.store_params,
        keyring=context.keyring(),
        repository=context.repository_params(),
        name=context.name,
        purpose=context.params["purpose"],
        namespaces=context.params["namespaces"],
        run=context.run,
        min_interval=context.params["min_interval"],
        spool=context.params["spool"],
        new_repository=context.params["new_repository"],
        check=context.check,
    )
    if result.get("suspect"):
        result["warnings"] = [
            *result.get("warnings", []),
            f"Snapshot {result['snapshot']} is suspect: {'; '.join(result['reasons'])}.",
        ]
    # nobody knows in check mode which name the snapshot would get
    after = {"snapshot": result["snapshot"] or f"a new {context.params['purpose']} one"} if result["changed"] else {}
    return {**result, "diff": diff({}, after, context.name)}


def main() -> None:
    options = {
        "namespaces": {"type": "list", "elements": "str"},
        "purpose": {
            "type": "str",
            "default": "scheduled",
            "choices": ["scheduled", "baseline", "forensic", "failback"],
        },
        "min_interval": {"type": "float", "default": 0.0},
        "spool": {"type": "path"},
        "new_repository": {"type": "bool", "default": False},
    }
    execute(operate, options)
