# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The Valkey engine (Redis from 7.0 too): open or make a store of the native layout, and hand out readers.

PRIVATE to the collection. The parts of ``ValkeyStore`` stand in the files valkey_*.py beside this one; those that do
not speak of records serve the layout ``keyspace`` too (keyspace.py).
"""
from __future__ import annotations

import typing as t

from .._layouts import Layout
from .valkey_bulk import packed_rows
from .valkey_connect import Place, packed, place_of
from .valkey_generations import Generations
from .valkey_opened import Opened
from .valkey_point import KeptPoint, PointReader
from .valkey_structure import Structure
from .valkey_values import one_key
from .valkey_whole import Whole

CAPABILITIES = frozenset(
    (
        "checksum", "encryption", "expiry", "fence-reads", "generations", "log", "search", "sequence", "tombstones",
        "whole-store", "write-lock",
    )
)
BY_USERS = frozenset(("fence-writes", "fence-raw-reads"))  # where the applications have a user of their own


class NativeReader(PointReader):
    """See _store.Reader and _store_optional.PackedRows."""

    def packed_rows(
        self, namespace: str, generation: int, ranges: t.Sequence[tuple[str | None, str]]
    ) -> list[bytes]:
        if self._token is not None:
            return []  # of a point nothing is known without the copies
        records = self._names.records(namespace, self._generation(namespace, generation))
        bounds = [(b"(" if low is None else one_key(low)[1], one_key(high)[1]) for low, high in ranges]
        return [
            packed_rows(members)
            for members in self._all([packed("ZRANGE", records, *bound, "BYLEX") for bound in bounds])
        ]


class ValkeyStore(Opened, KeptPoint, Whole, Generations, Structure):
    """See _store.Store. One connection writes; every reader has a connection of its own."""

    def __init__(self, place: Place, layout: Layout) -> None:
        super().__init__(place, layout)
        self._capabilities = CAPABILITIES & layout.capabilities
        if self._fenced_user is not None:
            self._capabilities |= BY_USERS & layout.capabilities

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> ValkeyStore:
        store = cls(place_of(params), layout)
        try:
            store._recognise(create)
        except BaseException:
            store.close()
            raise
        return store

    def take_turns(self, lock: t.Any) -> None:
        self._turns = lock

    def capabilities(self) -> frozenset[str]:
        return self._capabilities

    def reader(self, point: str | None = None) -> NativeReader:
        return NativeReader(self._lent(), self.names, self.envelopes, point, self._take_back)
