# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Replication of a whole store's server: how a replica stands to its primary, and the change of roles.

PRIVATE to the collection. One file per engine. It knows servers, no records, namespaces or incidents; what is fenced
before a promotion, and what is proven after it, is ``_operations/``'s.
"""
from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import CapabilityMissing


@dataclass(frozen=True)
class Standing:
    """What one server says of itself, read in one go."""

    role: str  # primary | replica
    position: int  # bytes of the replication stream: written (primary), or received *and applied* (replica)
    history: str  # whose stream that counts: PostgreSQL's system identifier and timeline, Valkey's replication id
    upstream: str | None = None  # a replica: host:port of the server that it follows
    link: bool | None = None  # a replica: whether it is connected to it now
    silent_seconds: float | None = None  # a replica: since it last heard of it; None when nobody can tell
    replicas: tuple[tuple[str, int], ...] = ()  # a primary: (host:port, position told) of those connected
    writable: bool = True  # whether anybody may write there at all
    behind_seconds: float | None = None  # a replica: age of the newest change applied; None when nobody can tell


class Server(t.Protocol):
    """The server that holds one store. Errors everywhere: StoreUnavailable, with the next command."""

    def standing(self) -> Standing: ...

    def follows(self, standing: Standing, other: Standing) -> bool:
        """Whether the one who said ``standing`` really is a replica of the server behind ``other``: same stream, not
        only the same configured address."""

    def applied(self, position: int, timeout: float) -> int:
        """A replica: wait until it has applied ``position``; where it stands. Errors: CannotProceed (what it lacks)."""

    def appointed(self) -> bool:
        """Whether who watches over these servers, and changes their roles alone, names this one as the primary. False
        where nobody does."""

    def promote(self, timeout: float) -> Standing:
        """Make this replica a primary that takes writes; nothing when it already is one. Returns when it does. Errors:
        CannotProceed only where it stays a replica; with any other it may become a primary later."""

    def unacknowledged(self) -> tuple[str, str] | None:
        """Why no write of an application would be acknowledged here once it is the primary, and what to do about it."""

    def step_aside(self, application: str | None) -> str:
        """A former primary, fenced: applications of this user that know several servers find the new one from now on.
        "" or, in words, which of them do not yet."""

    def step_back(self) -> None:
        """Operators may write to a server that stepped aside, before it follows another one."""

    def follow(self, primary: t.Mapping[str, t.Any], timeout: float) -> Standing:
        """Make this former primary a replica of the server that ``primary`` (a memory_store mapping) describes, its own
        later writes thrown away; returns when the link is up and it has caught up. Nothing when it already is."""

    def close(self) -> None: ...


def own_store(params: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    """The store as this very server has it, where ``params`` would lead to whichever is the primary (Sentinel)."""
    if not params.get("url"):
        return params
    return {name: value for name, value in params.items() if name not in ("sentinels", "sentinel_service")}


def open_server(params: t.Mapping[str, t.Any]) -> Server:
    """The server of the store that ``params`` (a memory_store mapping) describes.

    Errors: InvalidInput, StoreUnavailable, CapabilityMissing (an embedded store has no replica).
    """
    engine = params.get("engine") or "sqlite"
    if engine == "postgresql":
        from .postgresql import PostgresqlServer

        return PostgresqlServer.open(params)
    if engine == "valkey":
        from .valkey import ValkeyServer

        return ValkeyServer.open(params)
    raise CapabilityMissing(
        f"A store of the engine {engine} has no replica.",
        "fail over one namespace: memory_failover_scope=namespace, with a secondary that backups keep warm",
    )
