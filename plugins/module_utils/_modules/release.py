# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module release does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import RECORDS, Context, diff, execute
from .._operations.failover_step import routed_away
from .._operations.isolate import release
from .._operations.isolate_choice import choose
from .._operations.release_records import release_records
from .._operations.routing import noted_away


def operate(context: Context) -> dict[str, t.Any]:
    choice = choose(**{name: context.params[name] for name in RECORDS})
    result = {} if choice else whole(context)
    if choice or context.params["isolated"]:
        records = release_records(
            store=context.store,
            store_params=context.store_params,
            namespace=context.namespace,
            choice=choice,
            run=context.run,
            check=context.check,
        )
        records["lifted"] = bool(result.get("changed"))
        records["changed"] = bool(records["changed"] or result.get("changed"))
        records["incident"] = result.get("incident") or records["incident"]
        for name in ("before", "after"):
            records[name] = {**result.get(name, {}), **records[name]}
        records["warnings"] = result.get("warnings", []) + records["warnings"]
        if records["lifted"] and not records["released"] and not records["conflicts"]:
            del records["detail"]  # that the quarantine was lifted is what happened
        result.update(records)
    result["diff"] = diff(result.pop("before"), result.pop("after"), context.namespace)
    return result


def whole(context: Context) -> dict[str, t.Any]:
    return release(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        force=context.params["force"],
        route_away=context.params["routed_away"]
        or routed_away(context.params["route"], context.namespace, context.store_params)
        or noted_away(context.store, context.namespace, context.run.incident),
        check=context.check,
    )


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "force": {"type": "bool", "default": False},
        "route": {"type": "path"},
        "routed_away": {"type": "bool", "default": False},
        "isolated": {"type": "bool", "default": True},
        **RECORDS,
    }
    execute(operate, options)
