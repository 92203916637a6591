# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's keys in all slots of a Valkey Cluster: every command goes to the node that owns its key.

PRIVATE to the collection. Which node owns what is told by the primaries themselves, each for itself, so that a map in
which two disagree, or in which a slot is on its way to another node, is never used: a walk through the keys would miss
some. All nodes are asked at once, and answer side by side.

What is written here is no part of the store's transactions, which are in one slot. It is guarded by time instead: a
script runs only as long as nobody else can have the store's hold, by the node's own clock. So a process that was
stopped, or a command that was late on its way, changes nothing any more.
"""
from __future__ import annotations

import binascii
import functools
import re
import time
import typing as t
from dataclasses import replace

from .._errors import MemoryOpsError, StoreMoved, StoreUnavailable
from .keyspace_dump import whole
from .keyspace_reader import SCAN_COUNT, Fetched
from .valkey_cluster import FAILOVER_SECONDS, Address, elsewhere, slots
from .valkey_connect import Wire, packed
from .valkey_control import Transaction
from .valkey_errors import RightMissing, translate, valkey_errors

SLOTS: t.Final = 16384
PAGE = 250  # keys that are read at once
SMALL = 32 << 10  # bytes of a value that comes with others
PATIENCE = 1.0  # seconds for an answer of a replica
SILENCE = 15.0  # seconds for which one that did not answer is not asked again
MARGIN = 0.5  # seconds before the end of the hold in which nothing is begun any more
WALKS = 3  # through all keys, until the Cluster stands still meanwhile
LATE: t.Final = b"late"
DONE: t.Final = b"done"
#: Before every script that writes: nothing is done after ARGV[1] (ms).
GUARD = """
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[1]) then return 'late' end
"""
#: The value of KEYS[1] and when it expires; its length alone when that is over ARGV[1] bytes; nothing for no key.
FETCH = """
local value = redis.call('DUMP', KEYS[1])
if not value then return {} end
if #value > tonumber(ARGV[1]) then return {#value} end
return {value, redis.call('PEXPIRETIME', KEYS[1])}
"""


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


class Write(t.NamedTuple):
    """A script for the node of its first key; all its keys lie in one slot. It gets the guard's ARGV[1] in front."""

    script: str
    keys: tuple[bytes, ...]
    args: tuple[t.Any, ...] = ()


class Unsettled(Exception):
    """Nobody can tell now which node owns what. ``error``: what a person is told when it stays so."""

    def __init__(self, error: MemoryOpsError, patience: float) -> None:
        super().__init__(error.message)
        self.error, self.patience = error, patience


class Slots:
    """See keyspace_reader.Server. ``wire`` leads to the node that has the collection's own keys."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._place = wire, wire.place
        self._at: dict[tuple[Address, float | None], Wire] = {}
        self._silent: dict[Address, float] = {}  # replicas that did not answer, and when
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

    # --- reading ------------------------------------------------------------------------------------------------
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

    def _grouped(self, keys: t.Sequence[bytes]) -> dict[Address, list[int]]:
        """Which of these keys each node has, by their numbers."""
        owners = self.map().owners
        groups: dict[Address, list[int]] = {}
        for number, key in enumerate(keys):
            groups.setdefault(owners[slot_of(key)], []).append(number)
        return groups

    def ask(self, commands: t.Sequence[tuple[bytes, bytes]]) -> list[t.Any]:
        """(key, packed command that only reads it): the replies. Again where the key's node has changed meanwhile.

        Errors: MemoryOpsError.
        """
        from redis.exceptions import RedisError

        keys = [key for key, _command in commands]
        began = time.monotonic()
        while True:
            replies: list[t.Any] = [None] * len(commands)
            try:
                groups = self._grouped(keys)
                said = self._exchange({a: [commands[n][1] for n in numbers] for a, numbers in groups.items()})
                for address, numbers in groups.items():
                    for number, reply in zip(numbers, said[address]):
                        if isinstance(reply, Exception):
                            raise reply
                        replies[number] = reply
                return replies
            except RedisError as exc:
                away = self._away(exc)
                if time.monotonic() - began > away.patience:
                    raise away.error from None
                self._map = None
                time.sleep(0.02)

    def scanned(self, glob: str) -> t.Iterator[list[bytes]]:
        """Each primary's keys, and all of them: a Cluster that changed while it was walked through is walked through
        again. Errors: StoreMoved when it does not come to rest."""
        from redis.exceptions import RedisError

        for _walk in range(WALKS):
            before = self.map(fresh=True, resting=False)  # what is found may be enough
            try:
                yield from self._scan(glob, before)
            except RedisError as exc:
                self._away(exc)
            else:
                if self.map(fresh=True).signature == before.signature:
                    return
        raise StoreMoved(
            f"The Cluster at {self._place.where} changed while its keys were listed, each of {WALKS} times.",
            "wait until failovers and resharding are over, then run the same command again",
        )

    def _scan(self, glob: str, known: Map) -> t.Iterator[list[bytes]]:
        cursors = dict.fromkeys(known.primaries, b"0")
        while cursors:
            said = self._exchange(
                {a: [packed("SCAN", at, "MATCH", glob, "COUNT", SCAN_COUNT)] for a, at in cursors.items()}
            )
            for address, [reply] in said.items():
                if isinstance(reply, Exception):
                    raise reply
                cursor, page = reply
                own = [raw for raw in page if known.owners[slot_of(raw)] == address]  # nothing that a move left behind
                if own:
                    yield own
                if cursor == b"0":
                    del cursors[address]
                else:
                    cursors[address] = cursor

    def fetched(self, keys: t.Sequence[bytes]) -> t.Iterator[Fetched]:
        for start in range(0, len(keys), PAGE):
            part = keys[start : start + PAGE]
            replies = self.ask([(key, packed("EVAL", FETCH, 1, key, SMALL)) for key in part])
            sound = whole([reply[0] if len(reply) == 2 else b"" for reply in replies])
            for number, (key, reply) in enumerate(zip(part, replies)):
                good = sound[number]
                if len(reply) == 1:
                    [reply] = self.ask([(key, packed("EVAL", FETCH, 1, key, 1 << 40))])
                    [good] = whole([reply[0] if reply else b""])
                if reply:
                    yield start + number, reply[0], reply[1], good

    def everywhere(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        """The replies of every primary, and of the replicas that can be reached. Errors: RedisError, MemoryOpsError."""
        from redis.exceptions import RedisError

        known = self.map(fresh=True)
        said = self._exchange(dict.fromkeys(known.primaries, commands))
        for address in dict.fromkeys(one for nodes in known.replicas.values() for one in nodes):
            if time.monotonic() - self._silent.get(address, -SILENCE) < SILENCE:
                continue  # the store is held meanwhile
            try:
                said[address] = self.node(address, PATIENCE).many(commands)
            except RedisError:
                self._silent[address] = time.monotonic()
                self.node(address, PATIENCE).drop()
        return [reply for replies in said.values() for reply in replies]

    def primaries(self) -> list[Wire]:
        return [self.node(address) for address in self.map().primaries]

    # --- writing ------------------------------------------------------------------------------------------------
    def write(self, tx: Transaction, writes: t.Sequence[Write]) -> list[t.Any]:
        """What each script says; LATE for those that were not begun before the hold's end. A replica has a second to
        get them, too.

        Errors: StoreMoved where a node is not what it was, StoreUnavailable; some may have been carried out then.
        """
        from redis.exceptions import RedisError

        if not writes:
            return []
        groups = self._grouped([one.keys[0] for one in writes])
        replies: list[t.Any] = [None] * len(writes)
        try:
            asked = [packed("TIME"), packed("INFO", "replication")]
            clocks = self._exchange(dict.fromkeys(groups, asked))
            commands = {}
            for address, numbers in groups.items():
                clock, info = clocks[address]
                if isinstance(clock, Exception):
                    raise clock
                left = tx.until - MARGIN - time.monotonic()
                until = int(clock[0]) * 1000 + int(clock[1]) // 1000 + int(left * 1000)
                commands[address] = [
                    packed("EVAL", GUARD + one.script, len(one.keys), *one.keys, until, *one.args)
                    for one in (writes[number] for number in numbers)
                ]
                if isinstance(info, bytes) and re.search(rb"connected_slaves:[1-9]", info):
                    commands[address].append(packed("WAIT", 1, 1000))
            said = self._exchange(commands)
            for address, numbers in groups.items():
                for number, reply in zip(numbers, said[address]):
                    if isinstance(reply, Exception):
                        raise reply if elsewhere(reply) else self._refused(address, reply)
                    replies[number] = reply
        except RedisError as exc:
            away = self._away(exc)
            self._map = None
            raise away.error from None
        return replies

    def _refused(self, address: Address, exc: Exception) -> MemoryOpsError:
        from redis.exceptions import OutOfMemoryError

        if isinstance(exc, OutOfMemoryError):
            return StoreUnavailable(
                "The server {}:{} is full: it has used all of its maxmemory. Not all was written.".format(*address),
                "raise maxmemory or free memory, then run the same command again",
            )
        return translate(exc, self.node(address).place)

    def settle(self, prefix: str) -> None:
        """What was written over these connections is on every primary's disk, where it has an append-only file.

        Errors: StoreMoved, StoreUnavailable.
        """
        from redis.exceptions import RedisError

        known = self.map()
        commands = {}
        for address in known.primaries:  # a primary without slots is none of them
            key = f"{{{tags()[known.owners.index(address)]}}}{prefix}:settled"
            commands[address] = [packed("SET", key, 1), packed("UNLINK", key), packed("WAITAOF", 1, 0, 4000)]
        try:
            said = self._exchange(commands)
        except RedisError as exc:
            raise self._away(exc).error from None
        for address, replies in said.items():
            if isinstance(replies[-1], list) and replies[-1][0] < 1:  # a refusal: it has none, or no such command
                raise StoreUnavailable(
                    "The server {}:{} did not put the last step on its disk within 4 seconds.".format(*address),
                    "look at its disk (df, iostat), then run the same command again",
                )


def check_each(slots_: Slots, check: t.Callable[[Wire], None]) -> None:
    """Errors: as of ``check``, which looks at one primary."""
    for wire in slots_.primaries():
        with valkey_errors(wire.place):
            check(wire)
