# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module failback does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.failover_step import come_home


def operate(context: Context) -> dict[str, t.Any]:
    return come_home(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        open_keyring=context.keyring,
        open_repository=context.repository,
        name=context.name,
        snapshot=context.params["snapshot"],
        since_epoch=context.params["since_epoch"],
        run=context.run,
        accept_loss=context.params["accept_loss"],
        log_intact=context.params["log_intact"],
        check=context.check,
    )


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "snapshot": {"type": "str"},
        "since_epoch": {"type": "int", "required": True},
        "accept_loss": {"type": "bool", "default": False},
        "log_intact": {"type": "bool", "default": True},
    }
    execute(operate, options)
