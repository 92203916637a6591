# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module diagnose does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import SEARCH, WINDOW, Context, execute, window
from .._operations.diagnose_step import investigate
from .._search import search_of


def operate(context: Context) -> dict[str, t.Any]:
    if context.check or not context.has_repository:
        repository, doubts = context.repository_or_none()
    else:  # what is kept of it prepares the plan, which would call lost what only the snapshots hold
        repository, doubts = context.repository(), []
    found = investigate(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        keyring=context.keyring(),
        repository=repository,
        name=context.name,
        run=context.run,
        logs=context.params["logs"],
        benchmark=context.params["benchmark"],
        search=search_of(context.params["search"]),
        onset=context.params["onset"],
        window=window(context.params),
        again=context.params["again"],
        check=context.check,
    )
    found["doubts"] += doubts
    return found


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "logs": {"type": "list", "elements": "raw", "default": []},
        "benchmark": {"type": "path"},
        "search": SEARCH,
        "onset": {"type": "str"},
        **WINDOW,
        "again": {"type": "bool", "default": False},
    }
    execute(operate, options)
