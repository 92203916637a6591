# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Generations of a namespace in a Valkey store: fill a new one beside the active one, then switch.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._errors import CannotProceed, InvalidInput
from .._model import Claim, Row
from .valkey_bulk import Ready, in_order, made_ready
from .valkey_control import Transaction
from .valkey_filling import Filling
from .valkey_transactions import repeated
from .valkey_values import AT_ONCE, END, key_bytes, key_text, one_key

LOAD_ROWS = 2000  # of one transaction
COPY_ROWS = 2000
#: Copies up to ARGV[4] members between ARGV[1] and ARGV[2] from KEYS[1] to KEYS[2], and the ends of their lives from
#: KEYS[3] to KEYS[4] when ARGV[3] is "1", but not those whose keys are ARGV[5 …].
COPY = """
local wanted = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[4])
local without, out, ends = {}, {}, {}
for i = 5, #ARGV do without[ARGV[i]] = true end
for i = 1, #wanted do
  local stop = string.find(wanted[i], '\\0\\0', 1, true)
  local key = stop and string.sub(wanted[i], 1, stop - 1) or ''
  if key ~= '' and not without[key] then
    out[#out + 1] = 0
    out[#out + 1] = wanted[i]
    if ARGV[3] == '1' then
      local score = redis.call('ZSCORE', KEYS[3], key)
      if score then ends[#ends + 1] = score; ends[#ends + 1] = key end
    end
    if #out >= 1000 then redis.call('ZADD', KEYS[2], unpack(out)); out = {} end
    if #ends >= 1000 then redis.call('ZADD', KEYS[4], unpack(ends)); ends = {} end
  end
end
if #out > 0 then redis.call('ZADD', KEYS[2], unpack(out)) end
if #ends > 0 then redis.call('ZADD', KEYS[4], unpack(ends)) end
return #wanted
"""


def _transactions(rows: t.Sequence[Row]) -> t.Iterator[t.Sequence[Row]]:
    start, size = 0, 0
    for number, row in enumerate(rows, 1):
        size += len(row[8]) if isinstance(row[8], bytes) else 0
        if number - start >= LOAD_ROWS or size > AT_ONCE // 4:
            yield rows[start:number]
            start, size = number, 0
    if start < len(rows):
        yield rows[start:]


class Generations(Filling):
    """The generations' part of ``Store``."""

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        for some in _transactions(rows):
            ready = self._ready(claim.namespace, generation, some)  # before the store is held
            if ready is None or not self._load_ready(claim, generation, ready):
                self._load(claim, generation, some)

    @repeated
    def _load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        with self._operating(claim) as tx:
            self._inactive(tx, claim, generation)
            self._put_rows(tx, claim.namespace, generation, rows)
            self._keep_up_with(tx, rows)

    def prepared(self, namespace: str, generation: int, rows: t.Sequence[Row]) -> list[Ready | t.Sequence[Row]]:
        """See _store_optional.PreparedLoad."""
        return [self._ready(namespace, generation, some) or some for some in _transactions(rows)]

    def load_prepared(self, claim: Claim, generation: int, prepared: t.Sequence[Ready | t.Sequence[Row]]) -> None:
        for some in prepared:
            if not isinstance(some, Ready):
                self._load(claim, generation, some)
            elif not self._load_ready(claim, generation, some):
                raise CannotProceed(
                    f"Generation {generation} of namespace {claim.namespace!r:.80} has records that were not loaded.",
                    "run the same command again",
                )

    def _ready(self, namespace: str, generation: int, rows: t.Sequence[Row]) -> Ready | None:
        """None for rows that are not in order."""
        if not in_order(rows):
            return None
        ready = made_ready(self.names.records(namespace, generation), rows, self.envelopes.members(rows))
        epoch, sequence = max([(row[1], row[2]) for row in rows])
        return ready._replace(
            between=(one_key(rows[0][0])[0], one_key(rows[-1][0])[1]),
            newest=(epoch, sequence, max([row[4] for row in rows])),
        )

    @repeated
    def _load_ready(self, claim: Claim, generation: int, ready: Ready) -> bool:
        """Whether there was nothing between them."""
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._inactive(tx, claim, generation)
            if tx.read("ZLEXCOUNT", self.names.records(name, generation), *ready.between):
                return False
            if tx.keep is not None and tx.keep.covers(space, generation):
                tx.keep = None
            self._add_ready(tx, name, generation, ready)
            self._keep_up(tx, *ready.newest)
        return True

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        if excluding is None:
            return self._copy(claim, source, target, after, limit, None)
        if not os.path.isfile(excluding):
            raise InvalidInput(f"There is no plan file {excluding}.", "make the plan first")
        uri = "file:" + urllib.parse.quote(os.path.abspath(excluding)) + "?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as plan:
                return self._copy(claim, source, target, after, limit, plan)
        except sqlite3.Error as exc:
            raise InvalidInput(f"The plan file {excluding} cannot be read: {exc}.", "make the plan again") from None

    def _copy(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, plan: sqlite3.Connection | None
    ) -> str | None:
        last: str | None = None
        while limit > 0:
            key, rows = self._copy_some(claim, source, target, after if last is None else last, limit, plan)
            if key is None:
                break
            last, limit = key, limit - rows
        return last

    @repeated
    def _copy_some(
        self, claim: Claim, source: int, target: int, after: str | None, limit: int, plan: sqlite3.Connection | None
    ) -> tuple[str | None, int]:
        """(the last key that was looked at, how many rows that were)."""
        name, names = claim.namespace, self.names
        with self._operating(claim) as tx:
            space = self._inactive(tx, claim, target)
            self._one_of(space, claim, source)
            rows = max(1, min(limit, COPY_ROWS, AT_ONCE // max(space["largest"], 1)))
            records = names.records(name, source)
            low = b"(" if after is None else b"(" + key_bytes(after) + b"\0\1"
            end = self._end(tx, records, low, rows)
            if end is None:
                return None, 0
            key, high = end
            without: list[bytes] = []
            if plan is not None:
                found = plan.execute(
                    "SELECT key FROM plan WHERE key > ? AND key <= ?", ("" if after is None else after, key)
                )
                without = [key_bytes(one) for (one,) in found]
            if tx.keep is not None and tx.keep.covers(space, target):
                tx.keep = None
            tx.add(
                "EVAL", COPY, 4, records, names.records(name, target), names.expiry(name, source),
                names.expiry(name, target), low, high, int(space["expiring"]), rows, *without,
            )  # fmt: skip
        return key, rows

    def _end(self, tx: Transaction, records: str, low: bytes, rows: int) -> tuple[str, bytes] | None:
        """(key, upper bound) of the last of ``rows`` members above ``low``; None when there is none."""
        count = int(tx.read("ZLEXCOUNT", records, low, "+"))
        while count:
            member = tx.read("ZRANGE", records, low, "+", "BYLEX", "LIMIT", min(rows, count) - 1, 1)[0]
            end = member.find(END)
            try:
                if end > 0:
                    return key_text(member[:end]), b"[" + member
            except UnicodeDecodeError:
                pass
            count = min(rows, count) - 1  # what belongs to no key stays behind
        return None

    def finish_switch(self, claim: Claim) -> None:
        """A switch is one write."""

    @repeated
    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            if space["generation"] == generation:
                return False
            self._one_of(space, claim, generation)
            if space["generation"] != expected:
                raise CannotProceed(
                    f"Namespace {claim.namespace!r:.80} is at generation {space['generation']}, not {expected}.",
                    "make the plan again from the present state",
                )
            space["generation"], space["switched"] = generation, tx.numbers["commits"] + 1
            tx.save(claim.namespace, moved=True)
            tx.durable = True
        return True

    @repeated
    def drop_generation(self, claim: Claim, generation: int) -> int:
        with self._operating(claim) as tx:
            space = self._namespace(tx, claim.namespace)
            if generation not in space["generations"] and not self._anywhere(tx, generation):
                return 0
            self._inactive(tx, claim, generation)
            records = self.names.records(claim.namespace, generation)
            rows = int(tx.read("ZLEXCOUNT", records, "(", "+"))
            # the server frees the memory in the background
            tx.add("UNLINK", records, self.names.expiry(claim.namespace, generation))
            space["generations"].remove(generation)
            tx.save(claim.namespace)
        return rows

    def _any_record(self, tx: Transaction) -> bool:
        for raw in tx.read("HKEYS", self.names.namespaces):
            name = raw.decode()
            for number in (tx.space(name) or {}).get("generations", ()):
                if tx.read("ZLEXCOUNT", self.names.records(name, number), "(", "+"):
                    return True
        return False
