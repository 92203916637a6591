# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module store_retention does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._errors import RepositoryMissing
from .._operations.log_retention import apply


def operate(context: Context) -> dict[str, t.Any]:
    try:
        repository = context.repository()
    except RepositoryMissing:
        if not context.check:
            raise
        repository = None  # the backup that makes it was only rehearsed
    found = apply(
        store=context.store,
        store_params=context.store_params,
        repository=repository,
        keyring=context.keyring(),
        name=context.name,
        keep_reads=context.params["keep_reads"],
        keep_writes=context.params["keep_writes"],
        work_dir=context.params["work_dir"],
        check=context.check,
    )
    before = {"old entries of reads": found["reads"], "old entries of writes": found["writes"]}
    return {**found, "diff": diff(before, dict.fromkeys(before, 0), context.name)}


def main() -> None:
    execute(operate, {"keep_reads": {"type": "float"}, "keep_writes": {"type": "float"}})
