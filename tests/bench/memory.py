# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of what goes through a whole namespace, once each and without a peer: for namespaces that are too large
to compare times on."""

from __future__ import annotations

import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore

from .data import NAMESPACE, Place
from .measure import Ran, Table, run
from .rows import rotating, scan
from .snapshots import fresh, take


def measure(table: Table, place: Place, repository: t.Mapping[str, t.Any]) -> None:
    """The store itself is rotated last; the restore fills another one."""
    params, at = place.params("sealed.db"), fresh(repository)
    _add(table, "integrity scan", run(scan, params, place.keyring))
    taken = run(take, params, place.keyring, at, True)
    _add(table, "snapshot, opened", taken)
    _add(table, "snapshot, nothing changed", run(take, params, place.keyring, at, False, taken.value["snapshot"]))
    _add(table, "restore", run(_restore, place, at, taken.value["snapshot"]))
    place.remove("restored.db")
    _add(table, "rotation", run(rotating, (params, place.keyring)))


def _restore(place: Place, at: t.Mapping[str, t.Any], snapshot: str) -> dict[str, t.Any]:
    return restore.restore(
        store_params=place.params("restored.db"), repository=at, keyring=Keyring.open(place.keyring), name="memory",
        snapshot_id=snapshot, namespace=NAMESPACE, create=True,
    )  # fmt: skip


def _add(table: Table, what: str, ran: Ran) -> None:
    table.add(what, ran.seconds, None, "s", detail=f"{ran.cpu:.0f} s of processor time")
    table.memory(what, ran)
