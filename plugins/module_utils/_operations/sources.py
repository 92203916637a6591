# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Choose the snapshots that a rebuild may take copies from.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import KeyUnavailable, SnapshotUnusable

MAX_SOURCES = 8
PURPOSES = ("scheduled", "baseline")


class Sources:
    """The good snapshots of a namespace, newest first, and why others were passed over."""

    def __init__(self, snapshots: list[t.Any], passed_over: list[str]) -> None:
        self.snapshots = snapshots
        self.passed_over = passed_over

    def by_id(self) -> dict[str, t.Any]:
        return {snapshot.id: snapshot for snapshot in self.snapshots}

    def drop(self, snapshot_id: str, why: str) -> None:
        self.snapshots = [s for s in self.snapshots if s.id != snapshot_id]
        self.passed_over.append(f"{snapshot_id}: {why}")


def choose(
    repository: t.Any,
    name: str,
    keyring: t.Any,
    namespace: str,
    *,
    only: t.Sequence[str] = (),
    limit: int = MAX_SOURCES,
) -> Sources:
    """Good snapshots that hold ``namespace``; with ``only``, exactly these ids, whatever their purpose.

    Evidence of a damaged state (forensic), suspect snapshots and those that do not authenticate are never sources.
    """
    chosen: list[t.Any] = []
    passed_over: list[str] = []
    for info in repository.snapshots(name, keyring):
        if only and info.id not in only:
            continue
        if not only and info.purpose not in PURPOSES:
            continue
        if len(chosen) >= limit:
            break
        try:
            snapshot = repository.snapshot(name, info.id, keyring)
            if not snapshot.good and not only:
                passed_over.append(f"{info.id}: it is not good (suspect, damaged or not point-in-time)")
            elif namespace in snapshot.namespaces():
                chosen.append(snapshot)
        except (SnapshotUnusable, KeyUnavailable) as exc:
            passed_over.append(f"{info.id}: {exc.message}")
    return Sources(chosen, passed_over)


def bring_keys(sources: Sources, keyring: t.Any, *, check: bool) -> list[str]:
    """Record keys that the keyring lost and a snapshot still has come back; their ids. In check mode only in memory."""
    back: list[str] = []
    for snapshot in sources.snapshots:
        wrapped = snapshot.wrapped_keys()
        back += keyring.borrow(wrapped) if check else keyring.adopt(wrapped)
    return back
