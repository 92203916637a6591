# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Soft deletion: a snapshot whose manifest was put aside, and its way back.

PRIVATE to the collection. Without its manifest a snapshot is none; as long as its other objects are there, it can be
one again.
"""
from __future__ import annotations

import base64
import typing as t

from .._errors import MemoryOpsError, RepositoryUnavailable, SnapshotUnusable
from .manifest import SnapshotInfo, broken, folder, info_of, manifest_key, open_line, read_keys, seal_line
from .objects import ObjectMissing, ObjectStore

REMOVED = "removed.json"


class Aside(t.NamedTuple):
    at: float  # seconds since 1970: when it was put aside
    manifest: bytes


def put_aside(objects: ObjectStore, name: str, snapshot_id: str, moment: float) -> None:
    """The manifest becomes removed.json. Nothing happens when there is no manifest. Errors: RepositoryUnavailable."""
    where = folder(name, snapshot_id)
    try:
        data = objects.get(where + "manifest.json")
    except ObjectMissing:
        return
    body = {"format": 1, "code": "sha256", "at": int(moment * 1e6), "manifest": base64.b64encode(data).decode()}
    objects.put(where + REMOVED, seal_line(body, None))
    objects.delete([where + "manifest.json"])


def read_aside(objects: ObjectStore, name: str, snapshot_id: str) -> Aside | None:
    """None: nothing was put aside there. Errors: RepositoryUnavailable."""
    try:
        body = open_line(objects.get(folder(name, snapshot_id) + REMOVED), None, REMOVED)
        return Aside(body["at"] / 1e6, base64.b64decode(body["manifest"]))
    except RepositoryUnavailable:
        raise
    except (MemoryOpsError, KeyError, TypeError, ValueError):
        return None


def bring_back(objects: ObjectStore, name: str, snapshot_id: str, keyring: t.Any, depth: int = 0) -> list[str]:
    """The manifest back in its place, and that of its base before it; which ones came back.

    Nothing happens when the manifest is there. Errors: SnapshotUnusable (nothing was put aside, it does not
    authenticate, an object is gone), KeyUnavailable, RepositoryUnavailable.
    """
    where = folder(name, snapshot_id)
    there = {info.key[len(where) :]: info.size for info in objects.list(where)}
    if "manifest.json" in there:
        return []
    aside = read_aside(objects, name, snapshot_id)
    if aside is None:
        raise SnapshotUnusable(
            f"There is no snapshot {snapshot_id} of {name}, and none of that name waits for its removal.",
            "list the snapshots with memops.agent_memory.info",
        )
    secret = read_keys(objects, name, snapshot_id, keyring)[0]
    manifest = open_line(aside.manifest, manifest_key(secret), f"The manifest of snapshot {snapshot_id}")
    gone = [f"packs/{pack[0]:06d}.pack" for pack in manifest["packs"] if f"packs/{pack[0]:06d}.pack" not in there]
    gone += [] if "index" in there else ["index"]
    if gone or depth > 1:
        raise SnapshotUnusable(
            f"Snapshot {snapshot_id} has lost {', '.join(gone[:3])}: its removal has begun.", "use another snapshot"
        )
    back = [one for base in manifest["references"] for one in bring_back(objects, name, base, keyring, depth + 1)]
    objects.put(where + "manifest.json", aside.manifest)
    objects.delete([where + REMOVED])
    return [*back, snapshot_id]


def waiting(objects: ObjectStore, name: str, snapshot_ids: t.Iterable[str], keyring: t.Any) -> list[SnapshotInfo]:
    """Those of these that were put aside and may come back, authenticated; what cannot be is listed with its
    ``problem``. Errors: RepositoryUnavailable."""
    found = []
    for snapshot_id in snapshot_ids:
        aside = read_aside(objects, name, snapshot_id)
        if aside is None:
            continue
        try:
            secret = read_keys(objects, name, snapshot_id, keyring)[0]
            manifest = open_line(aside.manifest, manifest_key(secret), f"The manifest of snapshot {snapshot_id}")
            if (manifest.get("code"), manifest.get("snapshot")) != ("hmac", snapshot_id):
                raise SnapshotUnusable(f"The manifest of {snapshot_id} is another one's.", "use another snapshot")
            found.append(info_of(name, manifest, False, True))
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            found.append(broken(name, snapshot_id, exc.message))
    return found
