# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A Valkey or Redis server whose keys are another application's own: layout ``keyspace``.

PRIVATE to the collection. Quarantines, incidents, leases and what lies aside stand below the store's prefix, as for the
native layout, by the same code (valkey_*.py); they are made with the first thing that an operator changes.
"""
from __future__ import annotations

import contextlib
import re
import typing as t

from .._errors import CannotProceed, CapabilityMissing, InvalidInput, MemoryOpsError
from .._layouts import Layout
from .._model import Claim, StoreIdentity
from .._store import WHOLE
from .applications_own import ApplicationsOwn
from .keyspace_generations import KeyspaceGenerations
from .keyspace_pattern import KeyspaceNames, Pattern
from .keyspace_reader import KeyspaceReader, any_key
from .valkey_connect import Place, hello, packed, place_of
from .valkey_control import Transaction, counters_of, identity_of
from .valkey_errors import valkey_errors
from .valkey_incidents import Incidents
from .valkey_opened import Opened
from .valkey_server import said
from .valkey_structure import Structure

CAPABILITIES = frozenset(("expiry", "generations"))
NAMES = "a program that lists names of keys (SCAN, KEYS, RANDOMKEY): it sees the names here, not the values"
BY_USERS = frozenset(("fence-reads", "fence-writes", "fence-raw-reads"))  # where the application has a user of its own


class KeyspaceStore(ApplicationsOwn, Opened, KeyspaceGenerations, Incidents, Structure):
    """See _store.Store."""

    names: KeyspaceNames

    def __init__(self, place: Place, layout: Layout, pattern: t.Any) -> None:
        super().__init__(place, layout)
        self.names = KeyspaceNames(place.prefix, Pattern(pattern, place.prefix))
        self._made = False
        self._capabilities = (CAPABILITIES | (BY_USERS if self._fenced_user else frozenset())) & layout.capabilities

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> KeyspaceStore:
        store = cls(place_of(params), layout, params.get("pattern"))
        try:
            with valkey_errors(store.place):
                hello(store.wire)
                if store.place.nodes.clustered and not store.place.nodes.spread:
                    from .keyspace_cluster import KeyspaceClusterStore

                    store.close()
                    return KeyspaceClusterStore.open(params, layout)
                raw = store.wire.ask([packed("HGETALL", store.names.store)])[0]
            if raw:
                store._check_kind(raw)
                store._made = True
        except BaseException:
            store.close()
            raise
        return store

    def layout_name(self) -> str:
        return self._layout.name

    def _more_fields(self) -> dict[str, t.Any]:
        return {"pattern": self.names.pattern.text}

    def _check_kind(self, raw: t.Sequence[bytes]) -> None:
        super()._check_kind(raw)
        known = counters_of(raw, self.place.where)[0].get("pattern")
        if known != self.names.pattern.text:
            raise InvalidInput(
                f"The store {self.place.where} (prefix {self.place.prefix}) was used with the pattern {known}, not "
                f"{self.names.pattern.text}.",
                "correct memory_store.pattern, or set another memory_store.prefix for these keys",
            )

    def _begin(self, force_after: float | None) -> Transaction:
        if not self._made:
            with valkey_errors(self.place):
                self._check_kind(self._make())
            self._made = True
        return super()._begin(force_after)

    def capabilities(self) -> frozenset[str]:
        return self._capabilities

    def identity(self) -> StoreIdentity:
        raw = self._ask("HGETALL", self.names.store)
        return identity_of(*counters_of(raw, self.place.where)) if raw else self._nobody()

    def _nobody(self) -> StoreIdentity:
        return StoreIdentity("", "", "valkey", self._layout.name, 0, 0)

    def reader(self, point: str | None = None) -> KeyspaceReader:
        return KeyspaceReader(self._lent(), self.names, self.envelopes, self._take_back)

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        """The server keeps no former state: a reader sees what is there, and ``moved`` says whether it stood still."""
        yield "now"

    def _namespace(self, tx: Transaction, name: str) -> dict[str, t.Any]:
        """A namespace has a control row from the first time that an operator changes something about it."""
        space = tx.space(name)
        if space is None:
            self.names.pattern.check(name)
            if any_key(self._server(tx.read_all), self.names, name):
                return self._make_namespace(tx, name, "serving", None)
        return super()._namespace(tx, name)

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        self.names.pattern.check(name)
        return super().create_namespace(name, state, None)

    # --- the fence ----------------------------------------------------------------------------------------------
    def _for_users(self, act: t.Callable[[Claim, bool], bool], claim: Claim) -> bool:
        """Here the server's users are the whole fence: it stands with them, or nothing is said to be fenced."""
        user = self.place.application_user
        if user is None or self._fenced_user is None:
            why = "no memory_store.application_user is set" if user is None else f"{user} is the operator's own user"
            raise CapabilityMissing(
                f"Nothing can keep an application from the keys of {claim.namespace!r:.80} (fence-writes): {why}.",
                "give the application a user of its own on the server and name it in memory_store.application_user",
            )
        if re.search(r"\s", claim.namespace):
            raise CapabilityMissing(
                f"The server's users cannot be kept from {claim.namespace!r:.80} (fence-writes): a key pattern of an "
                "ACL takes no space.",
                "stop the application, or rename the namespace there",
            )
        if self._user(user) is None:
            raise CannotProceed(
                f"The server {self.place.where} has no user {user}.", "correct memory_store.application_user"
            )
        changed = act(claim, True)
        if changed:
            self._save_users()
        return self._fence_replicas(claim.namespace) or changed

    def _all_namespaces(self) -> set[str]:
        return super()._all_namespaces() - {WHOLE}

    def unfence(self, claim: Claim) -> bool:
        self._not_moving(self._space(claim.namespace), claim.namespace)
        return super().unfence(claim)

    def prove(self, namespace: str) -> dict[str, t.Any]:
        try:
            writes, reads, answered, detail, open_to = self._prove_users(namespace, 0)
        except MemoryOpsError as exc:
            writes = reads = answered = False
            detail, open_to = [f"raw commands: not tried ({exc.message})"], ["clients of any user of the server"]
        if self.place.application_user is None:
            writes = reads = answered = False
            detail.append("no memory_store.application_user is set, so nobody is kept from the keys")
        at_replicas, there = self._prove_replicas(namespace, 0)
        return {
            "writes_refused": writes,
            "reads_refused": reads,
            "reads_accepted": answered,
            "detail": detail + at_replicas,
            "not_fenced": [*open_to, *there, *self._standing(), NAMES],
        }

    # --- health -------------------------------------------------------------------------------------------------
    def repair_structure(self) -> list[str]:
        with valkey_errors(self.place):
            return self.lead_back() + self._raise_again()

    def lead_back(self) -> list[str]:
        return super().lead_back() if self._made else []

    def warnings(self) -> list[str]:
        lines = super().warnings()
        with valkey_errors(self.place):
            known = said(self.wire, ("memory",))
        policy = known.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and known.get("maxmemory", "0") != "0":
            lines.append(
                f"maxmemory-policy is {policy}: the server may drop keys by itself, and nobody can tell such a key "
                "from one that was lost"
            )
        if not self._capabilities >= BY_USERS:
            lines.append("no memory_store.application_user is set: nothing can be fenced, so nothing can be isolated")
        return lines
