# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_info does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._inputs import moment, rfc3339
from .._operations.holds import marked
from .._operations.snapshot_info import Search, snapshots
from .._repository.manifest import PURPOSES

VERDICTS = ("pass", "fail", "could-not-verify", "unverified")


def operate(context: Context) -> dict[str, t.Any]:
    keyring = context.keyring() if context.has_keyring else None
    params = context.params

    def when(name: str) -> int | None:
        return moment(params[name]) if params[name] else None

    search = Search(
        namespace=params["namespace"],
        since=when("since"),
        until=when("until"),
        purposes=frozenset(params["purposes"] or ()),
        verdict=params["verdict"],
        last_good_before=when("last_good_before"),
    )
    repository = context.repository()
    removed = [{"snapshot": one, "at": rfc3339(int(at * 1e6))} for one, at in marked(repository, context.name)]
    return {"snapshots": snapshots(repository, context.name, keyring, search), "removed": removed}


def main() -> None:
    options = {
        "namespace": {"type": "str"},
        "since": {"type": "str"},
        "until": {"type": "str"},
        "purposes": {"type": "list", "elements": "str", "choices": list(PURPOSES)},
        "verdict": {"type": "str", "choices": list(VERDICTS)},
        "last_good_before": {"type": "str"},
    }
    execute(operate, options)
