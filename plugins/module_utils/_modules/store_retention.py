# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module store_retention does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations import incident_retention, log_retention, retention_clock, spool_retention, tombstone_retention


def operate(context: Context) -> dict[str, t.Any]:
    repository = context.made_repository()
    work_dir = context.params["work_dir"]
    now, doubt = retention_clock.moment(repository, context.store_params, context.name, work_dir, context.check)
    common: dict[str, t.Any] = {
        "store": context.store,
        "store_params": context.store_params,
        "repository": repository,
        "keyring": context.keyring(),
        "name": context.name,
        "now": now,
        "check": context.check,
    }
    where = {**common, "work_dir": work_dir}
    logged = log_retention.apply(
        **where, keep_reads=context.params["keep_reads"], keep_writes=context.params["keep_writes"]
    )
    buried = tombstone_retention.apply(**where, keep_tombstones=context.params["keep_tombstones"])
    left = incident_retention.apply(**common, keep=context.params["keep_incidents"], run=context.run)
    waiting = spool_retention.apply(**where, spool=context.params["spool"], keep=context.params["keep_incidents"])
    before = {
        "old entries of reads": logged["reads"],
        "old entries of writes": logged["writes"],
        "old tombstones": buried["tombstones"],
        "old incidents": len(left["incidents"]),
        "rows set aside in them": left["set_aside"],
        "forensic snapshots in the spool": len(waiting["spooled"]),
    }
    return {
        **logged,
        **buried,
        **left,
        **waiting,
        "changed": any(one["changed"] for one in (logged, buried, left, waiting)),
        "reason": "; ".join(dict.fromkeys(filter(None, (doubt, logged["reason"], buried["reason"])))),
        "diff": diff(before, dict.fromkeys(before, 0), context.name),
    }


def main() -> None:
    kept = {f"keep_{what}": {"type": "float"} for what in ("reads", "writes", "tombstones", "incidents")}
    execute(operate, {**kept, "spool": {"type": "path"}})
