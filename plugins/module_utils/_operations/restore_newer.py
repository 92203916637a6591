# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What applications wrote since a snapshot, and a restore of all of it would take out of service.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed, StoreDamaged
from .._repository import Snapshot
from .._store import Store
from .commands import counted, run
from .restore_records import RESERVED
from .restore_work import state_of


def keep_newer(
    store: Store, snapshot: Snapshot, namespaces: t.Iterable[str], what: str = "Nothing is restored"
) -> None:
    """Errors: CannotProceed when one of these serves what was written after the snapshot, or nobody can tell.

    ``what`` was not done, for the sentence: others may have been restored before one of several is refused.
    """
    found: dict[str, str] = {}
    for namespace in namespaces:
        state = state_of(store, namespace)
        if state is None or state.state not in ("serving", "reading"):
            continue
        with contextlib.suppress(StoreDamaged):
            newer = _newer(store, snapshot, namespace)
            if newer:
                found[namespace] = counted(newer, "record")
            continue
        found[namespace] = "an unknown number of records, since it cannot be read to its end"
    if not found:
        return
    first = next(iter(found))
    gone = run("restore", memory_namespace=first, memory_snapshot=snapshot.id, memory_pattern="*")
    several = f" (and so for the other {len(found) - 1})" if len(found) > 1 else ""
    raise CannotProceed(
        f"{what}: what was written or deleted after snapshot {snapshot.id} would go out of service: "
        + ", ".join(f"in {name!r:.80} {what}" for name, what in list(found.items())[:5])
        + (" …" if len(found) > 5 else "."),
        f"to bring back only what is gone or damaged: {gone}{several}; to go back to the snapshot all the same, run a "
        "backup, which keeps them, and then the same command with -e memory_force=true",
    )


def _newer(store: Store, snapshot: Snapshot, namespace: str) -> int:
    """Records of after the snapshot, deletions among them. Errors: StoreDamaged."""
    identity = store.identity()
    point = (snapshot.info.epoch, snapshot.info.sequence)
    if "log" not in store.capabilities() or (identity.epoch, identity.sequence) <= point:
        return 0  # where nothing numbers the writes, an application that serves cannot be made to wait: refused later
    found = 0
    with store.reader() as reader:
        for rows in reader.scan(namespace):
            found += sum((row[1], row[2]) > point and not str(row[0]).startswith(RESERVED) for row in rows)
    return found
