# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module promote does.

PRIVATE to the collection.
"""

from __future__ import annotations

import functools
import typing as t

from .._ansible import Context, execute
from .._operations.cluster_keys import opened
from .._operations.failover_step import take_over


def operate(context: Context) -> dict[str, t.Any]:
    return take_over(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        open_keyring=functools.partial(opened, context.keyring, context.repository, context.name, context.check),
        run=context.run,
        state=context.params["state"],
        above_epoch=context.params["above_epoch"],
        needed_at=context.params["needed_at"],
        rpo=context.params["rpo"],
        check=context.check,
    )


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "state": {"type": "str", "required": True, "choices": ["serving", "reading", "standby"]},
        "above_epoch": {"type": "int", "default": 0},
        "needed_at": {"type": "str"},
        "rpo": {"type": "float", "default": 900.0},
    }
    execute(operate, options)
