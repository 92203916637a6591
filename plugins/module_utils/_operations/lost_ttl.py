# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How long new records live (``ttl``) stands in the control row of a namespace alone: what becomes of it where that row
was lost and made again.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import MemoryOpsError
from .._model import Claim, NamespaceState
from .._repository import SnapshotInfo
from .._store import Store
from .incident import microseconds

FACT: t.Final = "ttl_lost"


def is_lost(store: Store, state: NamespaceState) -> bool:
    """Whether the row was made again and nobody fenced the namespace since: only such a quarantine has no incident."""
    return _is_fresh(state, store.capabilities())


def _is_fresh(state: NamespaceState, capabilities: t.Collection[str]) -> bool:
    fresh = state.state == "quarantined" and state.incident is None and state.ttl is None
    return fresh and "log" in capabilities  # else applications give each record its own


def saved(state: NamespaceState, capabilities: t.Collection[str], before: SnapshotInfo | None) -> float | None:
    """What a snapshot says of it: where it is lost, what the good one before it says, so that a rebuild finds it."""
    if before is None or not _is_fresh(state, capabilities):
        return state.ttl
    return t.cast("float | None", before.namespaces[state.name]["ttl"])


def warning(namespace: str) -> str:
    return (
        f"Whether new records of {namespace} expire (its ttl) was lost with its control row. A rebuild takes it from "
        f"the newest good snapshot; without one the application sets it: Memory.set_ttl({namespace!r}, seconds)."
    )


def bring_back(
    store: Store, claim: Claim, known: t.Mapping[str, t.Any], repository: t.Any, name: str, keyring: t.Any
) -> list[str]:
    """Set it to what the newest good snapshot from before the quarantine says; warnings. ``known``: the facts."""
    namespace = claim.namespace
    if not known.get(FACT):
        return []
    fenced = microseconds(known.get("fenced_at")) or 0
    try:
        among = [one for one in repository.snapshots(name) if one.at <= fenced]
        found = repository.newest_good(name, keyring, namespace, among)
    except MemoryOpsError:  # the rebuild itself may need none
        return [warning(namespace)]
    ttl = found.info.namespaces[namespace]["ttl"]
    store.set_ttl(namespace, ttl)
    store.note(claim, **{FACT: None})
    lives = "for ever" if ttl is None else f"{ttl} s"
    return [f"New records of {namespace} live {lives} (snapshot {found.id}), as the control row was lost."]
