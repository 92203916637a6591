# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What costs something per record: the integrity scan, the rotation, and whether either grows with the namespace."""

from __future__ import annotations

import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, rotate

from . import isolating, peers
from .data import NAMESPACE, STORED_BYTES, Place
from .measure import Side, Table, ratio, said, turns
from .snapshots import fresh, take


def scan(params: t.Mapping[str, t.Any], keyring: t.Any) -> dict[str, t.Any]:
    found = integrity.scan(store_params=params, keyring=keyring, namespace=NAMESPACE, structure=False)
    if found["damaged"]:
        raise RuntimeError(f"The scan found {found['findings']}")
    return {"rows": found["rows"]}


def compare_scan(table: Table, place: Place, rounds: int) -> None:
    params = place.params("sealed.db")
    found = turns(
        rounds,
        {
            "keyless": Side(lambda: None, lambda _none: scan(params, None)),
            "select": Side(lambda: None, lambda _none: peers.bare_select(params["path"])),
            "opened": Side(lambda: None, lambda _none: scan(params, place.keyring)),
        },
    )
    table.add("integrity scan, keyless : bare SELECT", ratio(found["keyless"], found["select"]), 1.5,
              detail=said(found))  # fmt: skip
    table.add("  the same with every payload opened", ratio(found["opened"], found["select"]), None)
    table.memory("integrity scan", *found["keyless"], *found["opened"])


def rotating(given: tuple[dict[str, t.Any], dict[str, t.Any]]) -> dict[str, t.Any]:
    params, keyring = given
    found = rotate.rotate(store_params=params, keyring=Keyring.open(keyring), namespace=NAMESPACE, force=True)
    if not found["complete"]:
        raise RuntimeError(f"The rotation says {found['reasons']}")
    return {"records": found["records"]}


def compare_rotation(table: Table, place: Place, rounds: int) -> None:
    found = turns(
        rounds,
        {
            "rotation": Side(lambda: (place.copy("sealed.db", "live.db"), place.keyring), rotating),
            "cores": Side(lambda: None, lambda _none: peers.two_cores(place.records, STORED_BYTES)),
        },
    )
    place.remove("live.db")
    table.add("rotation : what two cores decrypt, encrypt and hash", ratio(found["cores"], found["rotation"]), 0.4,
              least=True, detail=said(found))  # fmt: skip
    table.memory("rotation", *found["rotation"])


def growth(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    """Time per record in a tenth of the namespace and in the whole."""
    small, whole = place.params("small.db"), place.params("sealed.db")

    def rotation(store: str) -> Side:
        return Side(lambda: (place.copy(store, "live.db"), place.keyring), rotating)

    for what, sides in (
        ("integrity scan", [Side(lambda: None, lambda _none, p=p: scan(p, place.keyring)) for p in (small, whole)]),
        (
            "snapshot",
            [Side(lambda: fresh(repository), lambda at, p=p: take(p, place.keyring, at)) for p in (small, whole)],
        ),
        ("rotation", [rotation("small.db"), rotation("sealed.db")]),
    ):  # fmt: skip
        found = turns(rounds, {"small": sides[0], "whole": sides[1]})
        table.add(f"time per record, {what}, all : a tenth of them", ratio(found["whole"], found["small"]) / 10, 1.1)
    place.remove("live.db")
    isolating.growth(table, place, small, whole, rounds)
