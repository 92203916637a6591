# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which node of a Valkey Cluster owns which hash slot, and commands to several nodes at once.

PRIVATE to the collection. Which node owns what is told by the primaries themselves, each for itself, so that a map in
which two disagree, or in which a slot is on its way to another node, is never used: a walk through the keys would miss
some. All nodes are asked at once, and answer side by side.
"""
from __future__ import annotations

import binascii
import functools
import time
import typing as t
from dataclasses import replace

from .._errors import MemoryOpsError, StoreMoved, StoreUnavailable
from .valkey_cluster import FAILOVER_SECONDS, Address, elsewhere, slots
from .valkey_connect import Wire, packed
from .valkey_errors import RightMissing, translate

SLOTS: t.Final = 16384


def slot_of(key: bytes) -> int:
    from redis.crc import key_slot

    return int(key_slot(key))


@functools.cache
def tags() -> tuple[str, ...]:
    """For each slot a text that lies in it: a letter (both are needed to have all slots) and five octal digits."""
    found: dict[int, tuple[str, int]] = {}
    for letter in "ab":
        codes = [binascii.crc_hqx(f"{letter}00000".encode(), 0)]
        for bit in range(15):  # what a bit changes in a checksum is always the same
            changes = binascii.crc_hqx(f"{letter}{1 << bit:05o}".encode(), 0) ^ codes[0]
            codes += [code ^ changes for code in codes]
        found.update({code % SLOTS: (letter, number) for number, code in enumerate(codes)})
    return tuple("{}{:05o}".format(*found[slot]) for slot in range(SLOTS))


class Map(t.NamedTuple):
    """Who owns what."""

    owners: list[Address]  # of each slot
    primaries: list[Address]
    replicas: dict[Address, list[Address]]
    signature: tuple[tuple[Address, str, str], ...]  # changes with whatever changes an owner
    resting: bool  # no slot is on its way to another node


class Unsettled(Exception):
    """Nobody can tell now which node owns what. ``error``: what a person is told when it stays so."""

    def __init__(self, error: MemoryOpsError, patience: float) -> None:
        super().__init__(error.message)
        self.error, self.patience = error, patience


class Nodes:
    """``wire`` leads to the node that has the collection's own keys."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._place = wire, wire.place
        self._at: dict[tuple[Address, float | None], Wire] = {}
        self._map: Map | None = None

    def close(self) -> None:
        for wire in self._at.values():
            wire.drop()
        self._at = {}

    def node(self, address: Address, answer: float | None = None) -> Wire:
        """``answer``: as of Wire."""
        if (address, answer) not in self._at:
            place = replace(self._place, host=address[0], port=address[1])
            self._at[address, answer] = Wire(place, address, answer)
        return self._at[address, answer]

    # --- who owns what ------------------------------------------------------------------------------------------
    def map(self, fresh: bool = False, resting: bool = True) -> Map:
        """Waits for the end of a failover, and (``resting``) of a resharding as long as for another writer.

        Errors: StoreMoved, StoreUnavailable, RightMissing.
        """
        if fresh or self._map is None or (resting and not self._map.resting):
            self._map = None
            began = time.monotonic()
            while self._map is None:
                try:
                    self._map = self._look(resting)
                except Unsettled as exc:
                    if time.monotonic() - began > exc.patience:
                        raise exc.error from None
                    time.sleep(0.05)
        return self._map

    def _look(self, resting: bool) -> Map:
        from redis.exceptions import RedisError

        try:
            ranges = slots(self._wire)
            if not ranges:
                raise self._right("cluster|slots")
            nodes = {part[2][0]: part[2][1:] for part in ranges if part[2]}
            said = self._exchange({address: [packed("CLUSTER", "NODES")] for address in nodes})
        except RedisError as exc:
            raise self._away(exc) from None
        owners: list[Address | None] = [None] * SLOTS
        signature = []
        moving = False
        for address, [text] in said.items():
            if not isinstance(text, bytes):
                raise self._right("cluster|nodes")
            mine = next(line.split() for line in text.decode().splitlines() if "myself" in line.split()[2])
            if "master" not in mine[2]:
                raise Unsettled(self._moved("its node is a replica now, and no other one has taken over yet"),
                                FAILOVER_SECONDS)  # fmt: skip
            own = [part for part in mine[8:] if not part.startswith("[")]
            moving = moving or len(own) < len(mine[8:])
            if moving and resting:
                raise Unsettled(
                    StoreMoved(
                        f"Slots of the Cluster at {self._place.where} are on their way to other nodes, so nobody can "
                        "tell where which key is.",
                        "wait until the resharding is done, then run the same command again",
                    ),
                    self._place.timeout,
                )  # fmt: skip
            for part in own:
                first, _dash, last = part.partition("-")
                stretch = slice(int(first), int(last or first) + 1)
                if any(owners[stretch]):
                    raise Unsettled(self._moved(f"two nodes own slots of {part}"), FAILOVER_SECONDS)
                owners[stretch] = [address] * len(owners[stretch])
            signature.append((address, mine[6], " ".join(mine[8:])))
        if None in owners:
            raise Unsettled(
                StoreUnavailable(
                    f"No node of the Cluster at {self._place.where} serves the hash slot {owners.index(None)}.",
                    "give the slot to a node (valkey-cli --cluster check, then fix), then run the same command again",
                ),
                self._place.timeout,
            )  # fmt: skip
        return Map(t.cast(t.List[Address], owners), list(said), nodes, tuple(sorted(signature)), not moving)

    def _moved(self, why: str) -> StoreMoved:
        return StoreMoved(
            f"A part of the Cluster at {self._place.where} does not serve its slots: {why}.",
            "look at the Cluster (valkey-cli --cluster check), then run the same command again",
        )

    def _away(self, exc: Exception) -> Unsettled:
        """Errors: MemoryOpsError for what no waiting mends."""
        if not elsewhere(exc):
            raise translate(exc, self._place) from None
        why = "its node cannot be reached, and no other one has taken over yet"
        return Unsettled(self._moved(why), max(FAILOVER_SECONDS, self._place.timeout))

    def _right(self, command: str) -> RightMissing:
        return RightMissing(
            f"The Cluster at {self._place.where} does not allow user {self._place.user or 'default'} to run the "
            f"'{command}' command, which tells where its keys are.",
            "give it what the layout keyspace needs on a Cluster: +cluster|slots +cluster|nodes +time",
            command,
        )

    def _exchange(self, groups: t.Mapping[Address, t.Sequence[bytes]]) -> dict[Address, list[t.Any]]:
        """Commands to several nodes at once, and what each says. Errors: RedisError of a connection."""
        wires = {address: self.node(address) for address in groups}
        try:
            for address, commands in groups.items():
                wires[address].send(commands)
            return {address: wires[address].received(len(commands)) for address, commands in groups.items()}
        except BaseException:
            for wire in wires.values():
                wire.drop()  # what is still to come belongs to no other command
            raise
