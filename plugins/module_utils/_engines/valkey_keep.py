# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Copy on write for a reader of a Valkey store: writers keep what records were at its point, before they change them.

PRIVATE to the collection. The server keeps no former state, so whoever wants to read one point asks the writers for it:
the store's own hash, which every transaction reads first, then names the point, and a key with a lease says that
somebody still reads. A transaction puts the former member of each key that it changes for the first time since into a
sorted set beside the generation, in the same EXEC. Nothing is kept, and nothing costs anything, while nobody reads so.
"""
from __future__ import annotations

import typing as t

from .valkey_bulk import add_members
from .valkey_connect import packed
from .valkey_values import AT_ONCE, END, Names, key_bytes, one_key

if t.TYPE_CHECKING:
    from .valkey_control import Transaction

LEASE_SECONDS: t.Final = 120.0  # a reader may wait that long for a slow upload; one that was killed costs no more
COPIES_SECONDS: t.Final = 180.0  # from their last use; never less than the lease has left
NONE: t.Final = b"\xc1 no record"  # in place of fields: there was no such record; no msgpack begins so
FIELDS: t.Final = ("keep", "keep_last", "keep_sets")


class Keep:
    """The point that is kept: whose it is (token), the number of its last transaction, and the store's newest
    generation then. ``sets``: how many generations have copies."""

    def __init__(self, token: str, commits: int, generation: int, sets: int = 0) -> None:
        self.token, self.commits, self.generation, self.sets = token, commits, generation, sets
        self.done: dict[str, set[str]] = {}  # copies → the keys that this transaction looked after

    @classmethod
    def of(cls, said: t.Mapping[str, str], commits: int) -> Keep | None:
        """What the store's hash says. None also when the last transaction knew nothing of this: that was a program of
        an older version, and what it changed was not kept."""
        try:
            token, point, generation = said["keep"].split(" ")
            if int(said["keep_last"]) != commits:
                return None
            return cls(token, int(point), int(generation), int(said["keep_sets"]))
        except (KeyError, ValueError):
            return None

    def fields(self, commits: int) -> list[t.Any]:
        """For the store's hash, by the transaction with this number."""
        point = f"{self.token} {self.commits} {self.generation}"
        return ["keep", point, "keep_last", commits, "keep_sets", self.sets]

    def covers(self, space: t.Mapping[str, t.Any], generation: int) -> bool:
        """Whether the generation may have been the active one at the point."""
        if generation > self.generation:
            return False
        return bool(generation == space["generation"] or space.get("switched", 0) > self.commits)


def keep_former(tx: Transaction, names: Names, name: str, generation: int, keys: t.Iterable[str]) -> None:
    """Before the transaction changes these keys: what they hold now goes to the copies, unless they were changed since
    the point already. Where that cannot be done any more, the point is given up."""
    keep, space = tx.keep, tx.space(name)
    if keep is None or space is None or not keep.covers(space, generation):
        return
    records, known = names.records(name, generation), names.kept(keep.token)
    copies = names.copies(name, generation, keep.token)
    done = keep.done.setdefault(copies, set())
    fresh = [key for key in dict.fromkeys(keys) if key not in done]
    many = max(1, min(500, AT_ONCE // max(space["largest"], 1)))
    state = [packed("EXISTS", names.keep(keep.token)), packed("EXISTS", copies), packed("SISMEMBER", known, copies)]
    for start in range(0, len(fresh), many):
        some = fresh[start : start + many]
        looks = [packed("ZLEXCOUNT", copies, *one_key(key)) for key in some]
        looks += [packed("ZRANGE", records, *one_key(key), "BYLEX") for key in some]
        lease, there, noted, *found = tx.read_all(state + looks)
        if not lease or there != noted:  # its reader is gone, or the server dropped copies
            tx.keep = None
            return
        former: list[bytes] = []
        for key, before, members in zip(some, found, found[len(some) :]):
            if not before:
                former += members or [key_bytes(key) + END + NONE]
        if former:
            if not noted and not done:
                keep.sets += 1
                tx.add("SADD", known, copies)
            tx.add_packed(add_members(copies, former))
            for one in (copies, known):
                tx.add("PEXPIRE", one, int(COPIES_SECONDS * 1000))
        done.update(some)
