# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Object lock as retention wants it: what stays is locked for as long as it stays, what shall go runs out of its lock.

PRIVATE to the collection. Every lock is as long as ``object_lock_days`` when it is set, and set anew once half of it is
over. Locks are compared with the clock of this host, whatever time retention is asked for.
"""
from __future__ import annotations

import time
import typing as t

from .._inputs import rfc3339
from .._repository import IDENTITY, Repository
from .._repository.manifest import SnapshotInfo, folder

LOCKED = "locked until "


def lasting(reason: str) -> bool:
    """Whether what is kept for this reason is to be locked again: not what is only kept by its lock."""
    return not reason.startswith(LOCKED)


def locked(place: Repository, name: str, snapshot_id: str) -> str | None:
    """Why a snapshot cannot be removed for good today; None: it can."""
    locks = place.objects.locks
    if locks is None:
        return None
    until = max(locks.until([info.key for info in place.objects.list(folder(name, snapshot_id))]), default=0.0)
    return f"{LOCKED}{rfc3339(int(until * 1e6), 'seconds')}" if until > time.time() else None


def extend(place: Repository, name: str, wanted: t.Sequence[SnapshotInfo], check: bool) -> list[str]:
    """Lock again what has less than half of its time left, and at least as long what it refers to; those snapshots."""
    locks = place.objects.locks
    if locks is None:
        return []
    locks.check()
    now = time.time()
    ends = locks.until([f"{folder(name, info.id)}manifest.json" for info in wanted])  # the last that is locked
    due = [info for info, end in zip(wanted, ends) if not info.problem and end < now + locks.seconds / 2]
    ids = sorted({base for info in due for base in info.references}) + [info.id for info in due]
    if due and not check:  # first: what is interrupted after it is due again, and this with it
        locks.extend([IDENTITY], now + locks.seconds)
    for one in [] if check else dict.fromkeys(ids):
        extend_one(place, name, one, now + locks.seconds)
    return [info.id for info in due]


def extend_one(place: Repository, name: str, snapshot_id: str, until: float) -> None:
    """The manifest last: what was interrupted begins anew."""
    locks = place.objects.locks
    if locks is not None:
        keys = [info.key for info in place.objects.list(folder(name, snapshot_id))]
        last = folder(name, snapshot_id) + "manifest.json"
        locks.extend([key for key in keys if key != last], until)
        locks.extend([key for key in keys if key == last], until)
