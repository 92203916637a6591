# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys in all slots of a Cluster at once, from keys that were staged.

PRIVATE to the collection.

As keyspace_generations.py does it on one server, but what names the keys (the index, in the store's own slot) and the
keys themselves cannot change together. Whatever leaves a key's place is named before it moves; whatever is staged is
looked for by its own name, not by the index. A switch has three phases: ``out``, ``in``, and ``check``, in which all
keys are listed once more until each is in its place. A step decides by what is there, whatever the phase says: a key
is a former one when its name is not among the new ones, or the new one is still staged. So it does no harm when a
shard that fails over brings keys back to where they were, or the control row to an earlier phase.
"""
from __future__ import annotations

import contextlib
import time
import typing as t
from functools import partial

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
#: When KEYS[1] expires (-2: there is none); a new key counts as none: ARGV[1] is "1" and none is staged in KEYS[2].
ENDS = """
if ARGV[1] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return -2 end
return redis.call('PEXPIRETIME', KEYS[1])
"""
#: Moves KEYS[1] to KEYS[2], unless it is a new key: ARGV[2] is "1" and none is staged in KEYS[3].
OUT = """
if redis.call('EXISTS', KEYS[1]) == 1 and (ARGV[2] ~= '1' or redis.call('EXISTS', KEYS[3]) == 1) then
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

    @repeated
    def settle(self) -> None:
        super().settle()
        self.slots.settle(self.place.prefix)

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
                    for texts in _pages(keys, name):
                        self._name_out(claim, texts)
                    super().settle()
                    for texts in _pages(keys, name):
                        self._out(claim, texts)
                self._phase(claim, "out", "in")
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
    def _out(self, claim: Claim, texts: t.Sequence[str]) -> None:
        """Move the former ones among these keys into the former generation, which names them already."""
        name, left = claim.namespace, list(texts)
        while left:
            with self._operating(claim) as tx:
                moving = self._moving(tx, name, "out", "check")
                if moving is None:
                    return
                new = self._new(tx.read, name, moving, left)
                former, staged = (partial(self.names.staged, name, moving[one]) for one in ("from", "to"))
                said = self.slots.write(tx, [
                    Write(OUT, (self._place(name, None, text), former(text), staged(text)), (flag,))
                    for text, flag in zip(left, new)
                ])  # fmt: skip
                self._some([reply for reply in said if reply == DONE])
                tx.save(name, moved=True)
            left = [text for text, reply in zip(left, said) if reply != DONE]

    def _new(
        self, ask: t.Callable[..., t.Any], name: str, moving: t.Mapping[str, t.Any], texts: t.Sequence[str]
    ) -> list[str]:
        """Of each name, "1" if the new generation has it."""
        scores = ask("ZMSCORE", self.names.index(name, moving["to"]), *(text.encode() for text in texts))
        return ["" if score is None else "1" for score in scores]

    @repeated
    def _name_out(self, claim: Claim, texts: t.Sequence[str]) -> None:
        """Name the former ones among these keys in the former generation."""
        name = claim.namespace
        with self._operating(claim) as tx:
            moving = self._moving(tx, name, "out", "check")
            if moving is None:
                return
            new = self._new(tx.read, name, moving, texts)
            pairs = [self._pair(name, moving["to"], text) for text in texts]
            ends = self.slots.ask([
                (pair[0], packed("EVAL", ENDS, 2, *pair, flag)) for pair, flag in zip(pairs, new)
            ])  # fmt: skip
            named = [(text.encode(), end) for text, end in zip(texts, ends) if end != -2]
            if not named:
                return
            tx.add("ZADD", self.names.index(name, moving["from"]), *(x for raw, _end in named for x in (0, raw)))
            some = [x for raw, end in named if end >= 0 for x in (end, raw)]
            if some:
                tx.add("ZADD", self.names.expiry(name, moving["from"]), *some)
            tx.save(name, moved=True)

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
        relics: list[str] = []  # of the former keys
        for page in self.slots.scanned(names.staged_glob(name, number)):
            texts = [names.staged_text(name, number, raw) for raw in page]
            new = self._new(self._ask, name, moving, texts)
            # What is in its place, if anything, should have left it.
            relics += [text for text, flag in zip(texts, new) if flag]
            self._unlink(claim, [raw for raw, flag in zip(page, new) if not flag])
        staged = bool(relics)
        with contextlib.closing(self._listed(name)) as keys:
            for texts in _pages(keys, name):
                relics += [text for text, flag in zip(texts, self._new(self._ask, name, moving, texts)) if not flag]
        for start in range(0, len(relics), MOVED):
            self._name_out(claim, relics[start : start + MOVED])
            self._out(claim, relics[start : start + MOVED])
        if staged:
            self._phase(claim, "check", "in")
        return bool(relics)

    @repeated
    def _phase(self, claim: Claim, before: str, phase: str) -> None:
        with self._operating(claim) as tx:
            moving = self._moving(tx, claim.namespace, before)
            if moving is not None:
                moving.update(phase=phase, after=None)
                tx.save(claim.namespace, moved=True)

    def _end_switch(self, claim: Claim) -> None:
        """Errors: StoreUnavailable when nodes lost staged keys; the switch has ended all the same."""
        moving = self._space(claim.namespace).get("moving")
        if not moving:
            return
        self.settle()
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
