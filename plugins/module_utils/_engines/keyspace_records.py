# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing another application's keys in place, by compare-and-set.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._codec import RecordCodec
from .._errors import CannotProceed, InvalidInput
from .._model import Change, Claim, Row
from .applications_own import ISOLATED
from .keyspace_dump import sound
from .keyspace_pattern import KeyspaceNames
from .keyspace_reader import Ask, OneServer, Server, fence_stands, rows_of
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_fencing import Fencing
from .valkey_filling import Filling
from .valkey_log import aside_of
from .valkey_transactions import repeated

PART = 200  # keys that one change in place looks at


class Step(t.NamedTuple):
    """One change that is to be made."""

    change: Change
    former: Row | None
    row: Row | None


def stepwise(changes: t.Sequence[Change], live: t.Mapping[str, Row | None]) -> tuple[list[str], list[Step]]:
    """(keys whose change is refused, what is to be done) by compare-and-set on what is there now."""
    refused: list[str] = []
    steps: list[Step] = []
    now = dict(live)
    for change in changes:  # a key's second change sees its first
        there, row = now[change.key], None if change.row is None else tuple(change.row)
        if row == there:
            continue
        if change.expects(there):
            steps.append(Step(change, there, row))
            now[change.key] = row
        else:
            refused.append(change.key)
    return refused, steps


class KeyspaceRecords(Fencing, Filling):
    """The part of ``Store`` that changes records."""

    names: KeyspaceNames

    def _make_generation(self, tx: Transaction, name: str) -> int:
        number = tx.numbers["generation"] = tx.numbers["generation"] + 1
        return number

    def _server(self, ask: Ask) -> Server:
        """What holds the application's keys; ``ask`` goes to the server that has the collection's own."""
        return OneServer(ask)

    def _stands(self, space: t.Mapping[str, t.Any], name: str) -> bool:
        """Whether no application can reach the namespace now."""
        return fence_stands(self.wire, self.names, space, name)

    def _any_record(self, tx: Transaction) -> bool:
        pages = self._server(tx.read_all).scanned(self.names.pattern.glob())
        return any(self.names.pattern.namespace_of(raw) is not None for page in pages for raw in page)

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
            staged = self._staged(space, name, generation)
            keys = list(dict.fromkeys(change.key for change in changes))
            place = {key: self._place(name, staged, key) for key in keys}
            tx.read("WATCH", *place.values())  # the application's write makes this start again
            codec = RecordCodec(name)
            live: dict[str, Row | None] = dict.fromkeys(keys)
            server = self._server(tx.read_all)
            live.update((row[0], row) for row in rows_of(tx.read_all, server, names, codec, name, staged, keys))
            refused, steps = stepwise(changes, live)
            self._keep(tx, claim, steps)
            for step in steps:
                self._put(tx, name, staged, step.change.key, step.row)
            back = [step.row for step in steps if step.former is None and step.row is not None]
            if back and staged is None:
                self._no_longer_aside(tx, name, back)
            if steps:
                tx.save(name, moved=True)
        return refused

    def _keep(self, tx: Transaction, claim: Claim, steps: t.Sequence[Step]) -> None:
        """Set aside what these steps replace."""
        space = self._namespace(tx, claim.namespace)
        for step in steps:
            if step.change.aside is not None and step.former is not None:
                member = self.envelopes.member(step.former)
                space["largest"] = max(space["largest"], len(member))
                self._set_aside(tx, claim.namespace, claim.incident, [(member, step.change.aside)])

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

    def _staged(self, space: t.Mapping[str, t.Any], name: str, generation: int | None) -> int | None:
        """The generation whose keys are staged; None for the active one, whose keys are the application's own.

        Errors: InvalidInput for one that there is not, CannotProceed while keys are being replaced.
        """
        number = space["generation"] if generation is None else generation
        if number not in space["generations"]:
            raise InvalidInput(f"Namespace {name!r:.80} has no generation {number}.", "begin a generation first")
        self._not_moving(space, name)
        return None if number == space["generation"] else number

    def _not_moving(self, space: t.Mapping[str, t.Any], name: str) -> None:
        if space.get("moving"):
            raise CannotProceed(
                f"The keys of namespace {name!r:.80} are in the middle of being replaced.",
                "run the rebuild, restore or undo again that was interrupted",
            )

    def _replies(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        with valkey_errors(self.place):
            return self.wire.ask(commands)
