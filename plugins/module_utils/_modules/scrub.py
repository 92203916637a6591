# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module scrub does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.commands import run
from .._operations.scrub import scrub


def operate(context: Context) -> dict[str, t.Any]:
    found = scrub(
        store=context.store,
        store_params=context.store_params,
        keyring=context.keyring() if context.has_keyring else None,
        repository=context.repository() if context.has_repository else None,
        name=context.name,
        namespaces=context.params["namespaces"],
        seconds=context.params["seconds"],
        depth=context.params["depth"],
        work_dir=context.params["work_dir"],
        check=context.check,
    )
    bad = [one["name"] for one in found["checked"] if one["kind"] == "namespace" and one["verdict"] == "fail"]
    follow = "take a new backup, and restore from another snapshot than the failed one"
    if bad:
        follow = run("rebuild", memory_namespace=bad[0])
    return context.judged({**found, "changed": False}, follow)


def main() -> None:
    options = {
        "namespaces": {"type": "list", "elements": "str"},
        "seconds": {"type": "float", "default": 600.0},
        "depth": {"type": "str", "default": "opened", "choices": ["hashed", "opened", "restored"]},
    }
    execute(operate, options)
