# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module validate does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import HIT_RATE_SOURCE, SEARCH, Context, execute
from .._operations.validate_step import judge


def operate(context: Context) -> dict[str, t.Any]:
    found = judge(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        keyring=context.keyring(),
        run=context.run,
        benchmark=context.params["benchmark"],
        thresholds={"hit_rate": context.params["hit_rate"], "accuracy_gain": context.params["accuracy_gain"]},
        hit_rate_source=context.params["hit_rate_source"],
        search=context.params["search"],
        name=context.name,
        check=context.check,
    )
    return context.judged(found, f"look at the reasons; {context.namespace} stays as it is")


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "benchmark": {"type": "path"},
        "hit_rate": {"type": "float", "default": 0.8},
        "accuracy_gain": {"type": "float", "default": 0.3},
        "hit_rate_source": HIT_RATE_SOURCE,
        "search": SEARCH,
    }
    execute(operate, options)
