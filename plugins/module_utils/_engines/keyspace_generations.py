# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys all at once, from keys that were staged.

PRIVATE to the collection.

A generation that is not the active one lies below the store's prefix, a key for each record, without expiry (that
stands in a set beside, so that nothing vanishes before its time is judged), and an index of names. ``switch`` renames:
first every key of the application into the former generation, then every staged key into its place, in small
transactions. The control row says from the first to the last of them what is being done, the fence has to stand all the
while, and every step moves what is still there to move: whoever is killed in the middle, the same command goes on.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import CannotProceed, InvalidInput
from .._extra_vars import for_namespace
from .._model import Claim, Row
from .keyspace_dump import sound, whole
from .keyspace_reader import Keys, any_key
from .keyspace_records import KeyspaceRecords
from .listed_keys import planned
from .valkey_connect import packed
from .valkey_control import Transaction
from .valkey_transactions import repeated

MOVED = 1000  # keys of one step of a switch
LOAD_BYTES = 8 << 20
#: KEYS: index, ends, then pairs of keys; ARGV: names. Copies each first key of a pair to its second.
COPY = """
for i = 1, #ARGV do
  local from, to = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local ends = redis.call('PEXPIRETIME', from)
  if redis.call('COPY', from, to, 'REPLACE') == 1 then
    redis.call('PERSIST', to)
    redis.call('ZADD', KEYS[1], 0, ARGV[i])
    if ends >= 0 then redis.call('ZADD', KEYS[2], ends, ARGV[i]) else redis.call('ZREM', KEYS[2], ARGV[i]) end
  end
end
"""
#: As COPY, but moves.
OUT = """
for i = 1, #ARGV do
  local from, to = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local ends = redis.call('PEXPIRETIME', from)
  if ends ~= -2 then
    redis.call('RENAME', from, to)
    redis.call('PERSIST', to)
    redis.call('ZADD', KEYS[1], 0, ARGV[i])
    if ends >= 0 then redis.call('ZADD', KEYS[2], ends, ARGV[i]) end
  end
end
"""
#: Moves staged keys to their places.
IN = """
for i = 1, #ARGV do
  local from, to = KEYS[2 * i + 1], KEYS[2 * i + 2]
  if redis.call('EXISTS', from) == 1 then
    redis.call('RENAME', from, to)
    local ends = redis.call('ZSCORE', KEYS[2], ARGV[i])
    if ends then redis.call('PEXPIREAT', to, string.format('%.0f', tonumber(ends))) end
  end
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
"""


class KeyspaceGenerations(KeyspaceRecords):
    """The generations' part of ``Store``."""

    _copying: tuple[Claim, str, Keys] | None = None  # the names that a copy works through, and where it is

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        start = size = 0
        for number, row in enumerate(rows):
            size += len(row[8])
            if number + 1 - start >= MOVED or size > LOAD_BYTES:
                self._load(claim, generation, rows[start : number + 1])
                start, size = number + 1, 0
        if start < len(rows):
            self._load(claim, generation, rows[start:])

    def _listed(self, name: str) -> Keys:
        """The names of the application's keys as they are now, to be closed."""
        return Keys(self._server(self._replies), self.names, name)

    @repeated
    def _load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        self._check_rows(rows)
        name, names = claim.namespace, self.names
        with self._operating(claim) as tx:
            self._inactive(tx, claim, generation)
            tx.add_packed(
                packed("RESTORE", names.staged(name, generation, row[0]), 0, row[8], "REPLACE") for row in rows
            )
            self._index(tx, name, generation, rows)

    def _check_rows(self, rows: t.Sequence[Row]) -> None:
        """Errors: as of ``_check_row``."""
        if not all(whole([row[8] for row in rows])):
            self._check_row(next(row for row in rows if not sound(row[8])))
        for row in rows:
            self._check_row(row, looked_at=True)

    def _index(self, tx: Transaction, name: str, generation: int, rows: t.Sequence[Row]) -> None:
        """These rows are staged."""
        index, ends = self.names.index(name, generation), self.names.expiry(name, generation)
        raw = [row[0].encode() for row in rows]
        tx.add("ZADD", index, *(x for one in raw for x in (0, one)))
        tx.add("ZREM", ends, *raw)
        some = [x for one, row in zip(raw, rows) if row[5] is not None for x in (row[5] // 1000, one)]
        if some:
            tx.add("ZADD", ends, *some)

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        """The names are listed when a copy begins (``after`` is None)."""
        if self._copying is None or (self._copying[0], self._copying[1]) != (claim, after):
            if self._copying is not None:
                self._copying[2].close()
            self._copying = (claim, after or "", self._listed(claim.namespace))
        keys = self._copying[2]
        last = after
        while limit > 0:
            texts = keys.page(claim.namespace, last, None, None, min(limit, MOVED), False)
            if not texts:
                break
            without = planned(excluding, texts)
            self._copy(claim, source, target, [text for text in texts if text not in without])
            last, limit = texts[-1], limit - len(texts)
        if last == after:
            keys.close()
            self._copying = None
            return None
        self._copying = (claim, last or "", keys)
        return last

    @repeated
    def _copy(self, claim: Claim, source: int, target: int, texts: t.Sequence[str]) -> None:
        with self._operating(claim) as tx:
            space = self._inactive(tx, claim, target)
            self._not_moving(space, claim.namespace)
            if source != space["generation"]:
                raise InvalidInput(f"Generation {source} is not the active one.", "copy the active one")
            if texts:
                self._run(tx, COPY, claim.namespace, target, texts)

    def _run(
        self, tx: Transaction, script: str, name: str, number: int, texts: t.Sequence[str], back: bool = False
    ) -> None:
        """``script`` on the application's keys and those of a generation (``back``: from there)."""
        names = self.names
        pairs = [(self._place(name, None, text), self._place(name, number, text)) for text in texts]
        keys = [key for pair in pairs for key in (pair[::-1] if back else pair)]
        raw = [text.encode() for text in texts]
        tx.add("EVAL", script, 2 + len(keys), names.index(name, number), names.expiry(name, number), *keys, *raw)

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            moving = space.get("moving")
        if moving:
            self.finish_switch(claim)
            if moving["to"] == generation:
                return True
        if not self._begin_switch(claim, generation, expected):
            return False
        self.finish_switch(claim)
        return True

    @repeated
    def _begin_switch(self, claim: Claim, generation: int, expected: int) -> bool:
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            if space["generation"] == generation:
                return False
            self._one_of(space, claim, generation)
            if space["generation"] != expected:
                raise CannotProceed(
                    f"Namespace {name!r:.80} is at generation {space['generation']}, not {expected}.",
                    "make the plan again from the present state",
                )
            self._needs_fence(space, name)
            space["moving"] = {"from": expected, "to": generation, "phase": "out"}
            tx.save(name, moved=True)
            tx.durable = True
        return True

    def finish_switch(self, claim: Claim) -> None:
        """Carry a switch that was begun to its end."""
        name = claim.namespace
        moving = self._space(name).get("moving")
        while moving and moving["phase"] == "out":
            with contextlib.closing(self._listed(name)) as keys:
                after: str | None = None
                while texts := keys.page(name, after, None, None, MOVED, False):
                    self._out(claim, texts)
                    after = texts[-1]
            self._all_out(claim)
            moving = self._space(name).get("moving")
        while self._in(claim):
            pass

    @repeated
    def _out(self, claim: Claim, texts: t.Sequence[str]) -> None:
        """Move these keys of the application into the former generation."""
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            moving = space.get("moving")
            if not moving or moving["phase"] != "out":
                return
            self._needs_fence(space, name)
            self._run(tx, OUT, name, moving["from"], texts)
            tx.save(name, moved=True)

    @repeated
    def _all_out(self, claim: Claim) -> None:
        """The places are free when no key of the application is left."""
        name = claim.namespace
        if any_key(self._server(self._replies), self.names, name):  # before the store is held: it may take long
            return
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            moving = space.get("moving")
            if moving and moving["phase"] == "out":
                self._needs_fence(space, name)
                moving["phase"] = "in"
                tx.save(name, moved=True)

    @repeated
    def _in(self, claim: Claim) -> bool:
        """Move some staged keys to their places; whether there may be more."""
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            moving = space.get("moving")
            if not moving or moving["phase"] != "in":
                return False
            self._needs_fence(space, name)
            found = tx.read("ZRANGE", self.names.index(name, moving["to"]), 0, MOVED - 1)
            if found:
                self._run(tx, IN, name, moving["to"], [raw.decode() for raw in found], back=True)
            else:
                space["generation"] = moving["to"]
                del space["moving"]
                tx.durable = True
            tx.save(name, moved=True)
        return bool(found)

    def _needs_fence(self, space: t.Mapping[str, t.Any], name: str) -> None:
        """Errors: CannotProceed when applications may write while keys change places."""
        if space["state"] == "standby" or self._stands(space, name):
            return
        if space["state"] == "serving" and not any_key(self._server(self._replies), self.names, name):
            return
        raise CannotProceed(
            f"Applications can reach the keys of namespace {name!r:.80}; they are not replaced under their hands.",
            f"isolate it first: ansible-playbook memops.agent_memory.isolate {for_namespace(name)}",
        )

    def drop_generation(self, claim: Claim, generation: int) -> int:
        rows = 0
        while True:
            some = self._drop_some(claim, generation)
            if some is None:
                return rows
            rows += some

    @repeated
    def _drop_some(self, claim: Claim, generation: int) -> int | None:
        name, names = claim.namespace, self.names
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            if generation not in space["generations"] and not self._anywhere(tx, generation):
                return None
            self._not_moving(space, name)
            self._inactive(tx, claim, generation)
            index = names.index(name, generation)
            found = tx.read("ZRANGE", index, 0, MOVED - 1)
            if found:
                tx.add("UNLINK", *(names.staged(name, generation, raw.decode()) for raw in found))
                tx.add("ZREM", index, *found)
                return len(found)
            tx.add("UNLINK", names.expiry(name, generation))
            space["generations"].remove(generation)
            tx.save(name)
        return 0
