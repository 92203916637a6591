# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own access log as evidence of a diagnosis: errors that it tells of, and bursts of writes.

PRIVATE to the collection. Nobody vouches for such a log: it decides about no record.
"""

from __future__ import annotations

import typing as t

from .._store import Store
from .._store_own import Entry, HasOwnLog
from .access_log_review import BULK_WRITES
from .error_lines import kind_of, mask
from .incident import rfc3339

MOST_OPERATIONS = 20  # kinds that are counted by name
CHANGES = frozenset(("write", "delete"))


class _Found:
    def __init__(self) -> None:
        self.entries = 0
        self.operations: dict[str, int] = {}
        self.errors: dict[str, dict[str, t.Any]] = {}
        self._second: tuple[int, int] = (0, 0)  # the second under way, its changes
        self.burst: tuple[int, int] = (0, 0)  # the second with the most

    def take(self, items: list[Entry]) -> None:
        for operation, at, line in items:
            self.entries += 1
            if operation is not None and (operation in self.operations or len(self.operations) < MOST_OPERATIONS):
                self.operations[operation] = self.operations.get(operation, 0) + 1
            if operation in CHANGES and at is not None:
                number = self._second[1] + 1 if int(at) == self._second[0] else 1
                self._second = int(at), number
                if number > self.burst[1]:
                    self.burst = self._second
            kind = kind_of(line)
            if kind is not None:
                self._error(kind, at, line)

    def _error(self, kind: str, at: float | None, line: str) -> None:
        one = self.errors.setdefault(
            kind, {"kind": kind, "count": 0, "first": None, "last": None, "sample": mask(line),
                   "what": "entries of the application's own log"},
        )  # fmt: skip
        one["count"] += 1
        if at is not None:
            when = rfc3339(int(at * 1e6))
            one["first"], one["last"] = one["first"] or when, when


def read(store: Store, namespace: str) -> dict[str, t.Any] | None:
    """{entries, operations {name: n}, errors [as error_lines.scan], doubts [sentences]}; None where there is none."""
    if not isinstance(store, HasOwnLog):
        return None
    found = _Found()
    why = store.own_log(namespace, found.take)
    doubts = [] if why is None else [f"the application's own access log was not read to its end: {why}"]
    second, most = found.burst
    if most >= BULK_WRITES:
        doubts.append(
            f"the application's own access log has {most} writes and deletions within one second, "
            f"{rfc3339(second * 1_000_000)}"
        )
    return {
        "entries": found.entries, "operations": found.operations, "errors": list(found.errors.values()),
        "doubts": doubts,
    }  # fmt: skip
