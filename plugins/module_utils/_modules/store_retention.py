# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module store_retention does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations import incident_retention, log_retention, tombstone_retention


def operate(context: Context) -> dict[str, t.Any]:
    common: dict[str, t.Any] = {
        "store": context.store,
        "store_params": context.store_params,
        "repository": context.made_repository(),
        "keyring": context.keyring(),
        "name": context.name,
        "check": context.check,
    }
    where = {**common, "work_dir": context.params["work_dir"]}
    logged = log_retention.apply(
        **where, keep_reads=context.params["keep_reads"], keep_writes=context.params["keep_writes"]
    )
    buried = tombstone_retention.apply(**where, keep_tombstones=context.params["keep_tombstones"])
    left = incident_retention.apply(**common, keep=context.params["keep_incidents"], run=context.run)
    before = {
        "old entries of reads": logged["reads"],
        "old entries of writes": logged["writes"],
        "old tombstones": buried["tombstones"],
        "old incidents": len(left["incidents"]),
        "rows set aside in them": left["set_aside"],
    }
    return {
        **logged,
        **buried,
        **left,
        "changed": logged["changed"] or buried["changed"] or left["changed"],
        "reason": "; ".join(dict.fromkeys(filter(None, (logged["reason"], buried["reason"])))),
        "diff": diff(before, dict.fromkeys(before, 0), context.name),
    }


def main() -> None:
    execute(operate, {f"keep_{what}": {"type": "float"} for what in ("reads", "writes", "tombstones", "incidents")})
