# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A fence around all namespaces of a Valkey store at once, for a failover to a replica of the server.

PRIVATE to the collection.

It binds Memory. Users of the server keep their rights, as those are each server's own and do not replicate: the change
of roles itself holds their writes back (``FAILOVER``), and a replica refuses them.
"""
from __future__ import annotations

import typing as t

from .._model import Claim
from .valkey_incidents import Incidents
from .valkey_operators import FENCE_PATIENCE, Operators
from .valkey_transactions import repeated


class Whole(Operators, Incidents):
    """The part of ``Wholesale`` that ``Store`` has not."""

    @repeated
    def stand_by(self, claim: Claim) -> list[str]:
        with self._operating(claim, force_after=FENCE_PATIENCE) as tx:
            row = self._own(tx, claim)
            names = set(row["facts"].get("stood_by") or ())
            for raw in tx.read("HKEYS", self.names.namespaces):
                name = raw.decode()
                space = self._namespace(tx, name)
                if space["state"] == "serving":
                    space["state"] = "standby"
                    tx.save(name)
                    names.add(name)
            row["facts"]["stood_by"] = sorted(names)
            self._write(tx, row)
            self._log(tx, claim, "fence", claim.incident)
            tx.durable = True
        return sorted(names)

    def serve_again(self, claim: Claim) -> list[str]:
        self._raise_again()  # what is quarantined has to be so for this server's users, too
        return self._serve_again(claim)

    @repeated
    def _serve_again(self, claim: Claim) -> list[str]:
        with self._operating(claim, force_after=FENCE_PATIENCE) as tx:
            row = self._own(tx, claim)
            names = row["facts"].pop("stood_by", None)
            if names is None:
                return []
            changed = []
            for name in names:
                space = tx.space(name)
                if space is not None and space["state"] == "standby":
                    space["state"] = "serving"
                    tx.save(name)
                    changed.append(name)
            row["facts"]["served_again"] = names
            self._write(tx, row)
            self._log(tx, claim, "release", claim.incident)
            tx.durable = True
        return changed

    def prove_standing_by(self, names: t.Sequence[str]) -> dict[str, t.Any]:
        detail = [line for name in names[:1] for line in self.prove(name)["detail"] if "by Memory" in line]
        return {
            "writes_refused": all(line.endswith("refused") for line in detail),
            "detail": detail or ["no namespace served"],
            "not_fenced": ["raw clients, until the change of roles holds their writes back"],
        }
