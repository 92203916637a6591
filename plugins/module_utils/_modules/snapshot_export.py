# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_export does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.export import export


def operate(context: Context) -> dict[str, t.Any]:
    return export(
        repository=context.repository(),
        keyring=context.keyring(),
        name=context.name,
        directory=context.params["dest"],
        snapshot_id=context.params["snapshot"],
        namespaces=context.params["namespaces"],
        check=context.check,
    )


def main() -> None:
    options = {
        "snapshot": {"type": "str"},
        "dest": {"type": "path", "required": True},
        "namespaces": {"type": "list", "elements": "str"},
    }
    execute(operate, options)
