# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A Valkey Cluster whose keys are another application's own, in all its slots: layout ``keyspace``.

PRIVATE to the collection. What is the collection's own lies in one slot, as for the native layout: all decisions are
made there, by its transactions. The application's keys are read and changed at their nodes (keyspace_slots.py), and
the fence stands at every node of the Cluster.
"""
from __future__ import annotations

import typing as t

from .._errors import MemoryOpsError, StoreUnavailable
from .._layouts import Layout
from .._model import Claim, Row
from .._store import WHOLE
from .keyspace import KeyspaceStore
from .keyspace_cluster_generations import ClusterGenerations
from .keyspace_cluster_records import ClusterNames
from .keyspace_pattern import Pattern
from .keyspace_reader import KeyspaceReader, fence_stands
from .keyspace_slots import Slots
from .valkey_connect import Place, Wire
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_server import evicted, server
from .valkey_values import Envelopes


class ClusterReader(KeyspaceReader):
    """See _store.Reader."""

    def __init__(
        self, wire: Wire, names: ClusterNames, envelopes: Envelopes, release: t.Callable[[Wire], None]
    ) -> None:
        self._slots = Slots(wire)
        super().__init__(wire, names, envelopes, release)
        self._server = self._slots

    def close(self) -> None:
        self._slots.close()
        super().close()

    def _stands(self, space: t.Mapping[str, t.Any], name: str) -> bool:
        with valkey_errors(self._wire.place):
            return fence_stands(self._wire, self._names, space, name, self._slots.everywhere)

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        """What was staged and is not named yet, as its step was killed, is not there."""
        found = super().get_many(namespace, keys, generation)
        staged = self._staged(namespace, self._generation(namespace, generation))
        if staged is None or not found:
            return found
        known = self._ask("ZMSCORE", self._names.index(namespace, staged), *(key.encode() for key in found))
        return {key: row for (key, row), score in zip(found.items(), known) if score is not None}

    def drops(self) -> int:
        with valkey_errors(self._wire.place):
            return sum(map(evicted, self._slots.primaries()))

    def _said(self) -> list[str]:
        return ["{}:{}: {}".format(*wire.address, line) for wire in self._slots.primaries() for line in server(wire)]


class KeyspaceClusterStore(ClusterGenerations, KeyspaceStore):
    """See _store.Store."""

    names: ClusterNames

    def __init__(self, place: Place, layout: Layout, pattern: t.Any) -> None:
        super().__init__(place, layout, pattern)
        self.names = ClusterNames(place.prefix, Pattern(pattern, place.prefix))
        place.nodes.spread = True
        self.slots = Slots(self.wire)

    def close(self) -> None:
        self.slots.close()
        super().close()

    def reader(self, point: str | None = None) -> ClusterReader:
        return ClusterReader(self._lent(), self.names, self.envelopes, self._take_back)

    def _begin(self, force_after: float | None) -> Transaction:
        """The hold is not broken here, not even for a fence: until it ends, its holder may write at other nodes."""
        return super()._begin(None)

    def claim(self, namespace: str, attempt: str, owner: str, **more: t.Any) -> Claim:
        claim = super().claim(namespace, attempt, owner, **more)
        if namespace != WHOLE and self._space(namespace).get("changing"):
            self.settle_change(claim)
        return claim

    def fence(self, claim: Claim) -> bool:
        changed = super().fence(claim)
        if not self._stands(self._space(claim.namespace), claim.namespace):
            raise StoreUnavailable(
                f"The fence around {claim.namespace!r:.80} does not stand at every node of the Cluster at "
                f"{self.place.where}.",
                f"see that all nodes are up and have the user {self.place.application_user}, then run the same command "
                "again",
            )
        return changed

    def unfence(self, claim: Claim) -> bool:
        self.settle()  # what applications get back is on disk
        return super().unfence(claim)

    def prove(self, namespace: str) -> dict[str, t.Any]:
        proof = super().prove(namespace)
        try:
            self.slots.map(fresh=True)
        except MemoryOpsError as exc:
            proof.update(writes_refused=False, reads_refused=False)
            proof["not_fenced"].append(f"clients of a node that could not be asked ({exc.message})")
        return proof
