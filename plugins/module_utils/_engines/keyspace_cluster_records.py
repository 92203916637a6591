# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys in all slots of a Cluster, by compare-and-set.

PRIVATE to the collection.

One transaction cannot hold both what lies aside and the keys. So the first one sets aside what is going to be replaced
and says in the control row (``changing``) from where on; then every key is changed at its node, if it is what it was;
the second one takes back what was set aside of a key that still is as it was. Who is killed in between leaves
``changing``, and the next change of the namespace begins with that second part.
"""
from __future__ import annotations

import itertools
import typing as t

from .._codec import RecordCodec
from .._model import Change, Claim, Row
from .._words import counted
from .applications_own import ISOLATED
from .keyspace_pattern import KeyspaceNames, raw_of, text_of
from .keyspace_reader import Ask, Server, fence_stands, row_of
from .keyspace_records import PART, KeyspaceRecords, Step, stepwise
from .keyspace_slot_map import slot_of, tags
from .keyspace_slots import DONE, Slots, Write
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_log import aside_of
from .valkey_rules import plain
from .valkey_transactions import Overtaken, repeated
from .valkey_values import written

#: KEYS[1], if its dump is ARGV[2] ("": none) and it expires at ARGV[3] (-2: there is none), becomes ARGV[4] ("": goes
#: away), which expires at ARGV[5] ("": never).
SWAP = """
local value = redis.call('DUMP', KEYS[1])
local ends = value and redis.call('PEXPIRETIME', KEYS[1]) or -2
if (value or '') ~= ARGV[2] or ends ~= tonumber(ARGV[3]) then return 'other' end
if ARGV[4] == '' then redis.call('UNLINK', KEYS[1])
elseif ARGV[5] == '' then redis.call('RESTORE', KEYS[1], 0, ARGV[4], 'REPLACE')
else redis.call('RESTORE', KEYS[1], ARGV[5], ARGV[4], 'REPLACE', 'ABSTTL') end
return 'done'
"""


class ClusterNames(KeyspaceNames):
    """A staged key lies in the slot of the key that it is for, so that one takes the other's place in one step: a text
    of that slot in braces comes first, and what is in the first braces is all that a Cluster hashes, whatever follows.
    """

    def staged(self, namespace: str, generation: int, text: str) -> bytes:
        tag = tags()[slot_of(self.pattern.key(namespace, text))]
        return f"{{{tag}}}{self._stem(namespace, generation)}".encode() + raw_of(text)

    def staged_glob(self, namespace: str, generation: int) -> str:
        return f"{{*}}{plain(self._stem(namespace, generation))}*"

    def staged_text(self, namespace: str, generation: int, raw: bytes) -> str:
        """The name of the record of a staged key."""
        return text_of(raw[raw.index(b"}") + 1 + len(self._stem(namespace, generation)) :])

    def _stem(self, namespace: str, generation: int) -> str:
        return f"{self.prefix}:{written(namespace)}:g:{generation}:"


class ClusterRecords(KeyspaceRecords):
    """The part of ``Store`` that changes records."""

    names: ClusterNames
    slots: Slots

    def _server(self, ask: Ask) -> Server:
        return self.slots

    def _stands(self, space: t.Mapping[str, t.Any], name: str) -> bool:
        with valkey_errors(self.place):
            return fence_stands(self.wire, self.names, space, name, self.slots.everywhere)

    @repeated
    def _change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None) -> list[str]:
        for change in changes:
            self._check_row(change.row)
        self.slots.map()  # if that has to wait, it does before the store is held
        refused, writes, mark, back = self._begin_change(claim, changes, generation)
        if writes:
            self._carry_out(claim, writes, mark, back)
        return refused

    def _begin_change(
        self, claim: Claim, changes: t.Sequence[Change], generation: int | None
    ) -> tuple[list[str], dict[str, Write], dict[str, t.Any], list[Row]]:
        """(keys that are refused, what to do with the others, what stands in the control row, rows that come back)."""
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            self._settle_change(tx, name, space)
            staged = self._staged(space, name, generation)
            keys = list(dict.fromkeys(change.key for change in changes))
            there = self._present(tx, name, staged, keys)
            live = {key: there[key][0] if key in there else None for key in keys}
            refused, steps = stepwise(changes, live)
            if not steps:
                return refused, {}, {}, []
            back = [step.row for step in steps if staged is None and step.former is None and step.row is not None]
            changed = space["generation"] if staged is None else staged
            mark = {"after": self._newest_aside(tx, name), "generation": changed, "back": bool(back)}
            self._keep(tx, claim, steps)
            final: dict[str, Step] = {step.change.key: step for step in steps}
            if staged is not None:
                self._index_changes(tx, name, staged, final)
            space["changing"] = mark
            tx.save(name, moved=True)
        self._await_replica()
        was = {key: there[key][1:] if key in there else (b"", -2) for key in final}
        writes = {
            key: Write(SWAP, (self._place(name, staged, key),), (*was[key], *_put(step, staged)))
            for key, step in final.items()
        }
        return refused, writes, mark, back

    def _carry_out(
        self, claim: Claim, writes: t.Mapping[str, Write], mark: t.Mapping[str, t.Any], back: t.Sequence[Row]
    ) -> None:
        """Errors: Overtaken when not all of it could be done; then it begins anew from the present state."""
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            if space.get("changing") != mark:
                raise Overtaken("Another step came in between.", "try again")
            said = self.slots.write(tx, list(writes.values()))
            undone = {key for key, reply in zip(writes, said) if reply != DONE}
            self._settle_change(tx, name, {**space, "changing": {**mark, "back": False}})
            del space["changing"]
            self._no_longer_aside(tx, name, [row for row in back if row[0] not in undone])
            tx.save(name, moved=True)
        if undone:
            raise Overtaken(
                f"{counted(len(undone), 'key')} of {name!r:.80} changed meanwhile, or took too long.", "try again"
            )

    def _present(
        self, tx: Transaction, name: str, staged: int | None, keys: t.Sequence[str]
    ) -> dict[str, tuple[Row, bytes, int]]:
        """Key → its row, its value and expiry as they are, of those that there are."""
        codec, found = RecordCodec(name), {}
        ends: list[t.Any] = [None] * len(keys)
        if staged is not None and keys:
            ends = tx.read("ZMSCORE", self.names.expiry(name, staged), *(key.encode() for key in keys))
        for number, dump, expires, sound in self.slots.fetched([self._place(name, staged, key) for key in keys]):
            if staged is None:
                end = None if expires < 0 else expires
            else:
                end = None if ends[number] is None else int(float(ends[number]))
            found[keys[number]] = (row_of(codec, keys[number], dump, end, sound), dump, expires)
        return found

    def _index_changes(self, tx: Transaction, name: str, staged: int, final: t.Mapping[str, Step]) -> None:
        index, ends = self.names.index(name, staged), self.names.expiry(name, staged)
        for key, step in final.items():
            raw = key.encode()
            tx.add("ZREM", ends, raw)
            tx.add(*(("ZREM", index, raw) if step.row is None else ("ZADD", index, 0, raw)))
            if step.row is not None and step.row[5] is not None:
                tx.add("ZADD", ends, step.row[5] // 1000, raw)

    def _newest_aside(self, tx: Transaction, name: str) -> str:
        found = tx.read("XREVRANGE", self.names.aside(name), "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else "0-0"

    @repeated
    def settle_change(self, claim: Claim) -> None:
        """End what a change that was killed left behind."""
        with self._operating(claim) as tx:
            self._settle_change(tx, claim.namespace, self._namespace(tx, claim.namespace))

    def _settle_change(self, tx: Transaction, name: str, space: dict[str, t.Any]) -> None:
        """What was set aside by a change lies aside no more where the key still is what it was; nor what was isolated
        and came back with it."""
        mark = space.pop("changing", None)
        if mark is None:
            return
        staged = None if mark["generation"] == space["generation"] else mark["generation"]
        pages = self._aside_pages(tx, name, mark["after"], "")
        if mark["back"]:
            pages = itertools.chain(pages, self._aside_pages(tx, name, "0-0", ISOLATED))
        for page in pages:
            there = self._present(tx, name, staged, list(page))
            for key, some in page.items():
                if key in there and any(there[key][0] == row for _place, row in some):
                    tx.add("XDEL", self.names.aside(name), *(place for place, _row in some))
        tx.save(name, moved=True)

    def _aside_pages(
        self, tx: Transaction, name: str, after: str, reasons: str
    ) -> t.Iterator[dict[str, list[tuple[bytes, Row]]]]:
        """Key → (place, row) of what lies aside behind that place, for a reason that begins so."""
        while page := tx.read("XRANGE", self.names.aside(name), f"({after}", "+", "COUNT", PART):
            after = page[-1][0].decode()
            aside: dict[str, list[tuple[bytes, Row]]] = {}
            for place, fields in page:
                _incident, reason, member = aside_of(self.envelopes, fields)
                row = self.envelopes.row(member) if reason.startswith(reasons) else None
                if row is not None:
                    aside.setdefault(row[0], []).append((place, row))
            yield aside


def _put(step: Step, staged: int | None) -> tuple[t.Any, t.Any]:
    """(dump, expiry) to put; both empty to take the key away."""
    if step.row is None:
        return b"", b""
    return step.row[8], b"" if staged is not None or step.row[5] is None else max(1, step.row[5] // 1000)
