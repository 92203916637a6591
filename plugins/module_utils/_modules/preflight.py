# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module preflight does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import SEARCH, WINDOW, Context, execute, window
from .._inputs import moment
from .._operations.preflight import preflight
from .._search import search_of


def operate(context: Context) -> dict[str, t.Any]:
    for word in ("onset", "since", "until"):  # a time that is none shall be told before anything is fenced
        given = str(context.params[word] or "")
        moment(None if not given or given.isdigit() else given)
    return preflight(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        open_keyring=context.keyring,
        open_repository=context.repository,
        name=context.name,
        strategy=context.params["strategy"],
        benchmark=context.params["benchmark"],
        search=search_of(context.params["search"]),
        recent=context.params["recent"],
        force=context.params["force"],
        onset=context.params["onset"],
        window=window(context.params),
        absent=context.params["absent"],
    )


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        "strategy": {"type": "str", "default": "auto", "choices": ["auto", "soft", "hard", "rotate"]},
        "benchmark": {"type": "path"},
        "search": SEARCH,
        "recent": {"type": "float", "default": 3600.0},
        "force": {"type": "bool", "default": False},
        "onset": {"type": "str"},
        **WINDOW,
        "absent": {"type": "str", "default": "auto", "choices": ["auto", "keep", "restore"]},
    }
    execute(operate, options)
