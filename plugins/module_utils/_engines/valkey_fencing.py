# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Quarantine a namespace of a Valkey store and lift it again: its state and the server's users change together.

PRIVATE to the collection. Every layout shares it.
"""
from __future__ import annotations

import functools
import typing as t

from .._errors import InvalidInput
from .._model import Claim
from .leases import settable
from .valkey_control import Transaction
from .valkey_errors import RightMissing, valkey_errors
from .valkey_incidents import may_be_new
from .valkey_log import LogKeeping
from .valkey_replicas import ReplicaFence
from .valkey_transactions import repeated

QUARANTINE_TTL = 1.0
FENCE_PATIENCE = 1.0  # seconds that a fence waits for a write in progress before it breaks it


class Fencing(LogKeeping, ReplicaFence):
    """``fence``, ``unfence`` and ``set_state`` of ``Store``, and namespaces that are made."""

    def _log(self, tx: Transaction, claim: Claim, operation: str, reason: str) -> None:
        at = max(self.clock(), tx.numbers["newest"])
        self._append(
            tx, [(0, at, claim.namespace, operation, None, None, None, None, None, claim.attempt, reason, b"")]
        )

    # --- the fence ----------------------------------------------------------------------------------------------
    def fence(self, claim: Claim) -> bool:
        changed = self._for_users(self._fence, claim)
        if not changed and self._fenced_user is not None:
            self._save_users()  # whoever raised it may have been killed before that
        self._end_waits()
        return changed

    def unfence(self, claim: Claim) -> bool:
        return self._for_users(self._unfence, claim)

    def _for_users(self, act: t.Callable[[Claim, bool], bool], claim: Claim) -> bool:
        """State and users change together; where the operator may not change users, the state alone, and the proof
        says so."""
        try:
            changed = act(claim, True)
        except RightMissing as exc:
            if not exc.command.startswith("acl"):
                raise
            return act(claim, False)
        if self._fenced_user is None:
            return changed
        if changed:
            self._save_users()
        return self._fence_replicas(claim.namespace) or changed

    @repeated
    def _fence(self, claim: Claim, users: bool) -> bool:
        with self._operating(claim, force_after=FENCE_PATIENCE) as tx:
            space = self._namespace(tx, claim.namespace)
            changed = space["state"] != "quarantined" or space["incident"] != claim.incident
            if space["state"] != "quarantined":
                space.update(
                    prior_state=space["state"], prior_ttl=space["serving_ttl"], state="quarantined",
                    serving_ttl=QUARANTINE_TTL,
                )  # fmt: skip
            if changed:
                space["incident"] = claim.incident  # one may be left of an incident that was closed without a release
                tx.save(claim.namespace)
                self._log(tx, claim, "fence", claim.incident)
            taken = users and self._shut_out(tx, claim.namespace)
            tx.durable = True
        return changed or taken

    @repeated
    def _let_in_first(self, claim: Claim, *, reading: bool = False) -> None:
        """The server's file of users is written before the state changes, and replicas let them in. A server that was
        killed between the two, or one that was promoted, would keep applications out of a namespace that serves, and
        that nobody releases again."""
        with self._operating(claim) as tx:
            if not reading and self._namespace(tx, claim.namespace)["state"] != "quarantined":
                return
            self._let_in(tx, claim.namespace, reading=reading, noted_still=True)
            tx.durable = True
        self._save_users()
        self._let_in_beside(claim.namespace, reading)

    @repeated
    def _unfence(self, claim: Claim, users: bool) -> bool:
        if users:
            self._let_in_first(claim)
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            if space["state"] != "quarantined":
                return False
            space.update(
                state=space["prior_state"], serving_ttl=space["prior_ttl"], incident=None, prior_state=None,
                prior_ttl=None,
            )  # fmt: skip
            tx.save(claim.namespace)
            self._log(tx, claim, "release", claim.incident)
            if users:
                self._let_in(tx, claim.namespace)
            tx.durable = True
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        """In a quarantine this sets the state that the release brings back: nothing is served in between."""
        settable(state)
        if state != "reading" and self._noted_reading(claim.namespace):
            self._let_in_first(claim, reading=True)
        changed = self._for_users(functools.partial(self._set_state, state), claim)
        if state == "reading":
            self._end_waits()
        return changed

    @repeated
    def _set_state(self, state: str, claim: Claim, users: bool) -> bool:
        with self._operating(claim, force_after=FENCE_PATIENCE) as tx:
            space = self._namespace(tx, claim.namespace)
            column = "prior_state" if space["state"] == "quarantined" else "state"
            changed = space[column] != state
            if changed:
                space[column] = state
                tx.save(claim.namespace)
            taken = False
            if users and state == "reading":
                taken = self._shut_out(tx, claim.namespace, reading=True)
            elif users:
                self._let_in(tx, claim.namespace, reading=True)
            tx.durable = changed or taken
        return changed or taken

    @repeated
    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        if state not in ("serving", "standby"):
            raise InvalidInput(f"A namespace cannot begin as {state!r}.", "use serving or standby")
        with self._transaction() as tx:
            if tx.space(name) is not None:
                return False
            if state == "serving":
                may_be_new(tx, self.names)
            self._make_namespace(tx, name, state, ttl)
        return True

    def settle(self) -> None:
        with valkey_errors(self.place):
            self.wire.call("HSET", self.names.store, "settled", self.clock())  # the server waits for a connection's own
        self._await_disk()

    @repeated
    def raise_epoch(self, claim: Claim, above: int) -> int:
        with self._operating(claim) as tx:
            epoch = tx.numbers["epoch"] = max(above, tx.numbers["epoch"]) + 1
            self._log(tx, claim, "promote", f"epoch {epoch}")
            tx.durable = True
        return epoch
