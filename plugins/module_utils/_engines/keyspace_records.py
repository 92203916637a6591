# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys: by compare-and-set in place, or all at once from keys that were staged.

PRIVATE to the collection.

A generation that is not the active one lies below the store's prefix, a key for each record, without expiry (that
stands in a set beside, so that nothing vanishes before its time is judged), and an index of names. ``switch`` renames:
first every key of the application into the former generation, then every staged key into its place, in small
transactions. The control row says from the first to the last of them what is being done, the fence has to stand all the
while, and every step moves what is still there to move: whoever is killed in the middle, the same command goes on.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._codec import RecordCodec
from .._errors import CannotProceed, InvalidInput
from .._model import Change, Claim, Row
from .keyspace_dump import sound, whole
from .keyspace_pattern import KeyspaceNames
from .keyspace_reader import Keys, any_key, fence_stands, rows_of, scanned
from .valkey_connect import packed, valkey_errors
from .valkey_control import Transaction
from .valkey_fencing import Fencing
from .valkey_filling import Filling
from .valkey_log import aside_of
from .valkey_transactions import repeated

PART = 200  # keys that one change in place looks at
MOVED = 1000  # keys of one step of a switch
LOAD_BYTES = 8 << 20
ISOLATED = "isolated "  # the beginning of reasons under which records lie aside that come back as they are
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


class KeyspaceRecords(Fencing, Filling):
    """The part of ``Store`` that changes records."""

    names: KeyspaceNames
    _copying: tuple[Claim, str, Keys] | None = None  # the names that a copy works through, and where it is

    def _make_generation(self, tx: Transaction, name: str) -> int:
        number = tx.numbers["generation"] = tx.numbers["generation"] + 1
        return number

    def _any_record(self, tx: Transaction) -> bool:
        return any(
            self.names.pattern.namespace_of(raw) is not None
            for page in scanned(tx.read_all, self.names.pattern.glob()) for raw in page
        )  # fmt: skip

    # --- in place -----------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        refused: list[str] = []
        for start in range(0, len(changes), PART):
            refused += self._change(claim, changes[start : start + PART], generation)
        return refused

    @repeated
    def _change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None) -> list[str]:
        name, names = claim.namespace, self.names
        for change in changes:
            self._check_row(change.row)
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            number = space["generation"] if generation is None else generation
            if number not in space["generations"]:
                raise InvalidInput(f"Namespace {name!r:.80} has no generation {number}.", "begin a generation first")
            self._not_moving(space, name)
            staged = None if number == space["generation"] else number
            keys = list(dict.fromkeys(change.key for change in changes))
            place = {key: self._place(name, staged, key) for key in keys}
            tx.read("WATCH", *place.values())  # the application's write makes this start again
            codec = RecordCodec(name)
            live: dict[str, Row | None] = dict.fromkeys(keys)
            live.update((row[0], row) for row in rows_of(tx.read_all, names, codec, name, staged, keys))
            refused: list[str] = []
            back: list[Row] = []
            done = False
            for change in changes:  # a key's second change sees its first
                there, row = live[change.key], None if change.row is None else tuple(change.row)
                if row == there:
                    continue
                if there is None and (change.expected is not None or row is None):
                    refused += [] if row is None else [change.key]
                elif there is not None and (change.expected is None or there[9] != change.expected):
                    refused.append(change.key)
                else:
                    if change.aside is not None and there is not None:
                        member = self.envelopes.member(there)
                        space["largest"] = max(space["largest"], len(member))
                        self._set_aside(tx, name, claim.incident, [(member, change.aside)])
                    if row is not None and there is None:
                        back.append(row)
                    self._put(tx, name, staged, change.key, row)
                    live[change.key], done = row, True
            if back and staged is None:
                self._no_longer_aside(tx, name, back)
            if done:
                tx.save(name, moved=True)
        return refused

    def _place(self, name: str, staged: int | None, key: str) -> bytes:
        return self.names.pattern.key(name, key) if staged is None else self.names.staged(name, staged, key)

    def _put(self, tx: Transaction, name: str, staged: int | None, key: str, row: Row | None) -> None:
        place = self._place(name, staged, key)
        if staged is not None:
            index, ends, raw = self.names.index(name, staged), self.names.expiry(name, staged), key.encode()
            tx.add("ZREM", ends, raw)
            tx.add(*(("ZREM", index, raw) if row is None else ("ZADD", index, 0, raw)))
            if row is not None and row[5] is not None:
                tx.add("ZADD", ends, row[5] // 1000, raw)
        if row is None:
            tx.add("UNLINK", place)
        elif staged is None and row[5] is not None:
            tx.add("RESTORE", place, max(1, row[5] // 1000), row[8], "REPLACE", "ABSTTL")
        else:
            tx.add("RESTORE", place, 0, row[8], "REPLACE")

    def _check_row(self, row: Row | None, looked_at: bool = False) -> None:
        """Errors: InvalidInput for what no key of this store can be."""
        if row is not None and (row[6] is not None or row[7] or not (looked_at or sound(row[8]))):
            raise InvalidInput(
                f"The record {row[0]!r:.80} is none of this layout, or its value is not whole.",
                "take it from a snapshot of this store",
            )

    def _no_longer_aside(self, tx: Transaction, name: str, rows: t.Sequence[Row]) -> None:
        """What was isolated and is back in its place lies aside no more: the application may delete it now."""
        stream, after = self.names.aside(name), b"-"
        wanted = {(row[0], row[9]) for row in rows}
        while True:
            page = tx.read("XRANGE", stream, after, "+", "COUNT", 100)
            if not page:
                return
            after = b"(" + page[-1][0]
            for place, fields in page:
                _incident, reason, member = aside_of(self.envelopes, fields)
                row = self.envelopes.row(member) if reason.startswith(ISOLATED) else None
                if row is not None and (row[0], row[9]) in wanted:
                    tx.add("XDEL", stream, place)

    # --- another generation -------------------------------------------------------------------------------------
    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        start = size = 0
        for number, row in enumerate(rows):
            size += len(row[8])
            if number + 1 - start >= MOVED or size > LOAD_BYTES:
                self._load(claim, generation, rows[start : number + 1])
                start, size = number + 1, 0
        if start < len(rows):
            self._load(claim, generation, rows[start:])

    @repeated
    def _load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        if not all(whole([row[8] for row in rows])):
            self._check_row(next(row for row in rows if not sound(row[8])))
        for row in rows:
            self._check_row(row, looked_at=True)
        name, names = claim.namespace, self.names
        with self._operating(claim) as tx:
            self._inactive(tx, claim, generation)
            index, ends = names.index(name, generation), names.expiry(name, generation)
            tx.add_packed(
                packed("RESTORE", names.staged(name, generation, row[0]), 0, row[8], "REPLACE") for row in rows
            )
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
            self._copying = (claim, after or "", Keys(self._replies, self.names, claim.namespace))
        keys = self._copying[2]
        last = after
        while limit > 0:
            texts = keys.page(claim.namespace, last, None, None, min(limit, MOVED), False)
            if not texts:
                break
            without = _planned(excluding, texts)
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
            with contextlib.closing(Keys(self._replies, self.names, name)) as keys:
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
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            if space.get("moving") and not any_key(tx.read_all, self.names, name):
                space["moving"]["phase"] = "in"
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
        if space["state"] == "standby" or fence_stands(self.wire, self.names, space, name):
            return
        if space["state"] == "serving" and not any_key(self._replies, self.names, name):
            return
        raise CannotProceed(
            f"Applications can reach the keys of namespace {name!r:.80}; they are not replaced under their hands.",
            f"isolate it first: memory_namespace={name}",
        )

    def _not_moving(self, space: t.Mapping[str, t.Any], name: str) -> None:
        if space.get("moving"):
            raise CannotProceed(
                f"The keys of namespace {name!r:.80} are in the middle of being replaced.",
                "run the rebuild, restore or undo again that was interrupted",
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

    def _replies(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        with valkey_errors(self.place):
            return self.wire.ask(commands)


def _planned(plan: str | None, texts: t.Sequence[str]) -> set[str]:
    """Those of these neighbouring names that the plan file names. Errors: InvalidInput."""
    if plan is None:
        return set()
    if not os.path.isfile(plan):
        raise InvalidInput(f"There is no plan file {plan}.", "make the plan first")
    uri = "file:" + urllib.parse.quote(os.path.abspath(plan)) + "?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            found = db.execute("SELECT key FROM plan WHERE key >= ? AND key <= ?", (texts[0], texts[-1]))
            return {key for (key,) in found}
    except sqlite3.Error as exc:
        raise InvalidInput(f"The plan file {plan} cannot be read: {exc}.", "make the plan again") from None
