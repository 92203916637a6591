# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which generations a namespace of a Valkey store has, and what it was filled from: the control rows, no records.

PRIVATE to the collection. Every layout shares it.
"""
from __future__ import annotations

import abc
import typing as t

from .._errors import CannotProceed, RepositoryRefused
from .._model import Claim
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_server import refuse_eviction
from .valkey_transactions import Connected, repeated


class Filling(Connected, abc.ABC):
    """The part of ``Store`` that fills namespaces, but for the records."""

    def begin_generation(self, claim: Claim) -> int:
        with valkey_errors(self.place):
            refuse_eviction(self.wire)
        return self._begin_generation(claim)

    @repeated
    def _begin_generation(self, claim: Claim) -> int:
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            number = self._make_generation(tx, claim.namespace)
            space["generations"].append(number)
            tx.save(claim.namespace)
        return number

    def _inactive(self, tx: Transaction, claim: Claim, generation: int) -> dict[str, t.Any]:
        space = self._namespace(tx, claim.namespace)
        if generation not in space["generations"] or generation == space["generation"]:
            why = "is the active one" if generation in space["generations"] else "does not exist"
            raise CannotProceed(
                f"Generation {generation} of namespace {claim.namespace!r:.80} {why}.",
                "begin a new generation and use that",
            )
        return space

    def _one_of(self, space: t.Mapping[str, t.Any], claim: Claim, generation: int) -> None:
        if generation not in space["generations"]:
            raise CannotProceed(
                f"Namespace {claim.namespace!r:.80} has no generation {generation}.", "name one that it has"
            )

    def _anywhere(self, tx: Transaction, generation: int) -> bool:
        return any(
            generation in (tx.space(raw.decode()) or {}).get("generations", ())
            for raw in tx.read("HKEYS", self.names.namespaces)
        )

    def generations(self, namespace: str) -> list[int]:
        return sorted(self._space(namespace)["generations"])

    @repeated
    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        with self._operating(claim) as tx:
            self._namespace(tx, claim.namespace).update(
                restored_snapshot=snapshot, restored_epoch=epoch, restored_sequence=sequence, restored_at=at,
                restored_digest=digest,
            )  # fmt: skip
            tx.save(claim.namespace)
            self._keep_up(tx, epoch, sequence, at)

    @repeated
    def adopt_lineage(self, lineage: str) -> bool:
        with self._transaction() as tx:
            own = tx.said["lineage"]
            if own == lineage:
                return False
            if tx.numbers["sequence"] or self._any_record(tx):
                raise RepositoryRefused(
                    f"The store {self.place.where} has records of its own, of lineage {own}; the snapshot's is "
                    f"{lineage}.",
                    "restore into an empty store, or name the repository that belongs to this store",
                )
            tx.add("HSET", self.names.store, "lineage", lineage)
        return True

    @abc.abstractmethod
    def _any_record(self, tx: Transaction) -> bool:
        """Whether any namespace holds a record."""
