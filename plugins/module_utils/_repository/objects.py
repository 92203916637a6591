# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a place for objects can do, whether it is an S3 bucket or a directory: the one interface that snapshots know.

PRIVATE to the collection. Keys are relative to the repository's prefix and use "/".
"""
from __future__ import annotations

import re
import typing as t
from urllib.parse import unquote, urlsplit

from .._errors import InvalidInput, RepositoryRefused, SnapshotUnusable


class ObjectMissing(SnapshotUnusable):
    """There is no object with this key."""


class ObjectExists(RepositoryRefused):
    """A conditional put met an object with other contents."""


class ObjectLocked(RepositoryRefused):
    """A version of an object that its lock keeps from being deleted."""


class ObjectInfo(t.NamedTuple):
    key: str
    size: int
    modified: float  # seconds since 1970 by the clock of the place


class Locks(t.Protocol):
    """Of a place that keeps objects from being deleted and overwritten until a time. Errors: RepositoryUnavailable."""

    seconds: float  # for how long an object is locked when it is put

    def check(self) -> None:
        """Errors: RepositoryRefused when the place locks nothing."""

    def until(self, keys: t.Sequence[str]) -> t.List[float]:
        """Of each object until when it is locked, seconds since 1970; 0: it is not, or is not there."""

    def extend(self, keys: t.Sequence[str], until: float) -> None:
        """Lock those that can be locked at least until then; a lock is never shortened."""

    def uncover(self, prefix: str, wanted: t.Callable[[str], bool], check: bool) -> t.List[str]:
        """Bring back, below the prefix, the first contents of objects that were hidden or overwritten; their keys."""

    def enforced(self, key: str) -> bool:
        """Try, by an object with this key, whether a lock is heeded. Errors: RepositoryRefused (it cannot lock)."""


class ObjectStore(t.Protocol):
    """Safe for threads; after a fork each process makes its own connections."""

    kind: str  # s3 | directory
    location: str  # for people: the URL without secrets

    @property
    def locks(self) -> t.Optional[Locks]:
        """None: nothing that is put is locked."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, sha256: bytes | None = None) -> None:
        """Durable when it returns. With ``if_absent`` an object with the same contents is fine.

        ``sha256``: the data's, where the caller has it already; a place that checks what arrives checks that.
        Errors: ObjectExists (other contents are there), RepositoryUnavailable.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """All of an object or ``length`` bytes from ``start`` (fewer at its end). Errors: ObjectMissing."""

    def list(self, prefix: str) -> t.Iterator[ObjectInfo]:
        """Every object below the prefix."""

    def children(self, prefix: str) -> t.List[str]:
        """The names one level below ``prefix`` (which ends with "/"), sorted."""

    def delete(self, keys: t.Sequence[str]) -> None:
        """A missing one is fine."""

    def purge(self, prefix: str, last: str) -> int:
        """Delete all below the prefix, earlier versions too; the object ``last`` after the others, and only if no lock
        keeps any of them. How many are kept."""

    def sweep(self, prefix: str, before: float) -> None:
        """Remove what puts that were killed left below the prefix (which ends with "/") before that time in seconds
        since 1970: nothing where a put leaves nothing."""

    def clock(self) -> t.Optional[float]:
        """The time by the clock of the place, seconds since 1970; None where it has none of its own. Writes nothing."""

    def refuses_wrong_checksum(self, key: str) -> t.Optional[bool]:
        """Upload with a wrong checksum: whether that was refused; None where there is no such thing."""


def lockable(key: str) -> bool:
    """Whether an object is locked where objects are: not what goes soon, and not the results of verifications, of which
    there is always another and which would keep a snapshot from ever being removed."""
    if key.startswith("probe/") or key.endswith("/removed.json"):
        return False
    return "/checks/" not in key or key.endswith(("-held.json", "-lifted.json", "-accepted.json"))


def open_objects(params: t.Mapping[str, t.Any]) -> ObjectStore:
    """The object store of repository parameters. Errors: InvalidInput, RepositoryUnavailable."""
    url = params.get("url")
    advice = "set memory_repository.url to s3://bucket/prefix or file:///path"
    if not isinstance(url, str) or not url:
        raise InvalidInput("The repository has no url.", advice)
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidInput(
            "The repository's url holds a user or a password.", "give access_key and secret_key, or a profile"
        )
    if parts.query or parts.fragment:
        raise InvalidInput(f"The repository's url {url!r} has a query or a fragment.", advice)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        from .directory import DirectoryObjects

        return DirectoryObjects(unquote(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        from .s3 import S3Objects

        return S3Objects(parts.netloc, parts.path.strip("/"), params)
    raise InvalidInput(f"The repository's url {url!r} is neither s3:// nor file:///.", advice)


def check_name(what: str, name: t.Any) -> str:
    """A name that becomes part of a key: letters, digits, dot, underscore, hyphen. Errors: InvalidInput."""
    if not isinstance(name, str) or not re.match(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z", name):
        raise InvalidInput(
            f"The {what} {name!r:.80} cannot be part of an object's key.",
            "use up to 128 letters, digits, '.', '_' and '-', the first not a dot",
        )
    return name
