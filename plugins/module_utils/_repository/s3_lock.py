# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Object lock: what a bucket keeps although somebody with every right of ours deletes or overwrites it.

PRIVATE to the collection. Such a bucket keeps versions. A delete only hides a version, and a version goes when its
retain-until is over; an overwritten object has its first version below.
"""
from __future__ import annotations

import datetime as dt
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._errors import InvalidInput, MemoryOpsError, RepositoryRefused
from .objects import ObjectLocked, ObjectMissing, lockable

if t.TYPE_CHECKING:
    from .s3 import S3Objects

MODES = ("governance", "compliance")
THREADS = 8
PROBE_SECONDS = 60.0  # longer than clocks differ


def open_locks(objects: S3Objects, params: t.Mapping[str, t.Any]) -> S3Locks | None:
    """None where the repository asks for no lock. Errors: InvalidInput."""
    mode = params.get("object_lock") or "none"
    if mode == "none":
        return None
    days = params.get("object_lock_days")
    days = 14.0 if days is None else days
    if mode not in MODES:
        raise InvalidInput(f"memory_repository.object_lock is {mode!r:.40}.", "use none, governance or compliance")
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= 36500:
        raise InvalidInput(f"memory_repository.object_lock_days is {days!r:.40}.", "give a number of days above 0")
    return S3Locks(objects, mode.upper(), days * 86400.0)


class Version(t.NamedTuple):
    key: str
    id: str
    modified: float
    etag: str | None  # None: a mark that the object was deleted


class S3Locks:
    """A Locks (see objects.py). ``seconds``: for how long an object is locked when it is written."""

    def __init__(self, objects: S3Objects, mode: str, seconds: float) -> None:
        self._objects = objects
        self._mode = mode
        self.seconds = seconds

    def arguments(self, key: str) -> dict[str, t.Any]:
        """What a put of this key says beside its data."""
        return self._retention(time.time() + self.seconds) if lockable(key) else {}

    def _retention(self, until: float) -> dict[str, t.Any]:
        date = dt.datetime.fromtimestamp(until, dt.timezone.utc)
        return {"ObjectLockMode": self._mode, "ObjectLockRetainUntilDate": date}

    def check(self) -> None:
        where = self._objects.location
        missing = RepositoryRefused(
            f"The bucket of {where} has no object lock, and memory_repository.object_lock asks for one.",
            "make a bucket with object lock and point memory_repository.url to it, or set object_lock to none",
        )
        try:
            answer = self._objects.call("ask for the object lock of", "its bucket", "get_object_lock_configuration")
        except ObjectMissing:
            raise missing from None
        if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise missing

    def until(self, keys: t.Sequence[str]) -> list[float]:
        return [end for end, _mode in self._many(self._lock, keys)]

    def _lock(self, key: str) -> tuple[float, str]:
        """Until when, and in which mode; (0, "") where there is no lock or no object."""
        try:
            head = self._objects.call("look at", key, "head_object", Key=self._objects.full(key))
        except ObjectMissing:
            return 0.0, ""
        date = head.get("ObjectLockRetainUntilDate")
        return (date.timestamp(), str(head.get("ObjectLockMode"))) if date else (0.0, "")

    def extend(self, keys: t.Sequence[str], until: float) -> None:
        date = self._retention(until)["ObjectLockRetainUntilDate"]

        def one(key: str) -> None:
            end, mode = self._lock(key)
            if end < until - 1:  # S3 keeps whole seconds
                # Another mode than the one that it is locked in would need the right to bypass that lock.
                asked = {"Mode": mode or self._mode, "RetainUntilDate": date}
                full = self._objects.full(key)
                self._objects.call("lock", key, "put_object_retention", Key=full, Retention=asked)

        self._many(one, [key for key in keys if lockable(key)])

    def _many(self, work: t.Callable[[str], t.Any], keys: t.Sequence[str]) -> list[t.Any]:
        if not keys:
            return []
        with ThreadPoolExecutor(min(THREADS, len(keys))) as pool:
            return list(pool.map(work, keys))

    # --- versions ---------------------------------------------------------------------------------------------------
    def _versions(self, prefix: str) -> list[Version]:
        """Every version and every mark below the prefix; of a key the newest first."""
        found: list[Version] = []
        after: dict[str, t.Any] = {}
        skip = len(self._objects.full(""))
        while True:
            page = self._objects.call(
                "list versions of", prefix, "list_object_versions", Prefix=self._objects.full(prefix), **after
            )
            for kind in ("Versions", "DeleteMarkers"):
                found += [
                    Version(item["Key"][skip:], item["VersionId"], item["LastModified"].timestamp(), item.get("ETag"))
                    for item in sorted(page.get(kind, ()), key=lambda item: not item.get("IsLatest"))
                ]
            if not page.get("IsTruncated"):
                break
            after = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker") or ""}
        return found

    def _erase(self, versions: t.Sequence[Version]) -> int:
        """How many of them are locked and stay."""
        left = 0
        for version in versions:
            try:
                full = self._objects.full(version.key)
                self._objects.call("delete", version.key, "delete_object", Key=full, VersionId=version.id)
            except ObjectLocked:
                left += 1
        return left

    def delete(self, key: str) -> None:
        """It is gone for readers at once, and for good as far as no lock keeps it."""
        self._objects.call("delete", key, "delete_object", Key=self._objects.full(key))
        mine = [version for version in self._versions(key) if version.key == key]
        if not self._erase([version for version in mine if version.etag is not None]):
            self._erase([version for version in mine if version.etag is None])

    def purge(self, prefix: str, last: str) -> int:
        found = self._versions(prefix)
        left = self._erase([v for v in found if v.key != last and v.etag is not None])
        if not left:
            self._erase([v for v in found if v.key != last and v.etag is None])
            self._erase([v for v in found if v.key == last and v.etag is not None])
            self._erase([v for v in found if v.key == last and v.etag is None])
        return left

    def uncover(self, prefix: str, wanted: t.Callable[[str], bool], check: bool) -> list[str]:
        current = {info.key: info for info in self._objects.list(prefix)}
        by_key: dict[str, list[Version]] = {}
        for version in self._versions(prefix):
            by_key.setdefault(version.key, []).append(version)
        covered: dict[str, Version] = {}
        for key, versions in by_key.items():
            contents = [version for version in versions if version.etag is not None]
            if contents and wanted(key):
                first = min(contents, key=lambda version: version.modified)
                shown = self._etag(key) if key in current else None
                if shown != first.etag:
                    covered[key] = first
        for key, version in {} if check else covered.items():
            full = self._objects.full(key)
            _answer, data = self._objects.call("read", key, "get_object", Key=full, VersionId=version.id)
            self._objects.put(key, data)
        return sorted(covered)

    def _etag(self, key: str) -> str | None:
        try:
            head = self._objects.call("look at", key, "head_object", Key=self._objects.full(key))
            return str(head.get("ETag"))
        except ObjectMissing:
            return None

    def enforced(self, key: str) -> bool:
        """Lock an object for a minute and try to delete it; it stays hidden below probe/ until the next try."""
        self.purge("probe/", "")
        full = self._objects.full(key)
        retention = self._retention(time.time() + PROBE_SECONDS)
        try:
            body = {"Body": b"probe", "ChecksumAlgorithm": "SHA256"}
            self._objects.call("lock", key, "put_object", Key=full, **body, **retention)
            kept = bool(self._erase([version for version in self._versions(key) if version.key == key]))
            self.delete(key)
        except MemoryOpsError as exc:
            raise RepositoryRefused(
                f"{self._objects.location} cannot lock an object: {exc.message}", "use a bucket with object lock"
            ) from None
        return kept
