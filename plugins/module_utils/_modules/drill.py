# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module drill does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.drill import drill
from .._operations.drill_application import keys_in


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    if context.check:
        return {"changed": False, "verdict": "could-not-verify", "reasons": ["check mode: nothing was restored"]}
    found = drill(
        repository=context.repository(),
        keyring_params=context.params["keyring"],
        name=context.name,
        snapshot_id=params["snapshot"],
        namespaces=params["namespaces"],
        benchmark=params["benchmark"],
        accuracy=params["accuracy"],
        rotation=params["rotation"],
        rto=params["rto"],
        scratch=params["scratch"],
        owner=context.run.owner,
        expiry=params["restore_expiry"],
        tables=context.store_params.get("tables"),
        application=keys_in(context.store_params),
    )
    return context.judged(found, "look at the reasons; no restore is proven until a drill passes")


def main() -> None:
    options = {
        "snapshot": {"type": "str"},
        "namespaces": {"type": "list", "elements": "str"},
        "benchmark": {"type": "path"},
        "accuracy": {"type": "float", "default": 0.8},
        "restore_expiry": {"type": "str", "choices": ["keep", "rebase"], "default": "keep"},
        "rotation": {"type": "bool", "default": True},
        "rto": {"type": "float"},
        "scratch": {"type": "path"},
    }
    execute(operate, options, repository=True, keyring=True)
