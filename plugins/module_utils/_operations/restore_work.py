# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of one restore share: its store, its snapshot, its claim, and how far it is.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import secrets
import time
import typing as t

from .. import _progress
from .._errors import CannotProceed, NamespaceUnknown, StoreMissing
from .._layouts import makes_its_own
from .._model import Claim, NamespaceState
from .._repository import Snapshot
from .._store import Store, open_store
from .incoming import Incoming

RENEW_SECONDS = 15.0
LEASE_SECONDS = 60.0
PREFIX = "restore-"  # of the incidents that a restore opens for itself


class Work:
    """What the parts of one restore share."""

    incoming: Incoming

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        keyring: t.Any,
        namespace: str,
        target: str,
        state: NamespaceState | None,
        owner: str,
        check: bool,
        store_params: t.Mapping[str, t.Any],
    ) -> None:
        self.store, self.snapshot, self.keyring = store, snapshot, keyring
        self.namespace, self.target, self.state = namespace, target, state
        self.owner, self.check, self.store_params = owner, check, store_params
        self.entry: dict[str, t.Any] = snapshot.manifest["namespaces"][namespace]
        _progress.begin("restoring records", self.entry["records"])
        self._renewed = time.monotonic()
        self.locked: int | None = None
        self.untouched = False  # refused before anything was begun, so that there is nothing to go on with

    def say(self, done: int) -> None:
        _progress.tell(done)

    def lock(self) -> int:
        """Take the namespace's write lock; its number."""
        # waits longer than the lease of a restore that was killed before it could note its lock
        self.locked = self.store.lock(self.target, self.owner, LEASE_SECONDS + 5.0, LEASE_SECONDS)
        return self.locked

    def renew(self, claim: Claim | None) -> None:
        """Keep the lease, and the write lock if we hold it, while long work goes on."""
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            if claim is not None:
                self.store.renew(claim, LEASE_SECONDS)
            if self.locked is not None:
                self.store.lock(self.target, self.owner, 1.0, LEASE_SECONDS)


class Opened:
    """``store`` is None in the rehearsal of a restore that would make it."""

    def __init__(self, store_params: t.Mapping[str, t.Any], create: bool, check: bool) -> None:
        self.store: Store | None = None
        try:
            self.store = open_store(store_params, create=create and not check)
        except StoreMissing:
            if not (create and check) or makes_its_own(store_params):
                raise

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


def state_of(store: Store, namespace: str) -> NamespaceState | None:
    with store.reader() as reader:
        try:
            return reader.namespace(namespace)
        except NamespaceUnknown:
            return None


@contextlib.contextmanager
def claimed(
    work: Work, claim: Claim | None, attempt: str | None, takeover: str | None
) -> t.Iterator[Claim | None]:
    """The given claim, or one of a restore's own incident. In check mode none."""
    store = work.store
    if work.check:
        yield None
        return
    if work.state is None or work.state.state == "standby":
        # until it is complete, as nothing else may fill it meanwhile; of one that was left so the fence is looked at
        store.create_namespace(work.target, state="standby", ttl=work.entry["ttl"])
        work.state = state_of(store, work.target)
    if claim is not None:
        yield claim
        return
    for known in store.incidents(work.target):
        if known.state == "open" and not known.incident.startswith(PREFIX):
            raise CannotProceed(
                f"Namespace {work.target!r:.80} has the open incident {known.incident}.",
                "finish that incident, or restore as a step of it: set memory_incident",
            )
    held = store.claim(
        work.target,
        attempt or f"{os.uname().nodename}:{os.getpid()}:{time.time_ns()}",
        work.owner,
        new_incident=PREFIX + secrets.token_hex(6),
        takeover=takeover,
        lease=LEASE_SECONDS,
    )
    try:
        yield held
    except BaseException:
        with contextlib.suppress(Exception):
            if work.untouched:
                store.close_incident(held)
            else:
                store.end_lease(held)
        raise
    store.close_incident(held)
