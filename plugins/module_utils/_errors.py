# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every error this collection raises: one sentence with the thing and the reason, and the next step beside it.

PRIVATE to the collection, except that applications may catch what memory.py re-exports.
"""
from __future__ import annotations


class MemoryOpsError(Exception):
    """The root. ``str(error)`` is "message Next: next_step" and is fit to show to a person."""

    #: Stable word for machines (report.json, set_stats, module result ``error``).
    code = "error"

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} Next: {self.next_step}" if self.next_step else self.message


class InvalidInput(MemoryOpsError):
    """A variable, a key or a value that cannot be meant."""

    code = "invalid-input"


class StoreUnavailable(MemoryOpsError):
    """The store cannot be opened, reached or written (missing, locked, read-only, disk full)."""

    code = "store-unavailable"


class StoreMissing(StoreUnavailable):
    """The place answers, but no store was made there yet."""

    code = "store-missing"


class StoreMoved(StoreUnavailable):
    """The store is on its way to another server, or there already; nothing was stored, and the same call finds it."""

    code = "store-moved"


class StoreDamaged(MemoryOpsError):
    """The store answers, but its own structure is broken (not a database, truncated, malformed page)."""

    code = "store-damaged"


class NamespaceDamaged(StoreDamaged):
    """The control row of a namespace is gone, or does not lead to its records; isolating the namespace mends it."""

    code = "namespace-damaged"


class NamespaceUnknown(MemoryOpsError):
    """The store holds no such namespace."""

    code = "namespace-unknown"


class NamespaceQuarantined(MemoryOpsError):
    """An application met the fence. Reads miss silently; writes raise this."""

    code = "namespace-quarantined"


class NamespaceReadOnly(NamespaceQuarantined):
    """An application wrote to a copy that serves reads only, while the namespace's home is away."""

    code = "namespace-read-only"


class NamespaceLocked(MemoryOpsError):
    """Another process holds the namespace's write lock and did not give it back in time."""

    code = "namespace-locked"


class LeaseHeld(MemoryOpsError):
    """Another live attempt works on this namespace. ``holder`` says who and since when."""

    code = "lease-held"

    def __init__(self, message: str, next_step: str = "", holder: dict[str, object] | None = None) -> None:
        super().__init__(message, next_step)
        self.holder = holder or {}


class StaleAttempt(MemoryOpsError):
    """This attempt was taken over by a newer one; nothing of it may touch the store any more."""

    code = "stale-attempt"


class KeyUnavailable(MemoryOpsError):
    """A master or record key is missing, wrong or cannot be unwrapped."""

    code = "key-unavailable"


class KeyDoesNotOpen(KeyUnavailable):
    """The master key is there, and this wrapped key is not one of its: another's, changed, or cut."""


class RecordCorrupt(MemoryOpsError):
    """A record's checksum does not hold or its payload does not open."""

    code = "record-corrupt"


class RepositoryUnavailable(MemoryOpsError):
    """The snapshot repository cannot be reached, read or written right now."""

    code = "repository-unavailable"


class RepositoryRefused(MemoryOpsError):
    """The repository answers but must not be used: another store's, a newer format, a broken promise."""

    code = "repository-refused"


class RepositoryMissing(RepositoryRefused):
    """The place answers, but no repository was made there yet."""


class RepositoryGone(RepositoryRefused):
    """One was there before: a disk that is not mounted, a bucket that was emptied."""


class SnapshotUnusable(MemoryOpsError):
    """No such snapshot, or it does not authenticate, or an object of it is missing or changed."""

    code = "snapshot-unusable"


class CapabilityMissing(MemoryOpsError):
    """This pair of engine and layout cannot do what was asked; the message names the missing capability."""

    code = "capability-missing"


class CannotProceed(MemoryOpsError):
    """A step's precondition does not hold (no plan, route still on the secondary, loss above the limit)."""

    code = "cannot-proceed"


class OutOfOrder(CannotProceed):
    """A record refers to one that is not there, or has what another one has: that may be repaired later, or with it."""


class RouteUnavailable(MemoryOpsError):
    """What leads applications to the store cannot be asked or moved right now."""

    code = "route-unavailable"


class RouteShared(MemoryOpsError):
    """The route serves the whole store; moving it for one namespace would move others, too."""

    code = "route-shared"
