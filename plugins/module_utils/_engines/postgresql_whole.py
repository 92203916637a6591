# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A fence around all namespaces of a PostgreSQL store at once, for a failover to a replica of the server.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import typing as t

from .._errors import StoreUnavailable
from .._model import Claim
from .postgresql_arrays import Blobs
from .postgresql_incidents import ONE
from .postgresql_operators import HOLD, Operators
from .postgresql_rows import escaped, lenient
from .postgresql_session import Session


class Whole(Operators):
    """The part of ``Wholesale`` that ``Store`` has not."""

    def stand_by(self, claim: Claim) -> list[str]:
        with self._operating(claim, alone=True) as session:
            facts = self._facts(session, claim)
            self._wait_for_all(session)
            # Touched, not only locked: an earlier transaction of a stricter level fails when it makes a namespace.
            session.run(f"UPDATE {self.sql.store} SET token = token + 1")
            rows = session.rows(
                f"UPDATE {self.sql.namespace} SET state = 'standby' WHERE state = 'serving' RETURNING name"
            )
            names = sorted({*(facts.get("stood_by") or ()), *(lenient(row[0]) for row in rows)})
            self._keep(session, claim, {**facts, "stood_by": names})
            self._log(session, claim, "fence", claim.incident)
        return names

    def serve_again(self, claim: Claim) -> list[str]:
        with self._operating(claim, alone=True) as session:
            facts = self._facts(session, claim)
            names = facts.pop("stood_by", None)
            if names is None:
                return []
            rows = session.rows(
                f"UPDATE {self.sql.namespace} SET state = 'serving' WHERE state = 'standby' "
                "AND name IN (SELECT unnest(%s)) RETURNING name",
                Blobs([escaped(name) for name in names]),
            )
            self._keep(session, claim, {**facts, "served_again": names})
            self._log(session, claim, "release", claim.incident)
        return sorted(lenient(row[0]) for row in rows)

    def _wait_for_all(self, session: Session) -> None:
        """Who has written holds a namespace's row until its end."""
        try:
            session.rows(f"SELECT name FROM {self.sql.namespace} WHERE state = 'serving' ORDER BY name {HOLD}")
        except StoreUnavailable:
            if session.state != "55P03":  # lock timeout
                raise
            raise self._unended("The whole store", session) from None

    def _facts(self, session: Session, claim: Claim) -> dict[str, t.Any]:
        row = session.row(f"SELECT facts FROM {self.sql.incident} {ONE}", escaped(claim.namespace), claim.incident)
        return t.cast("dict[str, t.Any]", json.loads(row[0]))

    def _keep(self, session: Session, claim: Claim, facts: t.Mapping[str, t.Any]) -> None:
        session.run(
            f"UPDATE {self.sql.incident} SET facts = %s {ONE}",
            json.dumps(facts), escaped(claim.namespace), claim.incident,
        )  # fmt: skip
