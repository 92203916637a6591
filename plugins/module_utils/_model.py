# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The nouns of the collection as plain values. No I/O, nothing of any engine.

PRIVATE to the collection.

Rows travel in bulk as plain tuples in the order of the NamedTuples below (building a NamedTuple per record costs more
than hashing it); ``Record._make(row)`` gives the readable form. Times are integers: microseconds since 1970 UTC.
"""
from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

STRATEGIES = ("auto", "soft", "hard", "rotate")  # of a rebuild


class Record(t.NamedTuple):
    """One memory as it is stored. A tombstone is a record whose ``deleted`` is set; its payload seals nothing.

    A deletion takes a sequence of its own, and its tombstone was ``updated`` when it was ``deleted``. The tombstone of
    a record that an operator isolated keeps that record's version and times: see ``is_isolated``.
    """

    key: str
    epoch: int
    sequence: int
    created: int
    updated: int
    expires: int | None
    deleted: int | None
    key_id: str
    payload: bytes
    checksum: bytes


Row = t.Tuple[t.Any, ...]  # a Record as a plain tuple
(KEY, EPOCH, SEQUENCE, CREATED, UPDATED, EXPIRES, DELETED, KEY_ID, PAYLOAD, CHECKSUM) = range(10)


def is_isolated(row: Row) -> bool:
    """Whether a row is the tombstone of a record that an operator took out of service: no application deleted it.

    It has the epoch, sequence, created and updated of the record that lies aside, and was deleted later than that.
    """
    updated, deleted = row[4], row[6]
    return deleted.__class__ is int and updated.__class__ is int and deleted > updated


#: Entries of the access log that change nothing, and those that carry a record's version.
READ_OPERATIONS: t.Final = frozenset(("hit", "miss", "corrupt", "expired", "refused"))
WRITE_OPERATIONS: t.Final = frozenset(("write", "delete"))


class LogEntry(t.NamedTuple):
    """One entry of the access log. Writes and deletes carry the record's (epoch, sequence) and checksum as digest."""

    id: int  # position in this store's log, grows
    at: int
    namespace: str
    #: write delete | hit miss corrupt expired refused | fence release isolate reinstate rebuild restore rotate promote
    operation: str
    key: str | None
    epoch: int | None
    sequence: int | None
    digest: bytes | None
    lock: int | None  # number of the write lock that the writer held; None: it held none
    actor: str  # "host:pid:program", or what the application called itself
    reason: str | None
    checksum: bytes


class LastWrite(t.NamedTuple):
    """The newest logged write or delete of one key."""

    key: str
    epoch: int
    sequence: int
    operation: str  # write | delete
    digest: bytes
    lock: int | None
    actor: str
    at: int


@dataclass(frozen=True)
class StoreIdentity:
    """Which store this is. A secondary that was filled from a primary's snapshots shares its ``lineage``."""

    store_id: str
    lineage: str
    engine: str
    layout: str
    epoch: int
    sequence: int  # the highest that was given out


@dataclass(frozen=True)
class NamespaceState:
    """The control row of a namespace."""

    name: str
    state: str  # serving | quarantined | standby (a copy that is not the home: no application writes) | reading (a copy
    # that serves in the home's place, and takes no application writes)
    generation: int  # the active one
    ttl: float | None  # seconds that new records live; None: for ever
    serving_ttl: float | None  # checked at read; 1.0 while quarantined; None: no limit
    incident: str | None  # the incident that quarantined it
    prior_ttl: float | None = None  # serving_ttl that comes back on release
    prior_state: str | None = None  # state that comes back on release
    restored_snapshot: str | None = None  # snapshot this copy was last filled from
    restored_epoch: int | None = None
    restored_sequence: int | None = None
    restored_at: int | None = None  # the point in time of that snapshot
    restored_digest: str | None = None  # the namespace's digest in that snapshot


@dataclass(frozen=True)
class Claim:
    """The right of one attempt to change one namespace; every operator transaction checks ``token`` in the store."""

    namespace: str
    incident: str
    attempt: str
    token: int
    resumed: bool = False  # a former attempt of the same incident was taken over


@dataclass(frozen=True)
class IncidentState:
    """An incident as its store knows it."""

    incident: str
    namespace: str
    state: str  # open | closed
    attempt: str
    owner: str
    token: int
    opened: int
    renewed: int
    lease_until: int
    facts: dict[str, t.Any] = field(default_factory=dict)  # snapshot ids, generation to undo to, … small JSON


class Change(t.NamedTuple):
    """One compare-and-set: the live row must still have ``expected`` as checksum (None: must be absent)."""

    key: str
    expected: bytes | None
    row: Row | None  # what to put there; None: take the row away
    aside: str | None = None  # reason under which the former row is kept beside; None: it is not kept

    def expects(self, live: Row | None) -> bool:
        """Whether what is there now is what it is to be put in the place of."""
        if live is None or self.expected is None:
            return live is None and self.expected is None
        return bool(live[CHECKSUM] == self.expected)


def to_be_made(
    changes: t.Mapping[str, Change], live: t.Iterable[Row], shown: t.Callable[[Row], t.Tuple[t.Any, ...]] = tuple
) -> tuple[list[Change], list[str]]:
    """Of changes to distinct keys, by key, those to be made and the keys of the refused ones; what was made before is
    neither. ``live``: the rows that are there now. ``shown``: a wanted row as it would look among them."""
    wanted: list[Change] = []
    refused: list[str] = []

    def compare(change: Change, row: Row | None) -> None:
        if change.expects(row):
            wanted.append(change)
        else:
            refused.append(change.key)

    absent = dict(changes)
    for row in live:
        change = absent.pop(row[0])
        if change.row is None or row != shown(change.row):
            compare(change, row)
    for change in absent.values():
        if change.row is not None:
            compare(change, None)
    return wanted, refused


@dataclass(frozen=True)
class Window:
    """Writes that a diagnosis distrusts: sequences first..last, of one actor or of all, without a lock or at all."""

    cause: str
    epoch: int
    first_sequence: int
    last_sequence: int
    actor: str | None = None
    unlocked_only: bool = True

    def covers(self, epoch: int, sequence: int, lock: int | None, actor: str | None) -> bool:
        return (
            epoch == self.epoch
            and self.first_sequence <= sequence <= self.last_sequence
            and (lock is None or not self.unlocked_only)
            and (self.actor is None or actor == self.actor)
        )


class AsideRows(t.NamedTuple):
    """Which of the rows that lie aside in a namespace: what these incidents (few) put there before a time (µs), but for
    the reasons ``keeping``."""

    namespace: str
    incidents: t.Sequence[str]
    before: int
    keeping: t.Sequence[str] = ()
