# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module plan does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import (
    WINDOW,
    Context,
    diff,
    execute,
    window,
)
from .._operations.plan_step import decide


def operate(context: Context) -> dict[str, t.Any]:
    decided = decide(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        open_keyring=context.keyring,
        open_repository=context.repository,
        name=context.name,
        run=context.run,
        window=window(context.params),
        onset=context.params["onset"],
        absent=context.params["absent"],
        strategy=context.params["strategy"],
        max_loss=context.params["max_loss"],
        accept_loss=context.params["accept_loss"],
        check=context.check,
    )
    keys = decided.pop("listed")  # the first of each kind
    told = {"strategy": decided["strategy"], **decided["records"], **({"keys": keys} if keys else {})}
    decided["diff"] = diff({}, told, "plan for " + context.namespace)
    return decided


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "strategy": {"type": "str", "default": "auto", "choices": ["auto", "soft", "hard", "rotate"]},
        "max_loss": {"type": "float", "default": 0.1},
        "accept_loss": {"type": "bool", "default": False},
        "absent": {"type": "str", "default": "auto", "choices": ["auto", "keep", "restore"]},
        "onset": {"type": "str"},
        **WINDOW,
    }
    execute(operate, options)
