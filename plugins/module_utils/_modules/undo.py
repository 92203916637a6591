# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module undo does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.apply import undo


def operate(context: Context) -> dict[str, t.Any]:
    result = undo(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        check=context.check,
    )
    went = result.get("generation")
    if went is not None:
        before, after = ({"generation": went[end]} for end in ("from", "to"))
    else:
        before, after = {}, dict(result.get("records", {}))
    return {**result, "diff": diff(before, after, context.namespace)}


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
    }
    execute(operate, options)
