# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Transactions on a Valkey store: one writer at a time, all or nothing, and nobody writes on what is out of date.

PRIVATE to the collection.

A writer first takes the store's hold (a key with a short lease) and watches it, reads what it needs, decides, and sends
everything that it writes as ONE atomic MULTI … EXEC that gives the hold back. Whoever lost the hold (its lease ran out,
a fence did not wait for it) finds the EXEC refused: nothing of it was written.
"""
from __future__ import annotations

import contextlib
import functools
import random
import re
import secrets
import time
import typing as t

from .._errors import MemoryOpsError, StoreMoved, StoreUnavailable
from .._model import Claim, Row
from .leases import check_claim
from .valkey_bulk import Ready, made_ready
from .valkey_cluster import FAILOVER_SECONDS, elsewhere
from .valkey_connect import Place, Wire, packed
from .valkey_control import (
    Transaction,
    counters_of,
    fresh_space,
    incident_field,
    incident_row,
    refuse_lost,
    space_of,
)
from .valkey_errors import translate, valkey_errors
from .valkey_keep import keep_former
from .valkey_values import AT_ONCE, THERE, Envelopes, Names, key_bytes, one_key

HOLD_SECONDS: t.Final = 5.0  # less than the default busy timeout: a dead writer costs others no more
SETTLE_SECONDS: t.Final = 5.0
T = t.TypeVar("T")
F = t.TypeVar("F", bound=t.Callable[..., t.Any])


class Overtaken(StoreUnavailable):
    """The transaction was refused because another writer came in between; nothing was written."""


def repeated(method: F) -> F:
    """An operator's method works again from the present state when somebody came in between, or the store moved."""

    @functools.wraps(method)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        began = time.monotonic()
        for _turn in range(20):
            try:
                return method(*args, **kwargs)
            except Overtaken:
                time.sleep(random.uniform(0.001, 0.02))
            except StoreMoved:
                if time.monotonic() - began > FAILOVER_SECONDS:
                    raise
        return method(*args, **kwargs)

    return t.cast(F, wrapper)


def wall_clock() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Connected:
    """The connection of one open store, and the transactions that all parts use."""

    def __init__(self, place: Place) -> None:
        try:
            self.envelopes = Envelopes()
        except ImportError:
            raise MemoryOpsError("The Python package msgpack is missing.", "pip install msgpack") from None
        self.place = place
        self.path = place.where  # for messages
        self.names = Names(place.prefix)
        self.clock: t.Callable[[], int] = wall_clock
        self.wire = Wire(place)
        self._turns: t.Any = None  # a lock of the processes that write at the same time, so that they need not ask
        self._held: dict[str, int] = {}  # namespace → number of the write lock that this object holds
        # what this object imported last: namespace, the store's log_id after it, the newest (epoch, sequence) of it
        self._imported: tuple[str, int, tuple[int, int]] | None = None

    # --- the hold -----------------------------------------------------------------------------------------------
    def _begin(self, force_after: float | None) -> Transaction:
        """Errors: StoreUnavailable when another writer keeps the hold for longer than the busy timeout."""
        names, token, began = self.names, secrets.token_hex(8), time.monotonic()
        lease = str(int(HOLD_SECONDS * 1000))
        rest = [packed("WATCH", names.hold), packed("GET", names.hold), packed("HGETALL", names.store)]
        forced = False
        while True:
            take = ["SET", names.hold, token, "PX", lease] + ([] if forced else ["NX"])
            asked = time.monotonic()
            with valkey_errors(self.place):
                try:
                    replies = self.wire.ask([packed("UNWATCH"), packed(*take), *rest])[1:]
                except BaseException:
                    self.wire.drop()  # an open WATCH goes with the connection
                    raise
            if replies[2] == token.encode():
                try:
                    tx = Transaction(self.wire, names, token, *counters_of(replies[3], self.place.where))
                    tx.until = asked + HOLD_SECONDS
                    return tx
                except BaseException:
                    self._release(token)
                    raise
            waited = time.monotonic() - began
            if not replies[3]:
                counters_of([], self.place.where)
            if force_after is not None and waited >= force_after:
                forced = True
                continue
            if waited >= self.place.timeout:
                self.wire.drop()
                raise StoreUnavailable(
                    f"The store {self.place.where} is busy: another writer held it longer than the busy timeout.",
                    "try again; the hold of a writer that died ends after 5 seconds",
                )
            time.sleep(min(0.02, 0.0005 + waited / 10) * random.uniform(0.5, 1.5))

    def _release(self, token: str) -> None:
        """Give the hold back, if it is still ours (it is being watched)."""
        from redis.exceptions import RedisError

        if not self.wire.connected:
            self._let_go(token)
            return
        try:
            self.wire.many([packed("MULTI"), packed("DEL", self.names.hold), packed("EXEC")])
        except (RedisError, MemoryOpsError):
            self.wire.drop()  # its lease ends it

    @contextlib.contextmanager
    def _transaction(self, *, force_after: float | None = None) -> t.Iterator[Transaction]:
        """``force_after``: seconds to wait for another writer before its transaction is broken."""
        with self._in_turn(), self._held_store(force_after) as tx:  # pylint: disable=contextmanager-generator-missing-cleanup
            yield tx

    @contextlib.contextmanager
    def _in_turn(self) -> t.Iterator[None]:
        """Whoever was killed with the lock keeps nobody from the store for longer than with the hold."""
        mine = self._turns is not None and self._turns.acquire(timeout=HOLD_SECONDS)
        try:
            yield
        finally:
            if mine:
                self._turns.release()

    @contextlib.contextmanager
    def _held_store(self, force_after: float | None) -> t.Iterator[Transaction]:
        tx = self._begin(force_after)
        try:
            with valkey_errors(self.place):
                yield tx
        except BaseException as exc:
            if isinstance(exc, StoreMoved):
                self.wire.drop()  # the hold, if it moved along, is given back where the store is now
            self._release(tx.token)
            raise
        if tx.dirty:
            self._commit(tx)
        else:
            self._release(tx.token)

    def _commit(self, tx: Transaction) -> None:
        from redis import exceptions as e

        commands = tx.commands()
        if not self.wire.connected or self.wire.session != tx.session:  # nothing watches the hold any more
            self._let_go(tx.token)
            raise (StoreMoved if self.place.nodes.clustered else StoreUnavailable)(
                f"The connection to the server {self.place.where} was lost; nothing was stored.", "try again"
            )
        try:
            replies = self.wire.many(commands)
        except (e.ConnectionError, e.TimeoutError) as exc:
            self.wire.drop()
            self._settle(tx.token, translate(exc, self.place))
            return
        done = replies[-1]
        if isinstance(done, Exception):
            first = next((x for x in replies[1:-1] if isinstance(x, Exception)), done)
            if self.place.nodes.clustered and elsewhere(first):
                self.wire.drop()
            self._let_go(tx.token)
            raise translate(first if isinstance(done, e.ExecAbortError) else done, self.place)
        if done is None:
            self._let_go(tx.token)
            raise Overtaken(
                f"A write to the store {self.place.where} was overtaken by another one; nothing of it was stored.",
                "try again",
            )
        for reply in done:
            if isinstance(reply, Exception):
                raise translate(reply, self.place)
        if tx.durable:
            self._await_disk()

    def _let_go(self, token: str) -> None:
        """After a refused EXEC: the hold is watched no more, and may be ours still."""
        with contextlib.suppress(Exception):
            if self.wire.many([packed("WATCH", self.names.hold), packed("GET", self.names.hold)])[1] == token.encode():
                self._release(token)
            else:
                self.wire.call("UNWATCH")

    def _settle(self, token: str, lost: MemoryOpsError) -> None:
        """The connection was lost with an EXEC under way: find out whether it was carried out. Errors: ``lost``."""
        from redis.exceptions import RedisError

        deadline = time.monotonic() + SETTLE_SECONDS
        mark = token.encode()
        hold, store = self.names.hold, self.names.store
        look = [packed("WATCH", hold), packed("GET", hold), packed("HGET", store, "last")]
        while True:
            try:
                _ok, held, last = self.wire.ask(look)
                if held == mark:  # what is still under way is refused from now on
                    self.wire.many([packed("MULTI"), packed("DEL", hold), packed("EXEC")])
                    last = self.wire.call("HGET", store, "last")
                else:
                    self.wire.call("UNWATCH")
                if last == mark:
                    return
                if held == mark:
                    raise type(lost)(f"{lost.message[:-1]}; nothing was stored.", lost.next_step)
                break
            except (RedisError, StoreUnavailable) as exc:
                if isinstance(exc, MemoryOpsError):
                    raise
                self.wire.drop()
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.1)
        raise StoreUnavailable(
            f"The connection to the server {self.place.where} was lost in the middle of a write; it is not known "
            "whether that was stored.",
            "read again before writing again",
        )

    def _await_replica(self) -> None:
        """Where a replica may take over at any time (on a Cluster, under Sentinel), one is given a second to have what
        was written."""
        may = self.place.nodes.clustered or self.place.sentinels
        with valkey_errors(self.place):
            role = self.wire.many([packed("INFO", "replication")])[0] if may else None
            if isinstance(role, bytes) and re.search(rb"connected_slaves:[1-9]", role):
                self.wire.many([packed("WAIT", "1", "1000")])

    def _await_disk(self) -> None:
        """An operator's decision is on disk before it is reported, where the server has an append-only file."""
        from redis.exceptions import ResponseError

        self._await_replica()
        with valkey_errors(self.place):
            try:
                local = self.wire.call("WAITAOF", "1", "0", "4000")[0]
            except ResponseError:  # no append-only file, no such command, or no right to it: what is saved counts
                return
        if local < 1:
            raise StoreUnavailable(
                f"The server {self.place.where} did not put the last step on its disk within 4 seconds.",
                "look at its disk (df, iostat), then run the same command again",
            )

    # --- operators ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _operating(self, claim: Claim, *, force_after: float | None = None) -> t.Iterator[Transaction]:
        """A transaction of an operator: checks the token."""
        transaction = self._transaction(force_after=force_after)
        with transaction as tx:  # pylint: disable=contextmanager-generator-missing-cleanup
            self._check(self._incident(tx.read, claim.namespace, claim.incident), claim)
            yield tx

    def _incident(
        self, read: t.Callable[..., t.Any], namespace: str, incident: str
    ) -> dict[str, t.Any] | None:
        raw = read("HGET", self.names.incidents, incident_field(namespace, incident))
        return None if raw is None else incident_row(raw)

    def _check(self, row: t.Mapping[str, t.Any] | None, claim: Claim) -> None:
        check_claim(claim, None if row is None else (row["attempt"], row["token"], row["state"]))

    def _ask(self, *args: t.Any) -> t.Any:
        """One command that only reads."""
        with valkey_errors(self.place):
            return self.wire.ask([packed(*args)])[0]

    def _space(self, name: str) -> dict[str, t.Any]:
        """The control row of a namespace as it is now. Errors: NamespaceUnknown, NamespaceDamaged."""
        raw = self._ask("HGET", self.names.namespaces, name)
        if raw is None:
            refuse_lost(self._ask, self.names, name)
        return space_of(raw, name, self.place.where)

    # --- what all parts need ------------------------------------------------------------------------------------
    def _namespace(self, tx: Transaction, name: str) -> dict[str, t.Any]:
        """Errors: NamespaceUnknown, NamespaceDamaged."""
        space = tx.space(name)
        return space_of(None, name, self.place.where) if space is None else space

    def _make_namespace(self, tx: Transaction, name: str, state: str, ttl: float | None) -> dict[str, t.Any]:
        space = fresh_space(state, ttl, self._make_generation(tx, name))
        tx.save(name, space, moved=True)
        return space

    def _make_generation(self, tx: Transaction, name: str) -> int:
        number = tx.numbers["generation"] = tx.numbers["generation"] + 1
        tx.add("ZADD", self.names.records(name, number), 0, THERE)
        return number

    def _live(self, tx: Transaction, name: str, generation: int, keys: t.Sequence[str]) -> dict[str, bytes]:
        """Key → member of the keys that there are."""
        return live_members(
            tx.read_all, self.names.records(name, generation), keys, (tx.space(name) or {}).get("largest", 0)
        )

    def _put_rows(
        self, tx: Transaction, name: str, generation: int, rows: t.Sequence[Row], there: t.Container[str] | None = None
    ) -> None:
        """Insert or replace. ``there``: the keys that may have a member now (None: any)."""
        latest: dict[str, Row] = {row[0]: row for row in rows}
        keep_former(tx, self.names, name, generation, latest)  # all with one look
        self._take_away(tx, name, generation, [k for k in latest if there is None or k in there])
        rows = list(latest.values())
        self._add_members(tx, name, generation, rows, self.envelopes.members(rows))

    def _add_members(
        self, tx: Transaction, name: str, generation: int, rows: t.Sequence[Row], members: t.Sequence[bytes]
    ) -> None:
        """Members of rows whose keys have none."""
        keep_former(tx, self.names, name, generation, (row[0] for row in rows))
        self._add_ready(tx, name, generation, made_ready(self.names.records(name, generation), rows, members))

    def _add_ready(self, tx: Transaction, name: str, generation: int, ready: Ready) -> None:
        space = self._namespace(tx, name)
        tx.add_packed(ready.commands)
        if ready.largest > space["largest"]:
            space["largest"] = ready.largest
            tx.save(name)
        if ready.ends:
            tx.add("ZADD", self.names.expiry(name, generation), *ready.ends)
            if not space["expiring"]:
                space["expiring"] = True
                tx.save(name)

    def _take_away(self, tx: Transaction, name: str, generation: int, keys: t.Sequence[str]) -> None:
        records = self.names.records(name, generation)
        keep_former(tx, self.names, name, generation, keys)
        tx.add_packed(packed("ZREMRANGEBYLEX", records, *one_key(key)) for key in keys)
        if keys and self._namespace(tx, name)["expiring"]:
            tx.add("ZREM", self.names.expiry(name, generation), *map(key_bytes, keys))

    def _set_aside(
        self, tx: Transaction, name: str, incident: str, members: t.Iterable[tuple[bytes, str]]
    ) -> None:
        """Keep these (member, reason) beside."""
        at, stream = self.clock(), self.names.aside(name)
        for member, reason in members:
            tx.add("XADD", stream, "*", "e", self.envelopes.other((incident, reason, at, member)))

    def _keep_up(self, tx: Transaction, epoch: int, sequence: int, at: int) -> None:
        """The store's counters never fall behind what it holds, so that its next write is the newest."""
        n = tx.numbers
        n["newest"] = max(n["newest"], at)
        if (n["epoch"], n["sequence"]) < (epoch, sequence):
            n["epoch"], n["sequence"] = epoch, max(n["sequence"], sequence)

    def _keep_up_with(self, tx: Transaction, rows: t.Sequence[Row]) -> None:
        if rows:
            epoch, sequence = max((row[1], row[2]) for row in rows)
            self._keep_up(tx, epoch, sequence, max(row[4] for row in rows))


def live_members(
    ask: t.Callable[[t.Sequence[bytes]], list[t.Any]], records: str, keys: t.Sequence[str], largest: int
) -> dict[str, bytes]:
    """Key → member. Text that no key can be (surrogates from a damaged log) has none."""
    found: dict[str, bytes] = {}
    many = max(1, min(500, AT_ONCE // max(largest, 1)))
    for start in range(0, len(keys), many):
        wanted, commands = [], []
        for key in keys[start : start + many]:
            with contextlib.suppress(UnicodeEncodeError, AttributeError):
                commands.append(packed("ZRANGE", records, *one_key(key), "BYLEX", "LIMIT", "0", "1"))
                wanted.append(key)
        if wanted:
            found.update((key, members[0]) for key, members in zip(wanted, ask(commands)) if members)
    return found
