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
    result = undo(store=context.store, namespace=context.namespace, run=context.run, check=context.check)
    return {
        **result,
        "diff": diff(
            {"generation": result["generation"]["from"]}, {"generation": result["generation"]["to"]}, context.namespace
        ),
    }


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
    }
    execute(operate, options)
