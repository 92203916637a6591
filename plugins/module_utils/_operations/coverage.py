# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which snapshots hold everything: the baseline of an incident holds one namespace, and says nothing of the others.

PRIVATE to the collection. Of a repository alone: what a store holds that was never saved cannot be told here.
"""

from __future__ import annotations

import typing as t

from .sources import PURPOSES

RECENT = 5  # scheduled snapshots that say what there is: one that was taken of a part by hand does not decide it


def namespaces_of(good: t.Sequence[t.Any]) -> set[str]:
    """Every namespace of the newest scheduled snapshots, and of what came since; of all where none was scheduled.

    ``good``: the good snapshots (SnapshotInfo), newest first.
    """
    found: set[str] = set()
    scheduled = 0
    for info in good:
        found |= set(info.namespaces)
        scheduled += info.purpose == "scheduled"
        if scheduled == RECENT:
            break
    return found


def newest_of_each(good: t.Sequence[t.Any], names: t.Iterable[str]) -> dict[str, t.Any]:
    """Of each of these namespaces the newest good snapshot; without those that none holds."""
    found = {name: next((info for info in good if name in info.namespaces), None) for name in names}
    return {name: info for name, info in found.items() if info is not None}


def to_compare(good: t.Sequence[t.Any]) -> dict[str, t.Any]:
    """Of each namespace the newest good snapshot that tells how it was at its home: a baseline of one namespace says
    nothing of the others, and what came home from a secondary may be of long before. Back to the last scheduled one,
    so that nothing is missed that was gone then already and accepted."""
    found: dict[str, t.Any] = {}
    for info in good:
        if info.purpose in PURPOSES:
            for namespace in info.namespaces:
                found.setdefault(namespace, info)
            if info.purpose == "scheduled":
                break
    return found


def fullest(good: t.Sequence[t.Any], wanted: t.Collection[str] | None = None) -> list[t.Any]:
    """The snapshots to restore everything (or these) from, the best first: those that hold most of it, the newest."""
    names = namespaces_of(good) if wanted is None else set(wanted)
    usual = [info for info in good if info.purpose in PURPOSES] or list(good)
    return sorted(usual, key=lambda info: len(names - set(info.namespaces)))


def good_of(repository: t.Any, name: str) -> list[t.Any]:
    """The good snapshots of a cluster, newest first; not authenticated."""
    return [info for info in repository.snapshots(name) if info.good and not info.problem]


def newest_whole(
    repository: t.Any, name: str, keyring: t.Any, wanted: t.Collection[str] | None = None
) -> t.Any:
    """The newest good snapshot that holds every namespace (or these) and authenticates.

    Errors: SnapshotUnusable, KeyUnavailable.
    """
    return repository.newest_good(name, keyring, among=fullest(good_of(repository, name), wanted))


def oldest_saved(good: t.Sequence[t.Any], present: t.Collection[str] | None = None) -> tuple[str, t.Any] | None:
    """(namespace, snapshot) of the namespace whose newest good snapshot is the oldest; None: there is none.

    ``present``: the store's namespaces, where it was asked; of others nobody needs a newer snapshot.
    """
    names = namespaces_of(good)
    each = newest_of_each(good, names if present is None else names & set(present) or names)
    return min(each.items(), key=lambda one: (one[1].at, one[0]), default=None)
