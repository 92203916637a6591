# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module metrics does.

PRIVATE to the collection.
"""

from __future__ import annotations

import socket
import typing as t

from .._ansible import Context, execute
from .._metrics import send, write_textfile
from .._operations.collect_metrics import gather


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    gathered = gather(
        store_params=context.store_params,
        cluster=context.name,
        host=params["memory_host"] or socket.gethostname(),
        open_keyring=context.keyring if context.has_keyring else None,
        open_repository=context.repository if context.has_repository else None,
        window=params["window"],
        scan=params["scan"],
        work_dir=params["work_dir"],
    )
    changed = False
    if params["textfile"] and not context.check:
        changed = write_textfile(params["textfile"], gathered.samples)
    if params["otlp_endpoint"] and not context.check:
        send(params["otlp_endpoint"], gathered.samples)
    return {
        "changed": changed,
        "metrics": [sample._asdict() for sample in gathered.samples],
        "warnings": gathered.warnings,
    }


def main() -> None:
    options = {
        "memory_host": {"type": "str"},
        "textfile": {"type": "path"},
        "otlp_endpoint": {"type": "str"},
        "window": {"type": "float", "default": 900.0},
        "scan": {"type": "bool", "default": True},
    }
    execute(operate, options)
