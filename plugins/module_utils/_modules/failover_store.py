# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module failover_store does.

PRIVATE to the collection.
"""

from __future__ import annotations

import functools
import typing as t

from .._ansible import OTHER, Context, execute, given
from .._operations.cluster_keys import opened
from .._operations.copy_check import verify
from .._operations.failover_checks import Wish
from .._operations.failover_store import fail_over
from .._operations.replicas import Side


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    names = ("kind", "namespaces", "rpo", "catch_up", "min_interval", "force", "outside_fence")
    open_keyring = functools.partial(opened, context.keyring, context.repository, context.name, context.check)
    with Side(context.store_params) as new, Side(given(params["primary"])) as old:
        if params["state"] == "verified":
            return verify(
                new,
                params["namespaces"],
                open_keyring,
                fresh=params["rpo"] / 3,
                work_dir=context.run.work_dir,
                check=context.check,
            )
        wish = Wish(**{name: params[name] for name in names if params[name] is not None})
        return fail_over(
            old=old, new=new, wish=wish, open_keyring=open_keyring, run=context.run, check=context.check
        )


def main() -> None:
    options = {
        "primary": OTHER,
        "state": {"type": "str", "default": "promoted", "choices": ["promoted", "verified"]},
        "kind": {"type": "str", "default": "failover", "choices": ["failover", "failback"]},
        "namespaces": {"type": "list", "elements": "str"},
        "rpo": {"type": "float", "default": 900.0},
        "catch_up": {"type": "float", "default": 30.0},
        "min_interval": {"type": "float", "default": 600.0},
        "force": {"type": "bool", "default": False},
        "outside_fence": {"type": "str"},
    }
    execute(operate, options)
