# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module store_retention does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._errors import RepositoryMissing
from .._operations import incident_retention, log_retention


def operate(context: Context) -> dict[str, t.Any]:
    try:
        repository = context.repository()
    except RepositoryMissing:
        if not context.check:
            raise
        repository = None  # the backup that makes it was only rehearsed
    keyring = context.keyring()
    found = log_retention.apply(
        store=context.store,
        store_params=context.store_params,
        repository=repository,
        keyring=keyring,
        name=context.name,
        keep_reads=context.params["keep_reads"],
        keep_writes=context.params["keep_writes"],
        work_dir=context.params["work_dir"],
        check=context.check,
    )
    left = incident_retention.apply(
        store=context.store,
        store_params=context.store_params,
        repository=repository,
        keyring=keyring,
        name=context.name,
        keep=context.params["keep_incidents"],
        run=context.run,
        check=context.check,
    )
    before = {
        "old entries of reads": found["reads"],
        "old entries of writes": found["writes"],
        "old incidents": len(left["incidents"]),
        "rows set aside in them": left["set_aside"],
    }
    changed = found["changed"] or left["changed"]
    return {**found, **left, "changed": changed, "diff": diff(before, dict.fromkeys(before, 0), context.name)}


def main() -> None:
    execute(operate, {name: {"type": "float"} for name in ("keep_reads", "keep_writes", "keep_incidents")})
