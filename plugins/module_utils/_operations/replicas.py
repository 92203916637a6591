# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A memory store and the server that it is on, as one side of a failover; and the record of the last failover in it.

PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import asdict

from .._errors import MemoryOpsError
from .._model import IncidentState
from .._replication import Server, Standing, open_server, own_store
from .._store import WHOLE, Store, Wholesale, open_store, whole
from .._store_address import location
from .incident import now_us, rfc3339

SWITCHES: t.Final = ("failover", "failback")


class Side:
    """One host's store. It is opened when it is first asked for, and again after its server changed roles."""

    def __init__(self, params: t.Mapping[str, t.Any], host: str = "") -> None:
        self.params, self._server_params = own_store(params), params
        self.place = " ".join(part for part in location(self.params) if part)  # its own: behind Sentinel both share one
        self.host = host or self.place
        self._server: Server | None = None
        self._store: Store | None = None

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = open_server(self._server_params)
        return self._server

    @property
    def store(self) -> Wholesale:
        """Errors: CapabilityMissing, and those of open_store."""
        if self._store is None:
            self._store = open_store(self.params)
        return whole(self._store)

    def standing(self) -> Standing:
        return self.server.standing()

    def switch(self) -> IncidentState | None:
        """The newest failover or failback of the whole store that this copy knows of."""
        for state in self.store.incidents(WHOLE):
            if state.facts.get("kind") in SWITCHES:
                return state
        return None

    def close(self) -> None:
        for one in (self._server, self._store):
            if one is not None:
                one.close()
        self._server = self._store = None

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def lead_away(old: Side) -> str:
    """Of the applications that know both servers those that do not find the new one yet, in words."""
    try:
        if old.standing().role != "primary":
            return ""
        return old.server.step_aside(old.params.get("application_user"))
    except MemoryOpsError as exc:  # it died, or follows already
        return f"applications that know both servers may go on meeting the fence at {old.host}: {exc.message}"


def describe(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What one server says of itself, and what its copy of the store knows of the last failover. Writes nothing."""
    with Side(params) as side:
        found: dict[str, t.Any] = {"changed": False, **asdict(side.standing()), "appointed": False}
        found["replicas"] = [{"address": address, "position": at} for address, at in found["replicas"]]
        with contextlib.suppress(MemoryOpsError):  # no Sentinel answers, or they have no quorum
            found["appointed"] = side.server.appointed()
        try:
            identity, last = side.store.identity(), side.switch()
        except MemoryOpsError as exc:  # a server without a store is a server all the same
            return {**found, "store_id": None, "epoch": None, "last_switch": None, "warnings": [exc.message]}
        return {**found, "store_id": identity.store_id, "epoch": identity.epoch, "last_switch": record(last)}


def record(state: IncidentState | None) -> dict[str, t.Any] | None:
    """A failover as reports show it."""
    if state is None:
        return None
    names = (
        "kind", "from", "to", "forced", "outside_fence", "position_before", "position_after", "epoch", "promoted_at",
        "silent_seconds",
    )  # fmt: skip
    return {
        "incident": state.incident,
        "state": state.state,
        "attempt": state.attempt,
        **{name: state.facts.get(name) for name in names},
    }


def age(at: int | None) -> float | None:
    """Seconds since a time in microseconds."""
    return None if at is None else (now_us() - at) / 1e6


def told(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:.0f} s"


def at(us: t.Any) -> str | None:
    return rfc3339(us) if isinstance(us, int) else None
