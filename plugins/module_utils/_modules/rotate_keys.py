# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module rotate_keys does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.rotate import rotate


def operate(context: Context) -> dict[str, t.Any]:
    run = context.run
    return rotate(
        store_params=context.store_params,
        keyring=context.keyring(),
        namespace=context.params["namespaces"],
        attempt=run.attempt,
        owner=run.owner,
        incident=run.incident,
        takeover=run.takeover,
        min_age=context.params["min_age"],
        force=context.params["force"],
        retire=context.params["retire"],
        check=context.check,
    )


def main() -> None:
    options = {
        "namespaces": {"type": "list", "elements": "str"},
        "min_age": {"type": "float", "default": 3600.0},
        "force": {"type": "bool", "default": False},
        "retire": {"type": "bool", "default": False},
    }
    execute(operate, options)
