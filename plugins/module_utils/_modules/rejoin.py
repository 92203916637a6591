# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module rejoin does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import OTHER, Context, execute, given
from .._operations import snapshot
from .._operations.rejoin_store import rejoin
from .._operations.replicas import Side


def operate(context: Context) -> dict[str, t.Any]:
    def forensic(incident: str) -> str | None:
        if not (context.has_repository and context.has_keyring):
            return None
        published = snapshot.create(
            store_params=context.store_params,
            repository=context.repository_params(),
            keyring=context.keyring(),
            name=context.name,
            purpose="forensic",
            namespaces=None,
            incident=incident,
        )
        return str(published["snapshot"])

    with Side(context.store_params) as old, Side(given(context.params["primary"])) as main_side:
        return rejoin(
            old=old,
            main=main_side,
            forensic=forensic,
            run=context.run,
            accept_loss=context.params["accept_loss"],
            timeout=context.params["timeout"],
            check=context.check,
        )


def main() -> None:
    options = {
        "primary": OTHER,
        "accept_loss": {"type": "bool", "default": False},
        "timeout": {"type": "float", "default": 300.0},
    }
    execute(operate, options)
