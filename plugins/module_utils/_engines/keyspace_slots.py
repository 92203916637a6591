# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another application's keys in all slots of a Valkey Cluster: every command goes to the node that owns its key.

PRIVATE to the collection. Which node owns what, keyspace_slot_map.py knows.

What is written here is no part of the store's transactions, which are in one slot. It is guarded by time instead: a
script runs only as long as nobody else can have the store's hold, by the node's own clock. So a process that was
stopped, or a command that was late on its way, changes nothing any more.
"""
from __future__ import annotations

import re
import time
import typing as t

from .._errors import MemoryOpsError, StoreMoved, StoreUnavailable
from .keyspace_dump import whole
from .keyspace_reader import SCAN_COUNT, Fetched
from .keyspace_slot_map import Map, Nodes, slot_of, tags
from .valkey_cluster import Address, elsewhere
from .valkey_connect import Wire, packed
from .valkey_control import Transaction
from .valkey_errors import translate, valkey_errors

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


class Write(t.NamedTuple):
    """A script for the node of its first key; all its keys lie in one slot. It gets the guard's ARGV[1] in front."""

    script: str
    keys: tuple[bytes, ...]
    args: tuple[t.Any, ...] = ()


class Slots(Nodes):
    """See keyspace_reader.Server."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._silent: dict[Address, float] = {}  # replicas that did not answer, and when

    # --- reading ------------------------------------------------------------------------------------------------
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
