# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The Valkey engine (Redis from 7.0 too): open or make a store, and hand out readers.

PRIVATE to the collection. The parts of ``ValkeyStore`` stand in the files valkey_*.py beside this one.
"""
from __future__ import annotations

import contextlib
import os
import typing as t
import uuid

from .._errors import CapabilityMissing, InvalidInput, StoreDamaged, StoreMissing
from .._layouts import Layout
from .._model import StoreIdentity
from .valkey_connect import Place, Wire, hello, packed, place_of
from .valkey_control import counters_of, identity_of
from .valkey_errors import RESTORE, valkey_errors
from .valkey_generations import Generations
from .valkey_reader import ValkeyReader, point_of
from .valkey_structure import Structure
from .valkey_values import FORMAT
from .valkey_whole import Whole

IDLE_CONNECTIONS = 2
CAPABILITIES = frozenset(
    (
        "checksum", "encryption", "expiry", "fence-reads", "generations", "log", "sequence", "tombstones",
        "whole-store", "write-lock",
    )
)
BY_USERS = frozenset(("fence-writes", "fence-raw-reads"))  # where the applications have a user of their own


class ValkeyStore(Whole, Generations, Structure):
    """See _store.Store. One connection writes; every reader has a connection of its own."""

    def __init__(self, place: Place, layout: Layout) -> None:
        if layout.name != "native":
            raise CapabilityMissing(
                f"The Valkey engine cannot run the layout {layout.name!r}.", "set memory_store.layout to native"
            )
        super().__init__(place)
        self._layout = layout
        self._capabilities = CAPABILITIES & layout.capabilities
        if self._fenced_user is not None:
            self._capabilities |= BY_USERS & layout.capabilities
        self._idle: list[Wire] = []
        self._pid = os.getpid()

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> ValkeyStore:
        store = cls(place_of(params), layout)
        try:
            store._recognise(create)
        except BaseException:
            store.close()
            raise
        return store

    def _recognise(self, create: bool) -> None:
        """Errors: StoreMissing, StoreDamaged, InvalidInput for another format or layout."""
        where, prefix = self.place.where, self.place.prefix
        with valkey_errors(self.place):
            role = hello(self.wire).get("role")
            raw = self.wire.ask([packed("HGETALL", self.names.store)])[0]
            if not raw:
                if self.wire.call("EXISTS", self.names.namespaces, self.names.incidents, self.names.logs):
                    raise StoreDamaged(f"The store {where} (prefix {prefix}) has lost its identity.", RESTORE)
                if not create and role in ("slave", "replica"):
                    raise StoreMissing(
                        f"The server {where} is a replica, and has no memory store with the prefix {prefix} (yet).",
                        "set memory_store.url to the primary, or wait until this one has its primary's data",
                    )
                if not create:
                    raise StoreMissing(
                        f"There is no memory store at {where} with the prefix {prefix}.",
                        "correct memory_store.url and memory_store.prefix, or restore a snapshot there",
                    )
                raw = self._make()
        said, _numbers = counters_of(raw, where)
        if said.get("format") != str(FORMAT):
            raise InvalidInput(
                f"The store {where} has format {said.get('format')}; this version knows format {FORMAT}.",
                "upgrade the collection memops.agent_memory",
            )
        if said.get("layout") != self._layout.name:
            raise InvalidInput(
                f"The store {where} has the layout {said.get('layout')}, not {self._layout.name}.",
                f"set memory_store.layout to {said.get('layout')}",
            )

    def _make(self) -> t.Any:
        """Whoever comes first makes it; nobody ever sees a half-made one."""
        store_id = str(uuid.uuid4())
        fields = {
            "format": FORMAT, "store_id": store_id, "lineage": store_id, "layout": self._layout.name, "epoch": 1,
        }  # fmt: skip
        replies = self.wire.many(
            [
                packed("WATCH", self.names.store), packed("EXISTS", self.names.store), packed("MULTI"),
                packed("HSET", self.names.store, *(x for pair in fields.items() for x in pair)),
            ]
        )  # fmt: skip
        last = self.wire.many([packed("DISCARD" if replies[1] else "EXEC")])[0]
        for reply in [*replies, *(last if isinstance(last, list) else (last,))]:
            if isinstance(reply, Exception):
                raise reply
        return self.wire.call("HGETALL", self.names.store)

    def capabilities(self) -> frozenset[str]:
        return self._capabilities

    def identity(self) -> StoreIdentity:
        return identity_of(*counters_of(self._ask("HGETALL", self.names.store), self.place.where))

    def reader(self, point: str | None = None) -> ValkeyReader:
        wire = self._idle.pop() if self._pid == os.getpid() and self._idle else Wire(self.place)
        return ValkeyReader(wire, self.names, self.envelopes, point, self._take_back)

    def _take_back(self, wire: Wire) -> None:
        if len(self._idle) < IDLE_CONNECTIONS and self._pid == os.getpid() and wire.connected:
            self._idle.append(wire)
        else:
            wire.drop()

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        """Nobody else writes while it is open."""
        with self._transaction() as tx:  # pylint: disable=contextmanager-generator-missing-cleanup
            yield point_of(tx.said, tx.numbers)

    def close(self) -> None:
        for wire in self._idle:
            wire.drop()
        self._idle = []
        self.wire.drop()
