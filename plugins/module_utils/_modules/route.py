# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module route does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations.routing import move_route

ROUTE: dict[str, t.Any] = {
    "kind": {"type": "str", "default": "file", "choices": ["file", "haproxy", "route53", "tasks", "none"]},
    "path": {"type": "path"},
    "default": {"type": "dict"},
    "sockets": {"type": "list", "elements": "str"},
    "backend": {"type": "str"},
    "map": {"type": "path"},
    "key": {"type": "str", "no_log": False},
    "servers": {"type": "dict"},
    "zone_id": {"type": "str"},
    "record": {"type": "str"},
    "type": {"type": "str", "default": "CNAME", "choices": ["CNAME", "A", "AAAA"]},
    "values": {"type": "dict"},
    "ttl": {"type": "int", "default": 30},
    "timeout": {"type": "float"},
    "retries": {"type": "int", "default": 5},
    "endpoint_url": {"type": "str"},
    "region": {"type": "str", "default": "us-east-1"},
    "profile": {"type": "str"},
    "tasks": {"type": "str"},
    "check": {"type": "str"},
}


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    moved = move_route(
        params=params["route"],
        namespace="" if params["former"] and not params["namespace"] else context.namespace,
        home=params["home"],
        to=params["to"],
        target=params["target"],
        along=params["along"],
        begin=params["begin"],
        former=params["former"],
        open_store=lambda: context.store,
        run=context.run,
        check=context.check,
    )
    return {**moved, "diff": diff(moved["before"] or {}, moved["after"] or {}, moved["route"])}


def main() -> None:
    options = {
        "namespace": {"type": "str"},
        "route": {"type": "dict", "required": True, "options": ROUTE},
        "home": {"type": "str"},
        "to": {"type": "str"},
        "target": {"type": "dict"},
        "former": {"type": "dict"},
        "along": {"type": "list", "elements": "str", "default": []},
        "begin": {"type": "bool", "default": False},
    }
    execute(operate, options, store=False, required_one_of=[["namespace", "former"]])
