# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The snapshot repository: where snapshots and incident journals live.

PRIVATE to the collection. docs/snapshot_format.md describes every object.
"""
from __future__ import annotations

import secrets
import time
import typing as t

from .._errors import (
    KeyUnavailable,
    MemoryOpsError,
    RepositoryMissing,
    RepositoryRefused,
    RepositoryUnavailable,
    SnapshotUnusable,
)
from . import catalogue, journal
from .manifest import FORMAT, SNAPSHOT_ID, SnapshotInfo, open_line, read_keys, seal_line
from .objects import ObjectExists, ObjectMissing, ObjectStore, check_name, open_objects
from .reader import Snapshot

__all__ = ["Repository", "Snapshot", "SnapshotInfo"]
IDENTITY = "repository.json"


class Repository:
    """An open repository. ``warnings`` says what its endpoint was seen not to enforce, ``made`` whether it is new."""

    def __init__(self, objects: ObjectStore, identity: dict[str, t.Any], made: bool = False) -> None:
        self.objects = objects
        self.made = made
        self.identity = identity
        self.seen: dict[str, t.Any] = identity["seen"]

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], *, create: bool = False) -> Repository:
        """Open the repository of ``params``; with ``create`` a missing one is made and its endpoint probed.

        Errors: InvalidInput, RepositoryUnavailable, RepositoryMissing, RepositoryRefused (a newer format, not ours).
        """
        return cls.at(open_objects(params), create=create)

    @classmethod
    def at(cls, objects: ObjectStore, *, create: bool = False) -> Repository:
        if create and objects.locks is not None:
            objects.locks.check()
        made = False
        try:
            data = objects.get(IDENTITY)
        except ObjectMissing:
            if not create:
                raise RepositoryMissing(
                    f"There is no repository in {objects.location}.",
                    "correct memory_repository.url, or run a backup, which makes it",
                ) from None
            identity = {
                "format": FORMAT,
                "code": "sha256",
                "repository": secrets.token_hex(16),
                "created": time.time_ns() // 1000,
                "seen": probe(objects),
            }
            try:
                objects.put(IDENTITY, seal_line(identity, None), if_absent=True)
                made = True
            except ObjectExists:
                pass  # somebody made it at the same time; theirs counts
            data = objects.get(IDENTITY)
        try:
            identity = open_line(data, None, f"{IDENTITY} in {objects.location}")
            if not isinstance(identity["seen"], dict) or not isinstance(identity["repository"], str):
                raise KeyError
        except (SnapshotUnusable, KeyError):
            raise RepositoryRefused(
                f"{IDENTITY} in {objects.location} is damaged or not ours.", "put a copy back, or use another prefix"
            ) from None
        return cls(objects, identity, made)

    @classmethod
    def open_if_there(cls, params: t.Mapping[str, t.Any]) -> Repository | None:
        """None where no repository was ever made. Errors: as ``open``."""
        objects = open_objects(params)
        try:
            objects.get(IDENTITY)
        except ObjectMissing:
            return None
        return cls.at(objects)

    @property
    def location(self) -> str:
        return self.objects.location

    @property
    def warnings(self) -> list[str]:
        return warnings_of(self.seen, self.location)

    def probe(self) -> dict[str, t.Any]:
        """Try again, now, what the endpoint enforces; writes and removes small objects below probe/."""
        return probe(self.objects)

    def snapshots(self, name: str, keyring: t.Any | None = None) -> list[SnapshotInfo]:
        """Newest first; without a keyring nothing is authenticated. Errors: RepositoryUnavailable."""
        return catalogue.listing(self.objects, check_name("store", name), keyring)

    def snapshot(self, name: str, snapshot_id: str, keyring: t.Any) -> Snapshot:
        """Errors: SnapshotUnusable (unknown, unfinished, changed), KeyUnavailable, RepositoryRefused."""
        check_name("store", name)
        unknown = SnapshotUnusable(
            f"There is no snapshot {snapshot_id!r:.80} of {name} in {self.location}.",
            "the playbook memops.agent_memory.info lists those that there are",
        )
        if not isinstance(snapshot_id, str) or not SNAPSHOT_ID.match(snapshot_id):
            raise unknown
        try:
            secret, wrapped = read_keys(self.objects, name, snapshot_id, keyring)
        except (SnapshotUnusable, KeyUnavailable):
            if catalogue.read_problem(self.objects, name, snapshot_id):
                raise unknown from None
            raise
        info = catalogue.read_info(self.objects, name, snapshot_id, secret)
        if info is None:
            raise unknown
        return Snapshot(self.objects, info, secret, wrapped, keyring)

    def newest_good(
        self, name: str, keyring: t.Any, namespace: str | None = None, among: t.Iterable[SnapshotInfo] | None = None
    ) -> Snapshot:
        """The newest good snapshot that authenticates (and holds ``namespace``); the first of ``among``, where given.

        Errors: SnapshotUnusable, KeyUnavailable.
        """
        problems = []
        for info in self.snapshots(name) if among is None else among:
            if info.good and (namespace is None or namespace in info.namespaces):
                try:
                    return self.snapshot(name, info.id, keyring)
                except (SnapshotUnusable, KeyUnavailable) as exc:
                    problems.append(exc)
        if problems:
            raise problems[0]
        holding = f" that holds {namespace!r:.80}" if namespace is not None else ""
        raise SnapshotUnusable(f"There is no good snapshot of {name}{holding} in {self.location}.", "run a backup")

    def accept(
        self, name: str, snapshot_id: str, keyring: t.Any, by: str, reason: str = "", *, check: bool = False
    ) -> bool:
        """Let a suspect snapshot count as good; whether that changes anything."""
        snapshot = self.snapshot(name, snapshot_id, keyring)
        if snapshot.purpose == "forensic":
            raise RepositoryRefused(f"Snapshot {snapshot_id} is evidence and never counts as good.", "take a new one")
        if not snapshot.info.suspect or snapshot.info.accepted:
            return False
        told = {"by": by, "reason": reason}
        if not check:
            catalogue.append_check(self.objects, name, snapshot_id, snapshot.secret, "accepted", told)
        return True

    # --- journals ---------------------------------------------------------------------------------------------------
    def put_journal(self, incident: str, number: int, data: bytes, keyring: t.Any) -> bool:
        """Append entry ``number`` (from 0); False when exactly it is there already.

        Errors: RepositoryRefused (another entry is there, or the one before is missing), RepositoryUnavailable.
        """
        return journal.put(self.objects, incident, number, data, keyring)

    def read_journal(self, incident: str, keyring: t.Any) -> list[bytes]:
        """All entries in order. Errors: SnapshotUnusable (changed, missing, swapped), KeyUnavailable."""
        return journal.read(self.objects, incident, keyring)


def probe(objects: ObjectStore) -> dict[str, t.Any]:
    """What the place enforces. Errors: RepositoryUnavailable when it does not even store."""
    key = f"probe/{secrets.token_hex(8)}"
    seen: dict[str, t.Any] = {"kind": objects.kind}
    objects.put(key, b"first", if_absent=True)
    try:
        objects.put(key, b"second", if_absent=True)
        seen["conditional_put"] = False
    except ObjectExists:
        seen["conditional_put"] = True
    if objects.get(key) != (b"first" if seen["conditional_put"] else b"second"):
        raise RepositoryRefused(f"{objects.location} does not return what was written.", "use another repository")
    if objects.get(key, 1, 2) != (b"ir" if seen["conditional_put"] else b"ec"):
        raise RepositoryRefused(f"{objects.location} does not return parts of objects.", "use another repository")
    if [info.key for info in objects.list(key)] not in ([key], []) or key[6:] not in objects.children("probe/"):
        raise RepositoryRefused(f"{objects.location} does not list what was written.", "use another repository")
    wrong = f"{key}-checksum"
    seen["checksum_verified"] = objects.refuses_wrong_checksum(wrong)
    if objects.locks is not None:
        seen["object_lock"] = objects.locks.enforced(f"{key}-locked")
    try:
        objects.delete([key, wrong])
        seen["delete"] = True
    except (RepositoryUnavailable, MemoryOpsError):
        seen["delete"] = False  # a writer needs no permission to delete
    return seen


def warnings_of(seen: t.Mapping[str, t.Any], location: str) -> list[str]:
    found = []
    if seen.get("conditional_put") is False:
        found.append(
            f"{location} ignores conditional puts: it overwrites where it should refuse. Snapshots have ids of their "
            "own and stay safe; two writers of one incident's journal would not notice each other."
        )
    if seen.get("checksum_verified") is False:
        found.append(
            f"{location} accepts a wrong checksum: every object is read back and hashed before a snapshot is published."
        )
    if seen.get("object_lock") is False:
        found.append(f"{location} takes locks of objects and does not heed them: who may delete removes any snapshot.")
    return found
