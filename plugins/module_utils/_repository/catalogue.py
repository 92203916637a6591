# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which snapshots there are: listing, the last good one, the right base, acceptance of suspects, check results.

PRIVATE to the collection. A snapshot is what has a manifest; everything else is a left-over.
"""
from __future__ import annotations

import datetime as dt
import secrets
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._errors import MemoryOpsError, RepositoryRefused, RepositoryUnavailable, SnapshotUnusable
from .manifest import SNAPSHOT_ID, SnapshotInfo, broken, folder, info_of, manifest_key, open_line, read_keys, seal_line
from .objects import ObjectMissing, ObjectStore

BASE_AGE = 24 * 3600.0  # a full snapshot a day
BASE_DELTA = 0.30  # and one as soon as this much was sent again


def stamp(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def new_id(at: float) -> str:
    """A snapshot id: it sorts by time, and two writers never meet."""
    return f"{stamp(at)}-{secrets.token_hex(4)}"


def ids(objects: ObjectStore, name: str) -> list[str]:
    """The ids of everything that looks like a snapshot or the beginnings of one."""
    return [child for child in objects.children(f"snapshots/{name}/") if SNAPSHOT_ID.match(child)]


def read_info(objects: ObjectStore, name: str, snapshot_id: str, secret: bytes | None) -> SnapshotInfo | None:
    """None: it has no manifest. Errors: SnapshotUnusable, RepositoryRefused, RepositoryUnavailable."""
    where = folder(name, snapshot_id)
    try:
        data = objects.get(where + "manifest.json")
    except ObjectMissing:
        return None
    key = None if secret is None else manifest_key(secret)
    manifest = open_line(data, key, f"The manifest of snapshot {snapshot_id}")
    if manifest.get("code") != "hmac":
        raise SnapshotUnusable(f"The manifest of snapshot {snapshot_id} is not authenticated.", "use another snapshot")
    if manifest.get("snapshot") != snapshot_id or manifest.get("name") != name:
        raise SnapshotUnusable(
            f"The manifest of snapshot {snapshot_id} belongs to {manifest.get('snapshot')}.", "use another snapshot"
        )
    accepted = bool(manifest.get("suspect")) and _accepted(objects, where, key)
    return info_of(name, manifest, accepted, key is not None)


def _accepted(objects: ObjectStore, where: str, key: bytes | None) -> bool:
    for child in objects.children(where + "checks/"):
        if child.endswith("-accepted.json"):
            try:
                body = open_line(objects.get(where + "checks/" + child), key, child)
            except (SnapshotUnusable, RepositoryRefused):
                continue
            if body.get("code") == "hmac":
                return True
    return False


def listing(objects: ObjectStore, name: str, keyring: t.Any | None = None) -> list[SnapshotInfo]:
    """All snapshots, newest first by (epoch, sequence); with a keyring each is authenticated.

    Two copies of a store that no epoch tells apart give out the same sequences: those of the copy that was saved last
    come first. One that cannot be used is listed with its ``problem`` and never good. Errors: RepositoryUnavailable.
    """

    def one(snapshot_id: str) -> SnapshotInfo | None:
        try:
            secret = None if keyring is None else read_keys(objects, name, snapshot_id, keyring)[0]
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            unfinished = read_problem(objects, name, snapshot_id)
            return broken(name, snapshot_id, exc.message) if unfinished is None else None
        try:
            return read_info(objects, name, snapshot_id, secret)
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            return broken(name, snapshot_id, exc.message)

    names = ids(objects, name)
    if not names:
        return []
    with ThreadPoolExecutor(min(8, len(names))) as pool:
        found = [info for info in pool.map(one, names) if info is not None]
    saved: dict[tuple[int, str], int] = {}
    for info in found:
        if info.good:
            saved[info.copy] = max(saved.get(info.copy, 0), info.order[2])
    return sorted(found, key=lambda info: (info.epoch, saved.get(info.copy, 0), *info.order), reverse=True)


def read_problem(objects: ObjectStore, name: str, snapshot_id: str) -> str | None:
    """"unfinished" when there is no manifest, None when there is one."""
    try:
        objects.get(folder(name, snapshot_id) + "manifest.json", 0, 1)
    except ObjectMissing:
        return "unfinished"
    return None


def choose_base(snapshots: t.Sequence[SnapshotInfo], lineage: str, now: float) -> str | None:
    """The full, good snapshot that a new one may refer to; None: it is time for a full one."""
    good = [info for info in snapshots if info.good and info.lineage == lineage]
    for info in good:
        if not info.references:
            return info.id if 0 <= now - info.at / 1e6 < BASE_AGE else None
        sizes = info.manifest["bytes"]
        if sizes["sent"] > BASE_DELTA * max(1, sizes["sent"] + sizes["referenced"]):
            return None
    return None


def append_check(
    objects: ObjectStore, name: str, snapshot_id: str, secret: bytes | None, depth: str, body: t.Mapping[str, t.Any]
) -> str:
    """Append a result under checks/; its key. It is authenticated when the snapshot key is at hand."""
    now = dt.datetime.now(dt.timezone.utc)
    key = f"{folder(name, snapshot_id)}checks/{now.strftime('%Y%m%dT%H%M%S.%fZ')}-{depth}.json"
    line = {
        "format": 1,
        "code": "sha256" if secret is None else "hmac",
        "snapshot": snapshot_id,
        "at": int(now.timestamp() * 1e6),
        "depth": depth,
        **body,
    }
    objects.put(key, seal_line(line, None if secret is None else manifest_key(secret)), if_absent=False)
    return key


def read_checks(objects: ObjectStore, name: str, snapshot_id: str, secret: bytes | None) -> list[dict[str, t.Any]]:
    """All check results that are intact, oldest first."""
    where = folder(name, snapshot_id) + "checks/"
    key = None if secret is None else manifest_key(secret)
    results = []
    for child in objects.children(where):
        try:
            results.append(open_line(objects.get(where + child), key, child))
        except (SnapshotUnusable, RepositoryRefused):
            continue
    return results
