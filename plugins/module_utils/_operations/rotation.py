# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the three rotations share (of record keys, of an application's keys, by the application itself): who rotates,
and the claim on a namespace, in the incident that is named or open, else in one of the rotation's own.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
import typing as t

from .._errors import MemoryOpsError
from .._model import Claim
from .._store import Store

PREFIX = "rotation-"  # of the incidents that a rotation opens for itself
LEASE = 60.0


class Attempt(t.NamedTuple):
    """Who rotates."""

    attempt: str
    owner: str
    incident: str | None
    takeover: str | None


def attempt_of(attempt: str | None, owner: str | None, incident: str | None, takeover: str | None) -> Attempt:
    """Where nobody is named, this process."""
    me = f"{socket.gethostname()}:{os.getpid()}:{int(time.monotonic())}"
    return Attempt(attempt or me, owner or me, incident, takeover)


def namespaces_of(store: Store, namespace: str | t.Sequence[str] | None) -> list[str]:
    """The named ones, each once; None: all that there are. Errors: NamespaceUnknown."""
    with store.reader() as reader:
        if namespace is None:
            return [state.name for state in reader.namespaces()]
        names = [namespace] if isinstance(namespace, str) else list(dict.fromkeys(namespace))
        for name in names:
            reader.namespace(name)
        return names


def claim_for(store: Store, namespace: str, who: Attempt) -> Claim:
    own = PREFIX + time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(3)
    return store.claim(
        namespace,
        who.attempt,
        who.owner,
        incident=who.incident,
        new_incident=who.incident or own,
        takeover=who.takeover,
        lease=LEASE,
    )


def let_go(store: Store, claim: Claim) -> None:
    """After an error the next run need not wait for the lease of a rotation's own incident."""
    if claim.incident.startswith(PREFIX):
        try:
            store.end_lease(claim)
        except MemoryOpsError:
            pass  # closed already, taken over, or the store is away: the lease runs out by itself
