# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a restore must not touch: another store's memories, and a secondary's writes that are not home yet.

PRIVATE to the collection.
"""
from __future__ import annotations

from .._errors import CannotProceed, RepositoryRefused
from .._model import NamespaceState
from .._repository import Repository, Snapshot
from .._store import Store
from .commands import accept
from .commands import run as command
from .incident import promoted_epoch


def same_layout(store: Store, snapshot: Snapshot) -> None:
    """Errors: RepositoryRefused when the snapshot's records are of another kind than the store's."""
    made, layout = snapshot.manifest["store"]["layout"], store.identity().layout
    if made != layout:
        raise RepositoryRefused(
            f"Snapshot {snapshot.id} holds records of the layout {made}, and this store has the layout {layout}.",
            "name the store that the snapshot was taken of, or the snapshot of this store",
        )


def same_lineage(store: Store, snapshot: Snapshot, check: bool) -> None:
    """An empty store takes the snapshot's lineage; another store's snapshot is refused. Errors: RepositoryRefused."""
    lineage, identity = snapshot.info.lineage, store.identity()
    if lineage == identity.lineage:
        return
    refused = RepositoryRefused(
        f"Snapshot {snapshot.id} is of another store: its lineage is {lineage}, this store's is {identity.lineage}.",
        "restore into an empty store, or correct memory_cluster or memory_repository",
    )
    if not check:
        try:
            store.adopt_lineage(lineage)
        except RepositoryRefused:
            raise refused from None
    elif identity.sequence:
        raise refused


def no_secondary_overwritten(
    store: Store | None, state: NamespaceState, snapshot: Snapshot, repository: Repository
) -> None:
    """A copy that serves, or whose writes the home has not taken yet, is not refilled. Errors: CannotProceed."""
    served = promoted_epoch(store, state.name) if store is not None else None
    if served is not None and served >= snapshot.info.epoch:  # a failback raises the home's epoch above it
        following = f"bring it home, then back it up: {command('failback', memory_namespace=state.name)}"
        for newer in repository.snapshots(snapshot.name):
            if newer.suspect and not newer.accepted and newer.epoch > served:
                following = f"look at snapshot {newer.id}, which is newer and suspect; if right: {accept(newer.id)}"
        raise CannotProceed(
            f"Namespace {state.name!r:.80} served here since snapshot {snapshot.id} was taken at its home; "
            "refilling it would take its writes away.",
            following,
        )
    if state.state != "standby":
        what = "it serves read-only" if state.state == "reading" else f"it is {state.state}"
        raise CannotProceed(
            f"Namespace {state.name!r:.80} is no standby copy in this store: {what}.",
            "fail back first, or check which host is the secondary",
        )
