# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What applications do with a Valkey store: write under the namespace's lock, live by its TTL.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import time
import typing as t

from .._codec import RecordCodec
from .._errors import MemoryOpsError, NamespaceLocked, NamespaceQuarantined, StoreUnavailable
from .._model import Row
from .leases import POLL_SECONDS, SWEEPER, believed_end, check_sequences, lock_lost, locked, quarantined
from .valkey_control import Transaction
from .valkey_incidents import may_be_new
from .valkey_log import LogKeeping
from .valkey_transactions import repeated
from .valkey_values import is_write, key_text


class ValkeyWrite:
    """See _store.Write. What it puts is sent when the write ends."""

    def __init__(self, owner: Applications, tx: Transaction, namespace: str, count: int, lock: int) -> None:
        self._owner, self._tx, self._namespace, self._count = owner, tx, namespace, count
        space = owner._namespace(tx, namespace)
        self.generation: int = space["generation"]
        self.ttl: float | None = space["ttl"]
        self.lock = lock
        self.epoch: int = tx.numbers["epoch"]
        self.first_sequence: int = tx.numbers["sequence"] + 1
        self.at: int = max(owner.clock(), tx.numbers["newest"])
        self._used: list[int] = []
        self._touched = False
        self._looked: dict[str, bytes | None] = {}  # members as they are in the store
        self._own: dict[str, Row] = {}

    def current(self, keys: t.Sequence[str]) -> dict[str, Row]:
        self._look(keys)
        found = {}
        for key in keys:
            member = self._looked.get(key)
            row = self._own.get(key) or (None if member is None else self._owner.envelopes.row(member))
            if row is not None:
                found[key] = row
        return found

    def _look(self, keys: t.Sequence[str]) -> None:
        unknown = [key for key in keys if key not in self._looked]
        if unknown:
            self._looked.update(dict.fromkeys(unknown))
            self._looked.update(self._owner._live(self._tx, self._namespace, self.generation, unknown))

    def put(
        self, rows: t.Sequence[Row], entries: t.Sequence[tuple[t.Any, ...]], aside: str | None = None
    ) -> None:
        self._touched = True
        used = [entry[6] for entry in entries if is_write(entry)]
        check_sequences(used, self.first_sequence, self._count)
        self._used += used
        owner, tx = self._owner, self._tx
        if aside is not None:
            self._look([row[0] for row in rows])
            former = [
                owner.envelopes.member(self._own[row[0]]) if row[0] in self._own else self._looked.get(row[0])
                for row in rows
            ]
            owner._set_aside(tx, self._namespace, "", [(member, aside) for member in former if member is not None])
        there = {
            row[0] for row in rows
            if row[0] in self._own or self._looked.get(row[0], b"") is not None
        }  # fmt: skip
        owner._put_rows(tx, self._namespace, self.generation, rows, there)
        self._own.update((row[0], row) for row in rows)
        owner._append(tx, entries)

    def finish(self) -> None:
        """Only sequences that were used count as given out: the next write goes on behind them."""
        if not self._touched:
            return
        tx = self._tx
        tx.numbers["sequence"] = max([tx.numbers["sequence"], *self._used])
        tx.numbers["newest"] = max(tx.numbers["newest"], self.at)
        space = self._owner._namespace(tx, self._namespace)
        space["lock_number"] = max(space["lock_number"], self.lock)
        tx.save(self._namespace, moved=True)
        self._owner._note_given(tx, self.epoch, self._used)


class Applications(LogKeeping):
    """The applications' part of ``Store``."""

    @contextlib.contextmanager
    def writing(self, namespace: str, count: int, wait: float = 30.0) -> t.Iterator[ValkeyWrite]:
        deadline = time.monotonic() + wait
        while True:
            began = False
            try:
                with self._transaction() as tx:  # pylint: disable=contextmanager-generator-missing-cleanup
                    space, blocked = self._serving(tx, namespace)
                    if blocked is None:
                        held = self._held.get(namespace)
                        number = space["lock_number"] + 1 if held is None else held
                        write = ValkeyWrite(self, tx, namespace, count, number)
                        began = True
                        yield write
                        write.finish()
            except StoreUnavailable:
                if began:
                    self._met_the_fence(namespace)
                raise
            if blocked is None:
                return
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    def _met_the_fence(self, namespace: str) -> None:
        """A fence waits for no write in progress; what was refused for it is said as that."""
        try:
            space = self._space(namespace)
        except MemoryOpsError:
            return
        if space["state"] != "serving":
            raise quarantined(namespace, space["incident"], space["state"])

    def _serving(self, tx: Transaction, namespace: str) -> tuple[dict[str, t.Any], NamespaceLocked | None]:
        """The control row of a namespace that applications may write, and who blocks it if anybody.

        Errors: NamespaceQuarantined; NamespaceLocked when this object's lock was taken over.
        """
        space = tx.space(namespace)
        if space is None:
            may_be_new(tx, self.names)
            space = self._make_namespace(tx, namespace, "serving", None)
        if space["state"] != "serving":
            raise quarantined(namespace, space["incident"], space["state"])
        mine, held = self._held.get(namespace), space["lock_held"]
        if mine is not None and (held != mine or space["lock_number"] != mine):  # somebody wrote in between
            del self._held[namespace]
            raise lock_lost(namespace, mine, space["lock_actor"] if held not in (None, mine) else None)
        now = self.clock()
        if held is None or held == mine or space["lock_until"] <= now:
            return space, None
        until = believed_end(space["lock_until"], now, space["lock_until"] - space["lock_since"])
        if until != space["lock_until"]:  # a clock that jumped back must not make a lease last for years
            space["lock_until"] = until
            tx.save(namespace)
        return space, locked(namespace, space["lock_actor"], space["lock_since"], until)

    def lock(self, namespace: str, actor: str, wait: float, lease: float) -> int:
        deadline = time.monotonic() + wait
        while True:
            number, blocked = self._lock(namespace, actor, int(lease * 1_000_000))
            if blocked is None:
                self._held[namespace] = number
                return number
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    @repeated
    def _lock(self, namespace: str, actor: str, length: int) -> tuple[int, NamespaceLocked | None]:
        with self._transaction() as tx:
            space, blocked = self._serving(tx, namespace)
            number = int(self._held.get(namespace) or space["lock_number"] + 1)
            if blocked is None:
                now = self.clock()
                space.update(
                    lock_number=max(space["lock_number"], number), lock_held=number, lock_actor=actor,
                    lock_since=now, lock_until=now + length,
                )  # fmt: skip
                tx.save(namespace)
        return number, blocked

    def unlock(self, namespace: str, number: int) -> None:
        if self._held.get(namespace) == number:
            del self._held[namespace]
        self._unlock(namespace, number)

    @repeated
    def _unlock(self, namespace: str, number: int) -> None:
        with self._transaction() as tx:
            space = tx.space(namespace)
            if space is not None and space["lock_held"] == number:
                space.update(lock_held=None, lock_actor=None, lock_since=None, lock_until=None)
                tx.save(namespace)

    @repeated
    def set_ttl(self, namespace: str, ttl: float | None) -> bool:
        with self._transaction() as tx:
            space = self._namespace(tx, namespace)
            if space["ttl"] == ttl:
                return False
            space["ttl"] = ttl
            tx.save(namespace)
        return True

    def sweep(self, namespace: str, now: int, limit: int = 500) -> int:
        codec = RecordCodec(namespace)
        try:
            with self.writing(namespace, limit, wait=0.0) as write:
                tx, gone = write._tx, []
                for row in self._expired(tx, namespace, write.generation, now):
                    # a damaged record may only look expired: it stays for the diagnosis
                    if codec.intact(row) and row[6] is None and row[5] is not None and row[5] <= now:
                        gone.append(row)
                        if len(gone) >= limit:
                            break
                if not gone:
                    return 0
                self._take_away(tx, namespace, write.generation, [row[0] for row in gone])
                write.put(
                    [],
                    [
                        (0, write.at, namespace, "delete", row[0], write.epoch, write.first_sequence + number, row[9])
                        + (write.lock, SWEEPER, "expired", b"")
                        for number, row in enumerate(gone)
                    ],
                )
                return len(gone)
        except (NamespaceQuarantined, NamespaceLocked):
            return 0

    @repeated
    def drop_tombstones(self, namespace: str, rows: t.Sequence[Row]) -> int:
        with self.writing(namespace, 1) as write:
            tx = write._tx
            there = self._live(tx, namespace, write.generation, [row[0] for row in rows])
            gone = [row[0] for row in rows if row[0] in there and self.envelopes.row(there[row[0]]) == tuple(row)]
            if gone:
                self._take_away(tx, namespace, write.generation, gone)
                tx.save(namespace, moved=True)
        return len(gone)

    def _expired(self, tx: Transaction, namespace: str, generation: int, now: int) -> t.Iterator[Row]:
        seen = 0
        while True:
            raw = tx.read(
                "ZRANGE", self.names.expiry(namespace, generation), "-inf", now, "BYSCORE", "LIMIT", seen, 500
            )
            if not raw:
                return
            seen += len(raw)
            members = self._live(tx, namespace, generation, [key_text(key) for key in raw])
            for member in members.values():
                row = self.envelopes.row(member)
                if row is not None:
                    yield row
