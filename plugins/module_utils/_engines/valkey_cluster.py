# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Valkey Cluster: which node owns the hash slot in which all keys of a store lie, and how to get there again.

PRIVATE to the collection.

A prefix with a hash tag (``{memops-a}``) puts every key of a store into one slot, so that its transactions stay atomic;
several stores spread over the primaries. Any node tells who the owner is: it answers a look at a key with MOVED. That
needs no other right than the store's own. On a server without cluster mode a hash tag means nothing.
"""
from __future__ import annotations

import contextlib
import re
import typing as t
import urllib.parse

from .._errors import CapabilityMissing, InvalidInput, MemoryOpsError, StoreMoved, StoreUnavailable

if t.TYPE_CHECKING:
    from .valkey_connect import Place, Wire

FAILOVER_SECONDS = 30.0  # a Cluster's failover takes its node timeout (15 s by default) and a little more
HOPS = 8
Address = t.Tuple[str, int]


def addresses(text: str) -> list[Address]:
    """Of "host:port,host"; nothing when one of them is none."""
    out: list[Address] = []
    for one in text.split(","):
        try:
            parts = urllib.parse.urlsplit(f"//{one}")
            host, port = parts.hostname, parts.port
        except ValueError:
            return []
        if not host:
            return []
        out.append((host, port or 6379))
    return out


def hash_tag(prefix: str) -> str | None:
    """What of the prefix a Cluster hashes; None when it would hash whole keys."""
    found = re.search(r"\{([^}]*)\}", prefix)
    return found[1] or None if found else None


class Nodes:
    """The nodes that one store's connections know of; the one that owned the slot last comes first."""

    def __init__(self, prefix: str, seeds: t.Sequence[Address]) -> None:
        self.tagged = hash_tag(prefix) is not None
        self.clustered = False  # until a server says so
        self.spread = False  # the application's keys lie in all slots, so that every node counts
        self._prefix = prefix
        self._known: list[Address] = list(seeds)

    def check(self, alone: str | None = None) -> None:
        """``alone``: the server that said that it runs without cluster mode. Errors: InvalidInput."""
        if len(self._known) > 1 and not self.tagged:
            raise InvalidInput(
                f"memory_store.url names several servers, and the prefix {self._prefix!r:.80} has no hash tag.",
                "for a Cluster put the prefix into braces, such as '{memops}'; else name the primary alone",
            )
        if len(self._known) > 1 and alone:
            raise InvalidInput(
                f"The server {alone} runs without cluster mode, and memory_store.url names several servers.",
                "name the primary alone",
            )

    @property
    def slot(self) -> int:
        from redis.crc import key_slot

        return int(key_slot(self._prefix.encode()))

    @property
    def known(self) -> list[Address]:
        return list(self._known)

    def first(self, address: Address) -> None:
        self._known = [address, *(one for one in self._known if one != address)]

    def add(self, addresses: t.Iterable[Address]) -> None:
        self._known += [one for one in dict.fromkeys(addresses) if one not in self._known]


def reach(wire: Wire) -> None:
    """Connect to the owner of the store's slot. Errors: redis.exceptions.RedisError of the last node that was asked."""
    from redis import exceptions as e

    nodes, waiting, failed = wire.place.nodes, wire.place.nodes.known, set()
    trouble: Exception = e.ConnectionError("refused")
    for _hop in range(HOPS + len(waiting)):
        if not waiting:
            break
        address = waiting.pop(0)
        try:
            said = wire.look(address)
        except e.AuthenticationError:
            raise
        except (e.ConnectionError, e.TimeoutError) as exc:
            failed.add(address)
            trouble = exc
            continue
        if isinstance(said, e.MovedError):
            nodes.clustered = True
            there = (said.host or address[0], said.port)
            trouble = said
            if there not in failed:
                waiting = [there, *(one for one in waiting if one != there)]
        elif isinstance(said, e.ClusterDownError):
            nodes.clustered = True
            trouble = said
            if uncovered(said):
                break
        else:  # whatever else is wrong, the commands that follow meet it
            nodes.first(address)
            nodes.add(one for part in slots(wire) for one in part[2])
            return
        wire.drop()
    raise trouble


def slots(wire: Wire) -> list[tuple[int, int, list[Address]]]:
    """(first, last, nodes with the primary first) of each range; nothing where the user may not ask.

    Errors: redis.exceptions.ConnectionError and TimeoutError.
    """
    from .valkey_connect import packed

    reply = wire.many([packed("CLUSTER", "SLOTS")])[0]
    if not isinstance(reply, list):
        return []
    here = wire.address
    return [
        (part[0], part[1], [((one[0] or b"").decode().strip("?") or here[0], int(one[1])) for one in part[2:]])
        for part in reply
    ]


def shard(wire: Wire) -> list[Address] | None:
    """The nodes that may serve the store's keys now, the primary of its slot first; None where the user may not ask."""
    ranges, slot = slots(wire), wire.place.nodes.slot
    own = next((nodes for first, last, nodes in ranges if first <= slot <= last), None)
    if own is None or not wire.place.nodes.spread:
        return own
    return list(dict.fromkeys([*own, *(node for _first, _last, nodes in ranges for node in nodes)]))


def replicas(wire: Wire) -> t.Iterator[Wire]:
    """A connection to each other node that may serve the store's keys now: users and their rights are each node's own.

    None where the user may not ask for them. Errors: redis.exceptions.RedisError, that of a node when it is used.
    """
    if not wire.place.nodes.clustered:
        return
    for address in (shard(wire) or [])[1:]:
        with contextlib.closing(wire.to(address)) as other:
            yield other


def elsewhere(exc: Exception) -> bool:
    """Whether an error of a node means that the slot is served by another one, or will be in a moment."""
    from redis import exceptions as e

    if isinstance(exc, e.AuthenticationError):
        return False
    if isinstance(exc, e.ClusterDownError):
        return not uncovered(exc)
    return isinstance(exc, (e.AskError, e.TryAgainError, e.ReadOnlyError, e.ConnectionError, e.TimeoutError))


def resharding(exc: Exception) -> bool:
    """Whether a node says that the slot's keys are on their way to another one."""
    from redis import exceptions as e

    return isinstance(exc, (e.AskError, e.TryAgainError)) and not isinstance(exc, e.MovedError)


def uncovered(exc: Exception) -> bool:
    return "not served" in str(exc)


def patience(exc: Exception, timeout: float) -> float:
    """Seconds to wait for the node that serves the slot then."""
    return timeout if resharding(exc) else max(FAILOVER_SECONDS, timeout)


def clustered(place: Place) -> MemoryOpsError:
    return CapabilityMissing(
        f"The server {place.where} runs in cluster mode, and the prefix {place.prefix!r:.80} has no hash tag, so that "
        "the store's keys would not lie together.",
        "set memory_store.prefix to one in braces, such as '{memops}', or use a server without cluster mode",
    )


def moved(exc: Exception, place: Place) -> MemoryOpsError:
    """A node of a Cluster does not serve the store's slot now. Nothing of what it answered so was carried out."""
    from redis import exceptions as e

    slot, where = place.nodes.slot, place.where
    if uncovered(exc):
        return StoreUnavailable(
            f"No node of the Cluster at {where} serves the hash slot {slot} of the store {place.prefix}.",
            "give the slot to a node (valkey-cli --cluster check, then fix), then run the same command again",
        )
    if resharding(exc):
        return StoreMoved(
            f"The hash slot {slot} of the store {place.prefix} is on its way to another node of the Cluster at "
            f"{where}; nothing was stored.",
            "wait until the resharding is done, then run the same command again",
        )
    if isinstance(exc, e.ClusterDownError):
        why = "the Cluster is down: too few of its primaries answer, or a slot has no node"
    elif isinstance(exc, e.AskError):
        why = "another node of the Cluster serves it now"
    else:
        why = "its node cannot be reached, and no other one has taken over yet"
    return StoreMoved(
        f"The store {place.prefix} at {where} is not where it was: {why}.",
        "look at the Cluster (valkey-cli --cluster check), then run the same command again",
    )
