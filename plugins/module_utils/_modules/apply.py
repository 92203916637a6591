# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module apply does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.apply_step import carry_out


def operate(context: Context) -> dict[str, t.Any]:
    result = carry_out(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        keyring=context.keyring(),
        repository=context.repository(),
        name=context.name,
        run=context.run,
        check=context.check,
    )
    before = {"generation": (result.get("generation") or {}).get("from")}
    after = {"generation": (result.get("generation") or {}).get("to")}
    applied = result.get("applied", result.get("records"))
    if applied is not None:
        after["applied"] = applied
    elif result.get("changed"):
        after["applied"] = "what the plan says"  # in check mode nothing is counted
    return {**result, "diff": diff(before, after, context.namespace)}


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
    }
    execute(operate, options)
