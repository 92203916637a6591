# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Clients that wait in a Valkey or Redis server for something to come (BLPOP, XREAD BLOCK …).

PRIVATE to the collection.

Redis before 7.2 asks for a client's rights when it begins to wait, and not again when it hands out what has come. So
who waited when the fence was raised would get what a rebuild puts there, and take it away.
"""
from __future__ import annotations

import re

from .valkey_connect import Wire, packed

ASKS_AGAIN = (7, 2)
WAITING = frozenset(
    b"blpop brpop blmove brpoplpush blmpop bzpopmin bzpopmax bzmpop xread xreadgroup".split()
)  # fmt: skip


def asks_again(wire: Wire) -> bool:
    """Whether the server asks for the rights of who waited before it hands anything out. Errors: RedisError."""
    raw = wire.call("HELLO", "2")
    version = raw[raw.index(b"version") + 1].decode()
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2]) >= ASKS_AGAIN


def may_end_waits(wire: Wire) -> bool:
    """Errors: redis.exceptions.ConnectionError, …"""
    return not isinstance(_listed(wire), Exception)


def end_waits(wire: Wire, user: str) -> None:
    """Who waits there as ``user`` gets an error, and whoever waits anew is asked for its rights. Nothing where one may
    not do that: the proof says so. Errors: redis.exceptions.ConnectionError, …"""
    said = _listed(wire)
    lines = said.splitlines() if isinstance(said, bytes) else []
    clients = [dict(part.partition(b"=")[::2] for part in line.split(b" ")) for line in lines]
    waiting = [
        one[b"id"] for one in clients
        if b"b" in one[b"flags"] and one.get(b"user") == user.encode() and one[b"cmd"].partition(b"|")[0] in WAITING
    ]  # fmt: skip
    if waiting:
        # as an error: what looks like the end of the wait's time could end a server whose clients are paused
        wire.many([packed("CLIENT", "UNBLOCK", number, "ERROR") for number in waiting])


def _listed(wire: Wire) -> bytes | Exception:
    listed, _unblocked = wire.many([packed("CLIENT", "LIST"), packed("CLIENT", "UNBLOCK", 0)])
    return listed if not isinstance(_unblocked, Exception) else _unblocked
