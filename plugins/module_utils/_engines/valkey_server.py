# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a Valkey server says of itself, and what that means for the records in it.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._errors import CannotProceed
from .valkey_connect import Wire, packed


def server(wire: Wire) -> list[str]:
    """What the server's own state means for the records in it."""
    known = said(wire, ("memory", "persistence"))
    lines = []
    policy = known.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys-"):
        lines.append(f"maxmemory-policy is {policy}: the server may drop records; set it to noeviction")
    if known.get("loading") == "1":
        lines.append("the server is still loading its data")
    return lines


def refuse_eviction(wire: Wire) -> None:
    """Before an operator's bulk write. Errors: CannotProceed where the server may drop what is written, or other
    records to make room for it; RedisError."""
    policy = dropping(said(wire, ("memory",)))
    if policy:
        raise CannotProceed(
            f"The server {wire.place.where} may drop records while they are written: its maxmemory-policy is "
            f"{policy}.",
            "set maxmemory-policy to noeviction there, then run the same command again",
        )


def evicted(wire: Wire) -> int:
    """How many keys the server dropped for want of memory since it was started; 0 where the user may not ask."""
    return int(said(wire, ("stats",)).get("evicted_keys") or 0)


def dropping(known: t.Mapping[str, str]) -> str | None:
    """The policy by which the server drops records when its memory is used up, if it may."""
    policy = known.get("maxmemory_policy", "noeviction")
    return policy if policy.startswith("allkeys-") and known.get("maxmemory", "0") != "0" else None


def said(wire: Wire, sections: t.Sequence[str]) -> dict[str, str]:
    """Fields of INFO; nothing where the user may not ask."""
    known: dict[str, str] = {}
    for reply in wire.many([packed("INFO", section) for section in sections]):
        if isinstance(reply, bytes):
            pairs = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
            known.update((name, value) for name, colon, value in pairs if colon)
    return known
