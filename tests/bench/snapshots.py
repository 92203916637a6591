# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots to S3 beside `.backup` + zstd + upload, and beside restic."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

from . import peers
from .data import NAMESPACE, Place, write
from .measure import Ran, Side, Table, ratio, run, said, turns


def take(params: t.Mapping[str, t.Any], keyring: t.Mapping[str, t.Any], repository: t.Mapping[str, t.Any],
         open_payloads: bool = False, base: str | None = None) -> dict[str, t.Any]:  # fmt: skip
    """A scheduled snapshot as the module takes it."""
    result = snapshot.create(
        store_params=params,
        repository=repository,
        keyring=Keyring.open(keyring),
        name="memory",
        purpose="scheduled",
        base=base,
        open_payloads=open_payloads,
    )
    return {name: result[name] for name in ("snapshot", "bytes", "damaged")}


def fresh(repository: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The same bucket under a prefix that nothing was written to."""
    return {**repository, "url": f"{repository['url']}/{secrets.token_hex(4)}"}


def compare(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    """Full snapshots of ciphertext and of plain rows, and of ciphertext without the log of its writes."""
    no_zstd, no_restic = peers.missing("zstd"), peers.missing("restic")
    _without_log(place.copy("sealed.db", "records.db"))
    for kind, store in (("ciphertext", "sealed.db"), ("plain rows", "plain.db"), ("records alone", "records.db")):
        params = place.params(store)
        sides = {
            "ours": Side(lambda: fresh(repository), lambda at, p=params: take(p, place.keyring, at)),
        }
        if kind == "ciphertext":
            sides["opened"] = Side(lambda: fresh(repository), lambda at, p=params: take(p, place.keyring, at, True))
        if not no_zstd:
            sides["backup"] = Side(
                lambda: secrets.token_hex(4),
                lambda key, p=params: peers.backup_zstd_upload(p["path"], place.path("peer.db"), repository, key),
            )
        if not no_restic:
            sides["restic"] = Side(
                lambda: _restic_init(place, repository),
                lambda at, p=params: peers.restic(["backup", p["path"]], repository, at[0], at[1]),
            )
        found = turns(rounds, sides)
        if "backup" in found:
            table.add(
                f"snapshot, {kind} : backup + zstd + upload",
                ratio(found["ours"], found["backup"]),
                0.75,
                detail=said(found),
            )
            if "opened" in found:
                table.add("  the same with every payload opened", ratio(found["opened"], found["backup"]), 1.0)
        if "restic" in found:
            table.add(f"snapshot, {kind} : restic", ratio(found["ours"], found["restic"]), 0.5)
        table.memory(f"snapshot, {kind}", *found["ours"], *found.get("opened", []))
        for name in ("peer.db", "peer.db.zst"):
            if os.path.exists(place.path(name)):
                os.unlink(place.path(name))


def _without_log(params: t.Mapping[str, t.Any]) -> None:
    with contextlib.closing(open_store(params)) as store:
        identity = store.identity()
        store.prune_log(1 << 62, (identity.epoch, identity.sequence))
    with contextlib.closing(sqlite3.connect(params["path"])) as con:
        con.execute("VACUUM")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _restic_init(place: Place, repository: t.Mapping[str, t.Any]) -> tuple[str, str]:
    cache = place.path("restic-cache")
    shutil.rmtree(cache, ignore_errors=True)
    prefix = "restic-" + secrets.token_hex(4)
    peers.restic(["init"], repository, prefix, cache)
    return prefix, cache


def again(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    """Nothing changed since, and one namespace of twenty."""
    full: list[Ran] = []
    unchanged: list[Ran] = []
    params = place.params("twenty.db")
    at: dict[str, t.Any] = {}
    for _round in range(rounds):
        at = fresh(repository)
        full.append(run(take, params, place.keyring, at))
        unchanged.append(run(take, params, place.keyring, at, False, "auto"))
    table.add("snapshot, nothing changed : the full one", ratio(unchanged, full), 0.3,
              detail=said({"unchanged": unchanged, "full": full}))  # fmt: skip
    write(params, place.ring(), f"{NAMESPACE}-03", range(place.records // 20))
    one = run(take, params, place.keyring, at, False, "auto")
    sent, whole = one.value["bytes"]["stored"], full[-1].value["bytes"]["stored"]
    table.add("snapshot, 1 of 20 namespaces changed : bytes of the full one", sent / whole, 0.06,
              detail=f"{sent / 1e6:.1f} MB, {whole / 1e6:.1f} MB, {one.seconds:.2f} s")  # fmt: skip
