# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What some engines do beyond the interface of a store.

PRIVATE to the collection. An operation asks whether a store is one of these, never which engine it has.
"""
from __future__ import annotations

import typing as t

from ._model import Claim, Row


@t.runtime_checkable
class PackedRows(t.Protocol):
    """A Reader whose engine brings rows as a snapshot packs them, without a look at each."""

    def packed_rows(
        self, namespace: str, generation: int, ranges: t.Sequence[tuple[str | None, str]]
    ) -> list[bytes]:
        """Of each range (after, until) the items of a chunk's msgpack array, made of the stored bytes. What is not as
        expected, or an empty list, says no more than: look at the rows."""


@t.runtime_checkable
class ManyWriters(t.Protocol):
    """A store that processes may fill, or seal anew, at the same time, each its own part."""

    def take_turns(self, lock: t.Any) -> None:
        """Where its writers wait for each other, those that share this lock of multiprocessing do so by it."""


@t.runtime_checkable
class PreparedLoad(t.Protocol):
    """A store for which another process may do what ``load`` does before it asks the server."""

    def prepared(self, namespace: str, generation: int, rows: t.Sequence[Row]) -> t.Any:
        """What ``load_prepared`` takes of these records. Asks no server."""

    def load_prepared(self, claim: Claim, generation: int, prepared: t.Any) -> None:
        """``load`` of records none of which, nor any between them, is there. Errors: CannotProceed when one is."""


class DirectRows(t.Protocol):
    """Of an empty namespace, in one transaction."""

    def put(self, arranged: t.Any) -> None:
        """What was ``arranged`` of some records, ascending by key."""

    def rows(self) -> t.Iterator[Row]:
        """Every record as it lies there now, without its checksum, in no order."""

    def waited_for(self) -> bool:
        """Whether somebody waits for what this transaction holds: an application, or another operator."""

    def changing(self) -> tuple[str, str]:
        """(why records may be others than those that were put, what to do about it)."""


@t.runtime_checkable
class DirectLoad(t.Protocol):
    """A store that can put the records of an empty namespace straight where applications read them."""

    def arranged(self, namespace: str, rows: t.Sequence[Row]) -> t.Any:
        """What ``put`` takes of these records. Asks no server, so that another process may do it."""

    def direct(
        self, claim: Claim, generation: int, expected: int, records: int
    ) -> t.ContextManager[DirectRows | None]:
        """For so many records; None where it cannot be done, and a generation has to be loaded. When the context ends
        ``generation`` is the active one; with an error nothing is changed. Meanwhile the claim cannot be renewed.
        Errors: as of ``switch``."""


@t.runtime_checkable
class Resealer(t.Protocol):
    """A store that replaces whole records."""

    def replace(
        self, claim: Claim, former: t.Sequence[Row], rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]
    ) -> list[str]:
        """``reseal`` of rows whose ``former`` ones are given, which saves a look at their fields."""


@t.runtime_checkable
class CopyOnWrite(t.Protocol):
    """A store whose engine has no former state of its own: on request writers keep what they change."""

    def keeping(self) -> t.ContextManager[None]:
        """The next ``point`` stays readable, by the readers that are opened in it, until this context ends; their
        ``moved`` says when it did not."""


@t.runtime_checkable
class ManyNamespaces(t.Protocol):
    """A Reader that is told of many namespaces at once."""

    def moved_among(self, namespaces: t.Sequence[str]) -> list[str]:
        """Those that ``moved``."""


@t.runtime_checkable
class NeededRecords(t.Protocol):
    """A Reader of a layout whose records refer to others that its application never deletes by themselves."""

    def needed(self, namespace: str, keys: t.Sequence[str]) -> list[str]:
        """Those of these keys, none of which is there, that records which are there refer to."""


class Gap(t.NamedTuple):
    """A record that was lost: one that is there names it as the one before it."""

    key: str
    after: str  # who names it
    oldest: str  # the first of the chain that is there


class Links(t.NamedTuple):
    """What a record leads to."""

    before: str | None  # the record that it names as the one before it
    values: list[str]  # records that it names, as far as there are such
    beside: str  # what the keys of the records that belong to it begin with


@t.runtime_checkable
class LinkedRecords(t.Protocol):
    """A Reader of a layout whose records name the one before them. The application may cut a chain off at its old end,
    and does not take a record out of the middle."""

    def gaps(self, namespace: str) -> list[Gap]:
        """What is not there in the middle of a chain."""

    def links(self, row: Row) -> Links | None:
        """Of a record that is linked."""


@t.runtime_checkable
class MayDrop(t.Protocol):
    """A Reader of a server that drops by itself what it has no room for."""

    def drops(self) -> int:
        """How much it dropped since it was started."""

    def dropped(self, since: int) -> list[str]:
        """Why what was read since ``drops`` said ``since`` may be less than there was, in words."""


@t.runtime_checkable
class MayFollow(t.Protocol):
    """A store of a server that may be the read-only replica of another one."""

    def need_primary(self) -> None:
        """Errors: StoreUnavailable where it is."""


def need_primary(store: t.Any) -> None:
    """For what writes, or judges or saves what applications write: on a replica it would look at what may be an old
    state, and fail in the middle. Errors: StoreUnavailable."""
    if isinstance(store, MayFollow):
        store.need_primary()


class LeftFence(t.NamedTuple):
    """What keeps applications from a namespace that serves, or will."""

    says: str
    next_step: str


@t.runtime_checkable
class FencesByUsers(t.Protocol):
    """A store whose fence binds users of its server: they outlive the store's data, and so may what was taken from
    them."""

    def left_fences(self, namespace: str) -> list[LeftFence]:
        """Of a namespace that serves."""


def left_fences(store: t.Any, namespace: str) -> list[LeftFence]:
    return store.left_fences(namespace) if isinstance(store, FencesByUsers) else []


@t.runtime_checkable
class ControlRows(t.Protocol):
    """A store whose readers raise NamespaceDamaged where a control row does not lead to its namespace's records."""

    def lead_back(self) -> list[str]:
        """All such rows lead there again, and a namespace of which nobody knows whether it was quarantined is; what was
        done, in words."""
