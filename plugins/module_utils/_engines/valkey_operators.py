# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What operators do with a namespace of a Valkey store: fence it, prove the fence, change records by compare-and-set.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._errors import InvalidInput, MemoryOpsError, NamespaceLocked, NamespaceQuarantined
from .._model import Change, Claim, Row, is_isolated
from .valkey_applications import Applications
from .valkey_bulk import ascending
from .valkey_connect import packed
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_fencing import Fencing
from .valkey_server import refuse_eviction
from .valkey_transactions import repeated
from .valkey_values import SPAN, key_bytes, keys_bytes, one_key


class Operators(Applications, Fencing):
    """The operators' part of ``Store``, but for generations."""

    def prove(self, namespace: str) -> dict[str, t.Any]:
        space = self._space(namespace)
        detail = []
        memory = False
        try:
            with self.writing(namespace, 1, wait=0.0):
                raise _Probed
        except NamespaceQuarantined:
            memory = True
        except (_Probed, NamespaceLocked):
            pass
        detail.append(f"a write by Memory: {'refused' if memory else 'accepted'}")
        quarantined = space["state"] == "quarantined"
        detail.append(f"Memory reads nothing of a namespace that is quarantined; this one is {space['state']}")
        try:
            writes, reads, answered, more, open_to = self._prove_users(namespace, space["generation"])
        except MemoryOpsError as exc:
            bound = self.place.application_user is None  # nothing was to be proven of anybody
            writes = reads = answered = bound
            more, open_to = [f"raw commands: not tried ({exc.message})"], ["raw clients of any user of the server"]
        at_replicas, there = self._prove_replicas(namespace, space["generation"])
        if self.place.application_user is None:
            more.append("raw commands: no memory_store.application_user is set, so no user is kept from the keys")
        return {
            "writes_refused": memory and writes,
            "reads_refused": quarantined and reads,
            "reads_accepted": not quarantined and answered,
            "detail": detail + more + at_replicas,
            "not_fenced": [
                *open_to,
                *there,
                *self._standing(),
                f"a program that changes the control keys {self.names.store}*, which Memory itself needs",
            ],
        }

    # --- records ------------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        # Nothing prevents that records are isolated or taken away.
        if any(change.row is not None and not is_isolated(change.row) for change in changes):
            self._refuse_eviction()
        return self._change(claim, changes, generation)

    def _refuse_eviction(self) -> None:
        with valkey_errors(self.place):
            refuse_eviction(self.wire)

    @repeated
    def _change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None) -> list[str]:
        name = claim.namespace
        with self._operating(claim) as tx:
            space = self._namespace(tx, name)
            number = space["generation"] if generation is None else generation
            if number not in space["generations"]:
                raise InvalidInput(f"Namespace {name!r:.80} has no generation {number}.", "begin a generation first")
            tx.read("WATCH", self.names.records(name, number))  # a raw client's write makes this start again
            members: dict[str, bytes | None] = dict.fromkeys(change.key for change in changes)
            members.update(self._live(tx, name, number, list(members)))
            live = {key: None if one is None else self.envelopes.row(one) for key, one in members.items()}
            wanted: dict[str, Change] = {}
            refused: list[str] = []
            aside: list[tuple[bytes, str]] = []
            for change in changes:  # a key's second change sees its first
                key, row = change.key, None if change.row is None else tuple(change.row)
                there = live[key]
                if row == there:
                    continue
                if not change.expects(there):
                    refused.append(key)
                else:
                    member = members[key]
                    if change.aside is not None and member is not None:
                        aside.append((member, change.aside))
                    live[key], wanted[key] = row, change
                    members[key] = None if row is None else self.envelopes.member(row)
            if not wanted:
                return refused
            self._set_aside(tx, name, claim.incident, aside)
            self._take_away(tx, name, number, [key for key, change in wanted.items() if change.row is None])
            rows = [change.row for change in wanted.values() if change.row is not None]
            self._put_rows(tx, name, number, rows)
            self._keep_up_with(tx, rows)
            self._log_tombstones(tx, claim, [change for change in wanted.values() if change.row is not None])
            if number == space["generation"] or aside:
                tx.save(name, moved=True)
        return refused

    def _log_tombstones(self, tx: Transaction, claim: Claim, changes: list[Change]) -> None:
        """A tombstone with a reserved sequence is the operator's own: its log entry belongs into the transaction."""
        graves = [(c.row, c.aside) for c in changes if c.row and c.row[6] is not None]
        there = self._reserved(tx, [(row[1], row[2]) for row, _why in graves])
        fresh = [grave for grave, reserved in zip(graves, there) if reserved]
        if not fresh:
            return
        space = self._namespace(tx, claim.namespace)
        space["lock_number"] += 1
        tx.save(claim.namespace)
        entries = [
            (0, row[4], claim.namespace, "delete", row[0], row[1], row[2], row[9], space["lock_number"], claim.attempt)
            + (why, b"")
            for row, why in fresh
        ]
        self._append_operator(tx, entries)

    def reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        self._refuse_eviction()
        return self._reseal(claim, rows)

    def replace(
        self, claim: Claim, former: t.Sequence[Row], rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]
    ) -> list[str]:
        self._refuse_eviction()
        made = [(*row[:7], key_id, payload, checksum) for row, (key_id, payload, checksum, *_key) in zip(former, rows)]
        keys = keys_bytes(former)
        # before the store is held
        if ascending(keys) and [row[0] for row in former] == [row[3] for row in rows]:
            members, new = self.envelopes.members(former, keys), self.envelopes.members(made, keys)
            if self._replace(claim, former[0][0], former[-1][0], members, made, new):
                return []
        return self._reseal(claim, rows)

    @repeated
    def _replace(
        self,
        claim: Claim,
        first: str,
        last: str,
        members: t.Sequence[bytes],
        made: t.Sequence[Row],
        new: t.Sequence[bytes],
    ) -> bool:
        """Whether just these members were all that lies from the first key to the last one, and are replaced now."""
        name = claim.namespace
        with self._operating(claim) as tx:
            number = self._namespace(tx, name)["generation"]
            records = self.names.records(name, number)
            bounds = one_key(first)[0], one_key(last)[1]
            look = packed("ZRANGE", records, *bounds, "BYLEX", "LIMIT", 0, len(members) + 1)
            if tx.read_all([packed("WATCH", records), look])[1] != members:
                return False
            tx.add("ZREMRANGEBYLEX", records, *bounds)
            self._add_members(tx, name, number, made, new)
            tx.save(name, moved=True)
        return True

    @repeated
    def _reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        refused: list[str] = []
        name, env = claim.namespace, self.envelopes
        with self._operating(claim) as tx:
            number = self._namespace(tx, name)["generation"]
            records = self.names.records(name, number)
            tx.read("WATCH", records)
            bounds, members = self._live_range(tx, name, number, [row[3] for row in rows])
            done: dict[str, Row] = {}
            for key_id, payload, checksum, key, expected in rows:
                live = done.get(key) or (env.row(members[key]) if key in members else None)
                if live is None or live[9] != expected:
                    refused.append(key)
                else:
                    done[key] = (*live[:7], key_id, payload, checksum)
            if done:
                whole = bool(bounds) and len(done) == len(members)
                if whole:  # they are all that is there: one command takes the former ones away
                    tx.add("ZREMRANGEBYLEX", records, *bounds)
                self._put_rows(tx, name, number, list(done.values()), () if whole else None)
                tx.save(name, moved=True)
        return refused

    def _live_range(
        self, tx: Transaction, name: str, number: int, keys: t.Sequence[str]
    ) -> tuple[tuple[bytes, ...], dict[str, bytes]]:
        """As ``_live``; in one look when the keys are neighbours, as they are when a namespace is worked through: then
        with the bounds of a range in which nothing else is."""
        if len(keys) >= 16 and self._namespace(tx, name)["largest"] * len(keys) <= 64 << 20:
            raw = {key_bytes(key): key for key in keys}
            bounds = b"[" + min(raw) + b"\0\0", b"(" + max(raw) + b"\0\1"
            records = self.names.records(name, number)
            there = tx.read("ZLEXCOUNT", records, *bounds)
            if there <= 2 * len(raw):
                found: dict[str, bytes] = {}
                for member in tx.read("ZRANGE", records, *bounds, "BYLEX"):
                    key = raw.get(member[: member.find(b"\0\0")])
                    if key is not None:
                        found.setdefault(key, member)
                return (bounds if there == len(found) else ()), found
        return (), self._live(tx, name, number, keys)

    @repeated
    def reserve(self, claim: Claim, count: int) -> tuple[int, int]:
        with self._operating(claim) as tx:
            epoch, sequence = tx.numbers["epoch"], tx.numbers["sequence"]
            if count > 0:
                tx.numbers["sequence"] = sequence + count
                tx.add("ZADD", self.names.reserved, 0, SPAN.pack(epoch, sequence + 1, sequence + count))
        return epoch, sequence + 1


class _Probed(Exception):
    """Ends a write that was only tried."""
