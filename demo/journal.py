# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's own journal, read as evidence: what was acknowledged when, and what a read should have given."""
from __future__ import annotations

import json
import typing as t

Line = t.Dict[str, t.Any]


class Write(t.NamedTuple):
    """An acknowledged write; ``digest`` None is a deletion. Times are µs since 1970."""

    begun: int
    ended: int
    digest: str | None
    ttl: float | None


class Journal:
    """Lines in the order in which the agent wrote them. It did one thing at a time."""

    def __init__(self, lines: t.Iterable[Line]) -> None:
        self.lines = list(lines)
        self.writes: dict[tuple[str, str], list[Write]] = {}
        for line in self.lines:
            if line["operation"] != "read" and line["result"] == "ok":
                write = Write(line["begun"], line["ended"], line.get("digest"), line.get("ttl"))
                self.writes.setdefault((line["namespace"], line["key"]), []).append(write)

    @classmethod
    def read(cls, path: str) -> Journal:
        with open(path, encoding="utf-8") as file:
            return cls(json.loads(line) for line in file)

    def of(
        self, namespace: str, operation: str | None = None, since: int = 0, until: int | None = None
    ) -> t.Iterator[Line]:
        """What lies wholly between two instants."""
        for line in self.lines:
            if (
                line["namespace"] == namespace
                and operation in (None, line["operation"])
                and line["begun"] >= since
                and (until is None or line["ended"] <= until)
            ):
                yield line

    def newest(self, namespace: str, key: str, at: int | None = None) -> Write | None:
        """The newest acknowledged write of a key (before ``at``)."""
        writes = self.writes.get((namespace, key), [])
        return next((one for one in reversed(writes) if at is None or one.ended <= at), None)

    def verdict(self, line: Line) -> str:
        """Of a read: right | expired | missing | resurrected | stale | foreign | corrupt | error."""
        newest = self.newest(line["namespace"], line["key"], line["begun"])
        result, digest = line["result"], line.get("digest")
        expired = lapsed(newest, line["begun"], line["ended"])
        if result in ("corrupt", "error"):
            return str(result)
        if result == "miss":
            if newest is None or newest.digest is None:
                return "right"
            return "missing" if expired == "no" else "expired"
        if newest is not None and digest == newest.digest:
            return "resurrected" if expired == "yes" else "right"
        known = {one.digest for one in self.writes.get((line["namespace"], line["key"]), [])}
        if digest not in known:
            return "foreign"
        return "stale" if newest is not None and newest.digest is not None else "resurrected"


def lapsed(write: Write | None, begun: int, ended: int) -> str:
    """Whether a write had expired for something done between two instants: yes | no | perhaps."""
    if write is None or write.ttl is None:
        return "no"
    life = int(write.ttl * 1e6)
    if begun > write.ended + life:
        return "yes"
    return "no" if ended < write.begun + life else "perhaps"
