# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The small JSON objects of a repository: manifests, keys, checks, and the index; how they are sealed and opened.

PRIVATE to the collection. A sealed line is one line of JSON and one line with a hexadecimal code of it: an HMAC-SHA256
where a snapshot key authenticates it, a plain SHA-256 where nobody's key is at hand (that shows accidents only).
"""
from __future__ import annotations

import hashlib
import hmac
import json
import re
import typing as t
from dataclasses import dataclass, field
from itertools import zip_longest

from .._errors import KeyUnavailable, MemoryOpsError, RepositoryRefused, SnapshotUnusable
from .chunks import ChunkRef
from .objects import ObjectMissing, ObjectStore
from .packs import FrameCipher, Squeezer, derive, expand

FORMAT = 1  # of all sealed lines but a manifest
SNAPSHOT_FORMAT = 2  # of manifests: chunks of the log may be maps of parts, which format 1 does not know
PURPOSES = ("scheduled", "baseline", "forensic", "failback", "drill")
SNAPSHOT_ID = re.compile(r"\A[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\Z")


def seal_line(body: t.Mapping[str, t.Any], key: bytes | None) -> bytes:
    line = json.dumps(body, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()
    return line + b"\n" + _code(line, key).encode() + b"\n"


def open_line(data: bytes, key: bytes | None, what: str) -> dict[str, t.Any]:
    """The body; without ``key`` an HMAC is not checked. Errors: SnapshotUnusable, RepositoryRefused (newer format)."""
    line, _newline, rest = data.partition(b"\n")
    body = None
    if len(rest) == 65 and rest.endswith(b"\n"):
        try:
            body = json.loads(line)
        except ValueError:
            body = None
    if not isinstance(body, dict):
        raise SnapshotUnusable(f"{what} is damaged: it is not a sealed line.", "use another snapshot")
    if isinstance(body.get("format"), int) and body["format"] > SNAPSHOT_FORMAT:
        raise RepositoryRefused(
            f"{what} has format {body['format']}, and this version knows {SNAPSHOT_FORMAT}.", "update the collection"
        )
    signed = body.get("code") == "hmac"
    if signed and key is None:
        return body
    if not hmac.compare_digest(rest.strip(), _code(line, key if signed else None).encode()):
        raise SnapshotUnusable(
            f"{what} does not authenticate: it was changed or belongs to another snapshot.", "use another snapshot"
        )
    return body


def _code(line: bytes, key: bytes | None) -> str:
    return hashlib.sha256(line).hexdigest() if key is None else hmac.new(key, line, hashlib.sha256).hexdigest()


def manifest_key(secret: bytes) -> bytes:
    return derive(secret, "manifest")


def folder(name: str, snapshot_id: str) -> str:
    return f"snapshots/{name}/{snapshot_id}/"


# --- keys ------------------------------------------------------------------------------------------------------------
def keys_name(master_id: str) -> str:
    """The object of one master key; an id that is no plain name (an ARN) is hashed."""
    if not re.match(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z", master_id):
        master_id = "h-" + hashlib.sha256(master_id.encode()).hexdigest()[:32]
    return f"keys/{master_id}.json"


def pack_keys(snapshot_id: str, secret: bytes, keyring: t.Any, wrapped: t.Mapping[str, t.Any]) -> bytes:
    """The keys object: the snapshot's key and the record keys, all wrapped by the keyring's master key."""
    body = {
        "format": FORMAT,
        "code": "sha256",
        "master": keyring.master_id,
        "id": snapshot_id,
        "snapshot": keyring.wrap(secret, f"snapshot {snapshot_id}"),
        "records": dict(wrapped),
    }
    return seal_line(body, None)


def read_keys(objects: ObjectStore, name: str, snapshot_id: str, keyring: t.Any) -> tuple[bytes, dict[str, t.Any]]:
    """(snapshot key, wrapped record keys). Errors: KeyUnavailable (names the ids), SnapshotUnusable."""
    where = folder(name, snapshot_id)
    try:
        data = objects.get(where + keys_name(keyring.master_id))
    except ObjectMissing:
        others = [child[: -len(".json")] for child in objects.children(where + "keys/")]
        if not others:
            if not objects.children(where):
                raise SnapshotUnusable(
                    f"There is no snapshot {snapshot_id} of {name} in {objects.location}.",
                    "the playbook memops.agent_memory.info lists those that there are",
                ) from None
            raise SnapshotUnusable(
                f"Snapshot {snapshot_id} has lost its keys object.", "use another snapshot, or put the object back"
            ) from None
        raise KeyUnavailable(
            f"Snapshot {snapshot_id} was sealed under the master key {', '.join(others)}, not under "
            f"{keyring.master_id}.",
            "point memory_keyring to that master key",
        ) from None
    body = open_line(data, None, f"{keys_name(keyring.master_id)} of snapshot {snapshot_id}")
    if body.get("id") != snapshot_id:
        raise SnapshotUnusable(
            f"The keys object of snapshot {snapshot_id} belongs to snapshot {body.get('id')}.", "use another snapshot"
        )
    try:
        return keyring.unwrap(body["snapshot"], f"snapshot {snapshot_id}"), dict(body["records"])
    except (KeyError, TypeError):
        raise SnapshotUnusable(
            f"{keys_name(keyring.master_id)} of snapshot {snapshot_id} is damaged.", "use another snapshot"
        ) from None


# --- index -----------------------------------------------------------------------------------------------------------
Index = t.Dict[str, t.Dict[str, t.List[ChunkRef]]]  # namespace → "records" | "log" → chunks in key order


def pack_index(snapshot_id: str, secret: bytes, index: Index) -> bytes:
    """The index object: one frame of msgpack, zstd where it pays."""
    import msgpack

    origins = [snapshot_id]
    body: dict[str, t.Any] = {}
    for namespace, kinds in index.items():
        body[namespace] = {}
        for kind, chunks in kinds.items():
            rows = []
            for chunk in chunks:
                if chunk.snapshot not in origins:
                    origins.append(chunk.snapshot)
                rows.append((origins.index(chunk.snapshot), *chunk[1:10]))
            body[namespace][kind] = rows
        body[namespace]["sums"] = [chunk.sums for chunk in kinds["records"]]
    plain = msgpack.packb(
        {"format": FORMAT, "snapshots": origins, "namespaces": body}, unicode_errors="surrogateescape"
    )
    return FrameCipher(secret, snapshot_id, "index").seal(0, Squeezer().squeeze(plain), True)


def unpack_index(snapshot_id: str, secret: bytes, data: bytes) -> Index:
    """Errors: SnapshotUnusable."""
    try:
        import msgpack
    except ImportError:
        raise MemoryOpsError("The Python package msgpack is missing.", "pip install msgpack") from None
    try:
        plain = expand(FrameCipher(secret, snapshot_id, "index").open(0, data, True))
        body = msgpack.unpackb(plain, unicode_errors="surrogateescape", strict_map_key=False)
        origins = body["snapshots"]
        return {
            namespace: {
                "records": [
                    ChunkRef._make((origins[row[0]], *row[1:], sums))
                    for row, sums in zip_longest(kinds["records"], kinds.get("sums", ()))
                ],
                "log": [ChunkRef(origins[row[0]], *row[1:]) for row in kinds["log"]],
            }
            for namespace, kinds in body["namespaces"].items()
        }
    except SnapshotUnusable:
        raise SnapshotUnusable(f"The index of snapshot {snapshot_id} was changed.", "use another snapshot") from None
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        raise SnapshotUnusable(
            f"The index of snapshot {snapshot_id} cannot be decoded: {exc}.", "use another snapshot"
        ) from None


# --- what a manifest says --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SnapshotInfo:
    """One snapshot as its manifest tells it. ``good``: may be restored from, may be a base, may count as last good."""

    id: str
    name: str
    purpose: str
    at: int
    epoch: int
    sequence: int
    lineage: str
    suspect: bool
    reasons: t.List[str]
    accepted: bool
    good: bool
    incident: str | None
    references: t.List[str]  # the base, if there is one
    namespaces: t.Dict[str, t.Dict[str, t.Any]]
    bytes: int
    authenticated: bool
    problem: str | None = None  # why it cannot be used at all
    manifest: t.Dict[str, t.Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def store_id(self) -> str:
        """Of the copy of the store that it was taken of."""
        return str(self.manifest.get("store", {}).get("store_id") or "")

    @property
    def copy(self) -> tuple[int, str]:
        return self.epoch, self.store_id

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Newer snapshots of a store compare greater; the clock only tells those apart between which nobody wrote."""
        return (self.epoch, self.sequence, self.manifest.get("created", 0), self.id)


def info_of(name: str, manifest: dict[str, t.Any], accepted: bool, authenticated: bool) -> SnapshotInfo:
    """Errors: SnapshotUnusable when fields are missing."""
    try:
        suspect = bool(manifest["suspect"])
        return SnapshotInfo(
            id=manifest["snapshot"],
            name=name,
            purpose=manifest["purpose"],
            at=manifest["at"],
            epoch=manifest["point"]["epoch"],
            sequence=manifest["point"]["sequence"],
            lineage=manifest["store"]["lineage"],
            suspect=suspect,
            reasons=list(manifest["reasons"]),
            accepted=accepted,
            good=manifest["purpose"] != "forensic" and (accepted or not suspect),
            incident=manifest["incident"],
            references=sorted(manifest["references"]),
            namespaces=manifest["namespaces"],
            bytes=manifest["bytes"]["stored"],
            authenticated=authenticated,
            manifest=manifest,
        )
    except (KeyError, TypeError) as exc:
        raise SnapshotUnusable(
            f"The manifest of {manifest.get('snapshot')} lacks {exc}.", "use another snapshot"
        ) from None


def broken(name: str, snapshot_id: str, problem: str) -> SnapshotInfo:
    return SnapshotInfo(
        snapshot_id, name, "unknown", 0, -1, -1, "", False, [], False, False, None, [], {}, 0, False, problem
    )
