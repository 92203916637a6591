# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An open store on a Valkey server, whatever its layout: recognise it or make it, and lend connections to readers.

PRIVATE to the collection.
"""
from __future__ import annotations

import os
import typing as t
import uuid

from .._errors import StoreDamaged, StoreMissing
from .._layouts import Layout
from .._model import StoreIdentity
from .store_kind import check_kind
from .valkey_connect import Place, Wire, hello, packed
from .valkey_control import counters_of, identity_of
from .valkey_errors import IDENTITY, read_only, valkey_errors
from .valkey_transactions import Connected
from .valkey_values import FORMAT

IDLE_CONNECTIONS = 2


class Opened(Connected):
    """One connection writes; every reader has a connection of its own."""

    def __init__(self, place: Place, layout: Layout) -> None:
        super().__init__(place)
        self._layout = layout
        self._idle: list[Wire] = []
        self._pid = os.getpid()

    def _recognise(self, create: bool) -> None:
        """Errors: StoreMissing, StoreDamaged, InvalidInput for another format or layout."""
        where, prefix = self.place.where, self.place.prefix
        with valkey_errors(self.place):
            role = hello(self.wire).get("role")
            raw = self.wire.ask([packed("HGETALL", self.names.store)])[0]
            if not raw:
                if self.wire.call("EXISTS", self.names.namespaces, self.names.incidents, self.names.logs):
                    raise StoreDamaged(f"The store {where} (prefix {prefix}) has lost its identity.", IDENTITY)
                if not create and role in ("slave", "replica"):
                    raise StoreMissing(
                        f"The server {where} is a replica, and has no memory store with the prefix {prefix} (yet).",
                        "set memory_store.url to the primary, or wait until this one has its primary's data",
                    )
                if not create:
                    raise StoreMissing(
                        f"There is no memory store at {where} with the prefix {prefix}.",
                        "correct memory_store.url and memory_store.prefix, or restore a snapshot there: "
                        "ansible-playbook memops.agent_memory.restore -e memory_create=true",
                    )
                raw = self._make()
        self._check_kind(raw)

    def _check_kind(self, raw: t.Sequence[bytes]) -> None:
        """Errors: InvalidInput for another format or layout."""
        where = self.place.where
        said, _numbers = counters_of(raw, where)
        check_kind(
            where, said.get("format"), said.get("layout"), str(FORMAT), self._layout.name, "memory_store.prefix"
        )

    def need_primary(self) -> None:
        """See _store_optional.MayFollow. On a Cluster who is asked is found anew."""
        with valkey_errors(self.place):
            role = hello(self.wire).get("role")
        if role in ("slave", "replica") and not self.place.nodes.clustered:
            raise read_only(self.place)

    def _make(self) -> t.Any:
        """Whoever comes first makes it; nobody ever sees a half-made one."""
        store_id = str(uuid.uuid4())
        fields = {
            "format": FORMAT, "store_id": store_id, "lineage": store_id, "layout": self._layout.name, "epoch": 1,
            **self._more_fields(),
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

    def _more_fields(self) -> dict[str, t.Any]:
        """What the store's own hash says beside."""
        return {}

    def identity(self) -> StoreIdentity:
        return identity_of(*counters_of(self._ask("HGETALL", self.names.store), self.place.where))

    def _lent(self) -> Wire:
        """A connection for a reader."""
        return self._idle.pop() if self._pid == os.getpid() and self._idle else Wire(self.place)

    def _take_back(self, wire: Wire) -> None:
        if len(self._idle) < IDLE_CONNECTIONS and self._pid == os.getpid() and wire.connected:
            self._idle.append(wire)
        else:
            wire.drop()

    def close(self) -> None:
        for wire in self._idle:
            wire.drop()
        self._idle = []
        self.wire.drop()
