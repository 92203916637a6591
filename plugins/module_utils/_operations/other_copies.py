# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a snapshot that another copy of this store took tells of this store's past.

PRIVATE to the collection. A copy that was restored elsewhere goes on by itself, with the same lineage and the same
numbers. Saved to the same place it would be taken for the newest state of this store. What a copy tells is believed
where this store was filled from it, or where what was written there last came home, by a failback.
"""

from __future__ import annotations

import typing as t

from .._model import StoreIdentity
from .._repository import SnapshotInfo
from .._store import Store
from .restore_work import PREFIX as RESTORE


class OtherCopies:
    """For one namespace of ``store``."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store, self._namespace = store, namespace
        self._identity = store.identity()
        with store.reader() as reader:
            state = reader.namespace(namespace)
        restores = [one.opened for one in store.incidents(namespace) if one.incident.startswith(RESTORE)]
        self._filled_at = max([state.restored_at or 0, *restores])
        self._filled = (state.restored_epoch or 0, state.restored_sequence or 0)

    def strange(self, snapshot: t.Any) -> str | None:
        """Why ``snapshot`` is no source; None: it is of this store, or of its past. Errors: SnapshotUnusable."""
        mine, theirs = self._identity.store_id, snapshot.info.store_id
        if not mine or not theirs or theirs == mine or self._before_filling(snapshot.info):
            return None
        # a failback raises the epoch first
        here = snapshot.info.epoch <= self._identity.epoch and "log" in self._store.capabilities()
        if here and self._came_home(snapshot):
            return None
        return "another copy of this store took it, and what was written there has not come home"

    def _before_filling(self, info: t.Any) -> bool:
        if "sequence" in self._store.capabilities():
            return bool((info.epoch, info.sequence) <= self._filled)
        return bool(info.at <= self._filled_at)

    def _came_home(self, snapshot: t.Any) -> bool:
        """Whether our log has the newest write of its log."""
        newest: t.Any = None
        for entries in snapshot.log(self._namespace):
            for entry in entries:
                known = isinstance(entry[5], int) and isinstance(entry[6], int)
                if entry[3] in ("write", "delete") and known and (newest is None or newest[:2] < entry[5:7]):
                    newest = (*entry[5:7], entry[4], entry[7])
        if newest is None:
            return False
        with self._store.reader() as reader:
            return any(
                (*entry[5:7], entry[4], entry[7]) == newest
                for entries in reader.log(self._namespace, operations=("write", "delete"))
                for entry in entries
            )


def beside(purpose: str, identity: StoreIdentity, snapshots: t.Sequence[SnapshotInfo]) -> tuple[list[str], list[str]]:
    """(why the next snapshot of this store needs somebody's word, what to warn of), where those before it are of
    another copy. ``purpose``: its own; ``snapshots``: all that there are.

    One that never was saved here may have taken that one's place. It has not where that one is saved again since.
    """
    last = max((info for info in snapshots if info.good), key=lambda info: info.order[2], default=None)
    if purpose not in ("scheduled", "baseline") or last is None or identity.epoch > last.epoch:
        return [], []
    if last.store_id in ("", identity.store_id):
        return [], []
    own = [info.order[2] for info in snapshots if info.store_id == identity.store_id]
    theirs = [info.order[2] for info in snapshots if info.store_id == last.store_id]
    mend = "use another memory_cluster name or another prefix for this one"
    if not own:
        return [], [f"The snapshots here are of another copy of this store ({last.id}). If that one goes on, {mend}."]
    if min(theirs) < min(own) < max(theirs):
        return [f"this store is a copy of one that goes on being saved here ({last.id}): {mend}"], []
    return [], []
