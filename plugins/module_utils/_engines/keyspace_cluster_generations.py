# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys in all slots of a Cluster at once, from keys that were staged.

PRIVATE to the collection.

As keyspace_generations.py does it on one server, but what names the keys (the index, in the store's own slot) and the
keys themselves cannot change together. Whatever leaves a key's place is named before it moves; whatever is staged is
looked for by its own name, not by the index; and what moves is moved again when it is found where it was, as after the
failover of a shard that had not got it. A switch has three phases: ``out``, ``in``, and ``check``, in which all keys
are listed once more. It ends when each is in its place.
"""
from __future__ import annotations

import contextlib
import time
import typing as t

from .._errors import InvalidInput, StoreUnavailable
from .._model import Claim, Row
from .keyspace_cluster_records import ClusterRecords
from .keyspace_generations import MOVED, KeyspaceGenerations
from .keyspace_reader import Keys
from .keyspace_slots import DONE, LATE, Write, check_each
from .valkey_connect import packed
from .valkey_control import Transaction
from .valkey_server import refuse_eviction
from .valkey_transactions import Overtaken, repeated

#: Stages the dump ARGV[2].
PUT = "redis.call('RESTORE', KEYS[1], 0, ARGV[2], 'REPLACE') return 'done'"
#: Copies KEYS[1] to KEYS[2], says when it expires.
COPY = """
local ends = redis.call('PEXPIRETIME', KEYS[1])
if ends ~= -2 then
  redis.call('COPY', KEYS[1], KEYS[2], 'REPLACE')
  redis.call('PERSIST', KEYS[2])
end
return ends
"""
#: Moves KEYS[1] to KEYS[2].
OUT = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
return 'done'
"""
#: Moves the staged key KEYS[1] to its place KEYS[2], where it expires at ARGV[2] ("": never); not over another one.
IN = """
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  if ARGV[2] ~= '' then redis.call('PEXPIREAT', KEYS[2], ARGV[2]) end
end
return 'done'
"""
GONE = "redis.call('UNLINK', KEYS[1]) return 'done'"
EXPIRING = 5000  # ms around the end of a key's life in which it may be there or not


class ClusterGenerations(ClusterRecords, KeyspaceGenerations):
    """The generations' part of ``Store``."""

    def begin_generation(self, claim: Claim) -> int:
        check_each(self.slots, refuse_eviction)
        return super().begin_generation(claim)

    @repeated
    def _load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        self._check_rows(rows)
        name, left = claim.namespace, list(rows)
        self.slots.map()
        while left:
            with self._operating(claim) as tx:
                self._inactive(tx, claim, generation)
                said = self.slots.write(
                    tx, [Write(PUT, (self.names.staged(name, generation, row[0]),), (row[8],)) for row in left]
                )
                done = [row for row, reply in zip(left, said) if reply == DONE]
                self._some(done)
                self._index(tx, name, generation, done)
            left = [row for row, reply in zip(left, said) if reply != DONE]

    def _some(self, done: t.Sequence[t.Any]) -> None:
        if not done:
            raise Overtaken("Nothing could be done in the time that the store is held.", "try again")

    @repeated
    def _copy(self, claim: Claim, source: int, target: int, texts: t.Sequence[str]) -> None:
        name, left = claim.namespace, list(texts)
        index, expiry = self.names.index(name, target), self.names.expiry(name, target)
        self.slots.map()
        while left:
            with self._operating(claim) as tx:
                space = self._inactive(tx, claim, target)
                self._not_moving(space, name)
                if source != space["generation"]:
                    raise InvalidInput(f"Generation {source} is not the active one.", "copy the active one")
                said = self.slots.write(tx, [Write(COPY, self._pair(name, target, text)) for text in left])
                done = [(text.encode(), ends) for text, ends in zip(left, said) if ends != LATE]
                self._some(done)
                there = [(raw, ends) for raw, ends in done if ends != -2]
                if there:
                    tx.add("ZADD", index, *(x for raw, _ends in there for x in (0, raw)))
                    tx.add("ZREM", expiry, *(raw for raw, _ends in there))
                some = [x for raw, ends in there if ends >= 0 for x in (ends, raw)]
                if some:
                    tx.add("ZADD", expiry, *some)
            left = [text for text, ends in zip(left, said) if ends == LATE]

    def _pair(self, name: str, generation: int, text: str) -> tuple[bytes, bytes]:
        return self._place(name, None, text), self._place(name, generation, text)

    # --- the switch ---------------------------------------------------------------------------------------------
    def finish_switch(self, claim: Claim) -> None:
        name = claim.namespace
        while moving := self._space(name).get("moving"):
            self.slots.map()
            if moving["phase"] == "out":
                with contextlib.closing(self._listed(name)) as keys:
                    after: str | None = None
                    while texts := keys.page(name, after, None, None, MOVED, False):
                        self._name_out(claim, texts)
                        self._out(claim, texts)
                        after = texts[-1]
                self._all_out(claim)
            elif moving["phase"] == "in":
                self._in(claim)
            elif not self._again(claim):
                self._end_switch(claim)

    def _moving(self, tx: Transaction, name: str, *phases: str) -> dict[str, t.Any] | None:
        """What is being moved, when it is in one of these phases and the fence stands."""
        space = self._namespace(tx, name)
        moving: dict[str, t.Any] | None = space.get("moving")
        if not moving or moving["phase"] not in phases:
            return None
        self._needs_fence(space, name)
        return moving

    @repeated
    def _name_out(self, claim: Claim, texts: t.Sequence[str]) -> None:
        """Name these keys of the application in the former generation, before they move."""
        name = claim.namespace
        ends = self.slots.ask([self._ends(name, text) for text in texts])
        with self._operating(claim) as tx:
            moving = self._moving(tx, name, "out")
            named = [(text.encode(), end) for text, end in zip(texts, ends) if end != -2]
            if moving is None or not named:
                return
            tx.add("ZADD", self.names.index(name, moving["from"]), *(x for raw, _end in named for x in (0, raw)))
            some = [x for raw, end in named if end >= 0 for x in (end, raw)]
            if some:
                tx.add("ZADD", self.names.expiry(name, moving["from"]), *some)
            tx.save(name, moved=True)
            tx.durable = True

    def _ends(self, name: str, text: str) -> tuple[bytes, bytes]:
        key = self._place(name, None, text)
        return key, packed("PEXPIRETIME", key)

    @repeated
    def _out(self, claim: Claim, texts: t.Sequence[str]) -> None:
        name, left = claim.namespace, list(texts)
        while left:
            with self._operating(claim) as tx:
                moving = self._moving(tx, name, "out", "check")
                if moving is None:
                    return
                said = self.slots.write(tx, [Write(OUT, self._pair(name, moving["from"], text)) for text in left])
                self._some([reply for reply in said if reply == DONE])
                tx.save(name, moved=True)
            left = [text for text, reply in zip(left, said) if reply != DONE]

    @repeated
    def _in(self, claim: Claim) -> bool:
        name = claim.namespace
        with self._operating(claim) as tx:
            moving = self._moving(tx, name, "in")
            if moving is None:
                return False
            number = moving["to"]
            found = self._named(tx.read, name, number, moving.get("after"))
            if not found:
                moving.update(phase="check", after=None)
            else:
                ends = tx.read("ZMSCORE", self.names.expiry(name, number), *found)
                said = self.slots.write(tx, [
                    Write(IN, self._pair(name, number, raw.decode())[::-1], (_score(end),))
                    for raw, end in zip(found, ends)
                ])  # fmt: skip
                done = next((n for n, reply in enumerate(said) if reply != DONE), len(found))
                self._some(found[:done])
                moving["after"] = found[done - 1].decode()
            tx.save(name, moved=True)
        return bool(found)

    def _again(self, claim: Claim) -> bool:
        """Move what is not where it belongs; whether there was anything."""
        name, names = claim.namespace, self.names
        moving = self._space(name).get("moving") or {}
        number = moving["to"]
        relics: list[str] = []
        for page in self.slots.scanned(names.staged_glob(name, number)):
            texts = [names.staged_text(name, number, raw) for raw in page]
            known = self._ask("ZMSCORE", names.index(name, number), *(text.encode() for text in texts))
            # A place that is taken is taken by what should have left it.
            relics += [text for text, score in zip(texts, known) if score is not None]
            self._unlink(claim, [raw for raw, score in zip(page, known) if score is None])
        staged = bool(relics)
        with contextlib.closing(self._listed(name)) as keys:
            for texts in _pages(keys, name):
                known = self._ask("ZMSCORE", names.index(name, number), *(text.encode() for text in texts))
                relics += [text for text, score in zip(texts, known) if score is None]
        for start in range(0, len(relics), MOVED):
            self._out(claim, relics[start : start + MOVED])
        if staged:
            self._back_in(claim)
        return bool(relics)

    @repeated
    def _back_in(self, claim: Claim) -> None:
        with self._operating(claim) as tx:
            moving = self._moving(tx, claim.namespace, "check")
            if moving is not None:
                moving.update(phase="in", after=None)
                tx.save(claim.namespace, moved=True)

    def _end_switch(self, claim: Claim) -> None:
        """Errors: StoreUnavailable when nodes lost staged keys; the switch has ended all the same."""
        moving = self._space(claim.namespace).get("moving")
        if not moving:
            return
        lost = self._absent(claim.namespace, moving["to"])
        self._ended(claim)
        if lost:
            raise StoreUnavailable(
                f"{lost} keys of namespace {claim.namespace!r:.80} that were staged are gone: a node of the Cluster "
                "was lost before its replica had them.",
                "run diagnose with memory_again=true, which plans their repair, then the same command again",
            )

    def _absent(self, name: str, number: int) -> int:
        """How many of the keys that were to come are not there, though they do not expire yet."""
        lost, now = 0, time.time() * 1000
        with contextlib.closing(self._listed(name)) as keys:
            if keys.count(name) == self._ask("ZCARD", self.names.index(name, number)):
                return 0
            after: str | None = None
            while found := self._named(self._ask, name, number, after):
                there = set(keys.page(name, after, found[-1].decode(), None, -1, False))
                ends = self._ask("ZMSCORE", self.names.expiry(name, number), *found)
                lost += sum(
                    raw.decode() not in there and (end is None or float(end) > now + EXPIRING)
                    for raw, end in zip(found, ends)
                )
                after = found[-1].decode()
        return lost

    def _named(self, ask: t.Callable[..., t.Any], name: str, number: int, after: str | None) -> list[bytes]:
        """The next names in a generation's index."""
        low = "-" if after is None else b"(" + after.encode()
        index = self.names.index(name, number)
        return list(ask("ZRANGE", index, low, "+", "BYLEX", "LIMIT", 0, MOVED))

    @repeated
    def _ended(self, claim: Claim) -> None:
        name = claim.namespace
        with self._operating(claim) as tx:
            moving = self._moving(tx, name, "check")
            if moving is None:
                return
            space = self._namespace(tx, name)
            space["generation"] = moving["to"]
            del space["moving"]
            tx.add("UNLINK", self.names.index(name, moving["to"]), self.names.expiry(name, moving["to"]))
            tx.save(name, moved=True)
            tx.durable = True

    # --- what is not needed any more ------------------------------------------------------------------------------
    def drop_generation(self, claim: Claim, generation: int) -> int:
        if not self._droppable(claim, generation):
            return 0
        rows = 0
        for page in self.slots.scanned(self.names.staged_glob(claim.namespace, generation)):
            self._unlink(claim, page)
            rows += len(page)
        self._dropped(claim, generation)
        return rows

    @repeated
    def _droppable(self, claim: Claim, generation: int) -> bool:
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            if generation not in space["generations"] and not self._anywhere(tx, generation):
                return False
            self._not_moving(space, claim.namespace)
            self._inactive(tx, claim, generation)
        return True

    @repeated
    def _unlink(self, claim: Claim, keys: t.Sequence[bytes]) -> None:
        left = list(keys)
        while left:
            with self._operating(claim) as tx:
                said = self.slots.write(tx, [Write(GONE, (key,)) for key in left])
                self._some([reply for reply in said if reply == DONE])
            left = [key for key, reply in zip(left, said) if reply != DONE]

    @repeated
    def _dropped(self, claim: Claim, generation: int) -> None:
        name, names = claim.namespace, self.names
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            if generation in space["generations"]:
                self._inactive(tx, claim, generation)
                tx.add("UNLINK", names.index(name, generation), names.expiry(name, generation))
                space["generations"].remove(generation)
                tx.save(name)


def _score(raw: bytes | None) -> t.Any:
    return b"" if raw is None else int(float(raw))


def _pages(keys: Keys, name: str) -> t.Iterator[list[str]]:
    after: str | None = None
    while texts := keys.page(name, after, None, None, MOVED, False):
        yield texts
        after = texts[-1]
