# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module monitor does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import HIT_RATE_SOURCE, SEARCH, Context, execute
from .._operations.commands import run
from .._operations.monitor_step import watch


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    repository, warnings = context.repository_or_none()
    found = watch(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        keyring=context.keyring(),
        repository=repository,
        run=context.run,
        seconds=params["seconds"],
        interval=params["interval"],
        hit_rate=params["hit_rate"],
        logs=params["logs"],
        again=params["again"],
        part=params["part"],
        hit_rate_source=params["hit_rate_source"],
        benchmark=params["benchmark"],
        search=params["search"],
        name=context.name,
        check=context.check,
    )
    if found.get("watching"):
        return found
    found["warnings"] = [*found.get("warnings", []), *warnings]
    name = context.namespace
    again = "once it is read, watch again: " + run("monitor", memory_namespace=name, memory_again="true")
    if found.get("watch_seconds"):
        longer = str(found["watch_seconds"])
        command = run("monitor", memory_namespace=name, memory_again="true", memory_monitor_seconds=longer)
        again = f"watch again from now, for as long as gives them: {command}"
    failed = run("rebuild", memory_namespace=name)
    return context.judged(found, failed if found["verdict"] == "fail" else again)


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "seconds": {"type": "float", "default": 900.0},
        "interval": {"type": "float", "default": 15.0},
        "hit_rate": {"type": "float", "default": 0.8},
        "logs": {"type": "list", "elements": "raw", "default": []},
        "benchmark": {"type": "path"},
        "again": {"type": "bool", "default": False},
        "part": {"type": "float"},
        "hit_rate_source": HIT_RATE_SOURCE,
        "search": SEARCH,
    }
    execute(operate, options)
