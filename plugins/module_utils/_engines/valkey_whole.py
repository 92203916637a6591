# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A fence around all namespaces of a Valkey store at once, for a failover to a replica of the server.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._model import Claim
from .._store import WHOLE
from .valkey_control import Transaction, space_of
from .valkey_errors import RightMissing
from .valkey_fencing import FENCE_PATIENCE
from .valkey_incidents import Incidents
from .valkey_operators import Operators
from .valkey_transactions import repeated


class Whole(Operators, Incidents):
    """The part of ``Wholesale`` that ``Store`` has not. The applications' user loses all namespaces, also new ones."""

    def stand_by(self, claim: Claim) -> list[str]:
        names = self._whole(self._stand_by, claim)
        self._end_waits()
        return names

    def serve_again(self, claim: Claim) -> list[str]:
        return self._whole(self._serve_again, claim)

    def _whole(self, act: t.Callable[[Claim, bool], list[str]], claim: Claim) -> list[str]:
        """As ``_for_users``."""
        try:
            names = act(claim, True)
        except RightMissing as exc:
            if not exc.command.startswith("acl"):
                raise
            return act(claim, False)
        if self._fenced_user is not None:
            self._save_users(roles_change=True)
            self._fence_replicas(WHOLE)
        return names

    @repeated
    def _stand_by(self, claim: Claim, users: bool) -> list[str]:
        with self._operating(claim, force_after=FENCE_PATIENCE) as tx:
            row = self._own(tx, claim)
            serving = self._turn(tx, "serving", "standby", None)
            names = sorted({*(row["facts"].get("stood_by") or ()), *serving})
            row["facts"] = {**row["facts"], "stood_by": names}
            self._write(tx, row)
            if serving:
                self._log(tx, claim, "fence", claim.incident)
            if users:
                self._shut_out(tx, WHOLE)
            tx.durable = True
        return names

    @repeated
    def _serve_again(self, claim: Claim, users: bool) -> list[str]:
        if users:
            self._let_in_whole_first(claim)
        with self._operating(claim) as tx:
            row = self._own(tx, claim)
            names = row["facts"].pop("stood_by", None)
            if names is None:
                return []
            back = self._turn(tx, "standby", "serving", names)
            row["facts"]["served_again"] = names
            self._write(tx, row)
            self._log(tx, claim, "release", claim.incident)
            if users:
                self._let_in(tx, WHOLE)
            tx.durable = True
        return back

    @repeated
    def _let_in_whole_first(self, claim: Claim) -> None:
        """As ``_let_in_first``."""
        with self._operating(claim) as tx:
            if "stood_by" not in self._own(tx, claim)["facts"]:
                return
            self._let_in(tx, WHOLE, noted_still=True)
            tx.durable = True
        self._save_users(roles_change=True)

    def _turn(self, tx: Transaction, before: str, after: str, only: t.Sequence[str] | None) -> list[str]:
        """Those namespaces (None: all) that change their state, in order."""
        raw = tx.read("HGETALL", self.names.namespaces)
        turned = []
        for name, value in zip(raw[::2], raw[1::2]):
            space = space_of(value, name.decode(), self.place.where)
            if space["state"] == before and (only is None or name.decode() in only):
                tx.save(name.decode(), {**space, "state": after})
                turned.append(name.decode())
        return sorted(turned)
