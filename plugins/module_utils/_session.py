# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands behind ``Memory``: its connections, its locks between threads, its log of reads, and what a fork does.

PRIVATE to the collection.
"""
from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import socket
import sys
import threading
import time
import typing as t
import weakref

from ._connections import Connections
from ._errors import (
    InvalidInput,
    KeyUnavailable,
    MemoryOpsError,
    NamespaceLocked,
    NamespaceQuarantined,
    StoreDamaged,
    StoreMissing,
    StoreMoved,
    StoreUnavailable,
)
from ._keyring import Keyring
from ._read_log import ReadLog
from ._steady_time import since_start
from ._store import Store, open_store
from ._store_address import FOLDER, location

LOG = logging.getLogger("memops.agent_memory")
T = t.TypeVar("T")
SWEEP_SECONDS = 60.0
DAY = 86400.0
CLOCK_SLACK = 600  # seconds that a clock may be set ahead by
MOVING_SECONDS = 30.0  # that a store may take to a new server before the caller is told


class Session:
    """Safe for threads. ``reading`` and ``writing`` hand an open store to a function, under a lock."""

    def __init__(
        self,
        store: t.Mapping[str, t.Any] | None,
        keyring: t.Mapping[str, t.Any],
        route: str | None,
        actor: str | None,
        buffer: ReadLog,
        create: bool,
        clock: t.Callable[[], int] | None,
    ) -> None:
        self.clock = clock or wall_clock
        self._given_actor = actor
        self.actor = actor or _default_actor()
        self.closed = False
        self.buffer = buffer
        self._reads = Connections(store, route, clock)
        self._writes = Connections(store, route, clock)  # apart, so that a read never waits for a write lock
        self._turn = threading.Condition(self._writes.lock)
        self._held: dict[str, _Held] = {}
        self._swept: dict[str, float] = {}  # when expired records were last taken away, by the monotonic clock
        running = since_start()
        self._started = None if running is None else (self.clock(), running)
        self._ahead: float | None = None  # since when the clock is ahead of what it was when this began
        self.keyring = self._begin(keyring, create)
        _LIVE.add(self)

    def _begin(self, keyring: t.Mapping[str, t.Any], create: bool) -> Keyring:
        """Make store and keyring when both are new: records that exist never get a new keyring, and records that are
        gone no new store."""
        params = self._reads.params(None)
        try:
            try:
                store = self._reads.at(params)
            except StoreMissing:
                if not create:
                    raise
                self._make(params, keyring)
                store = self._reads.at(params)
            if not create or os.path.exists(keyring["path"]):
                return Keyring.open(keyring)
            with store.reader() as reader:
                used = any(next(iter(reader.scan(one.name, batch=1)), []) for one in reader.namespaces())
            return Keyring.open(keyring, create=not used)
        except (StoreUnavailable, StoreDamaged):
            if self._reads.alone():
                raise
        return Keyring.open(keyring)  # other namespaces are served elsewhere; this store's get the error when used

    def _make(self, params: t.Mapping[str, t.Any], keyring: t.Mapping[str, t.Any]) -> None:
        """Errors: StoreMissing where something says that the store was there before. Whoever follows a route brings its
        keyring into being together with its first store; several stores without one may share a keyring."""
        path = os.path.expanduser(str(params["path"])) if params.get("path") else None
        noted = path is not None and os.path.isdir(path + FOLDER)
        if not noted and not (self._reads.routed and os.path.exists(keyring["path"])):
            open_store(params, create=True).close()
            return
        with contextlib.suppress(StoreMissing):  # another program may have made both just now
            self._reads.at(params)
            return
        why = f"{path}{FOLDER} holds what operators noted about it" if noted else f"its keyring {keyring['path']} is"
        raise StoreMissing(
            f"The memory store {path or location(params)[1]} is lost: it is not there, and {why}.",
            "bring it back: ansible-playbook memops.agent_memory.restore -e memory_create=true; where there never was "
            f"one, {f'take {path}{FOLDER} away' if noted else 'make it by Memory(store=…)'}",
        )

    # --- stores -------------------------------------------------------------------------------------------------
    def reading(self, namespace: str, work: t.Callable[[Store], T]) -> T:
        with self._reads.lock:
            return self._following(self._reads, namespace, work)

    def writing(self, namespace: str, work: t.Callable[[Store], T]) -> T:
        with self._writes.lock:
            self._await_turn(namespace, 30.0)
            held = self._held.get(namespace)
            if held is None:
                result = self._following(self._writes, namespace, work)
            else:
                result = self._under_lock(held, namespace, work)
            self._sweep_if_due(namespace)
        self.flush_if_due()
        return result

    def _sweep_if_due(self, namespace: str) -> None:
        """Now and then a write takes some expired records away; that never makes the write fail."""
        now = time.monotonic()
        if now - self._swept.setdefault(namespace, now) >= SWEEP_SECONDS:
            self._swept[namespace] = now
            with contextlib.suppress(MemoryOpsError):
                until = self._surely()
                self._following(self._writes, namespace, lambda store: store.sweep(namespace, until))

    def _surely(self) -> int:
        """The time up to which what expired may go for good: a clock that was set ahead counts a day later, so that
        what only looks expired, and is a miss meanwhile, is there again when the clock was corrected."""
        now, running = self.clock(), since_start()
        if self._started is None or running is None:
            return now
        steady = self._started[0] + int((running - self._started[1]) * 1e6)
        if now <= steady + CLOCK_SLACK * 1_000_000:
            self._ahead = None
            return now
        self._ahead = running if self._ahead is None else self._ahead
        if running - self._ahead >= DAY:
            self._started, self._ahead = (now, running), None
            return now
        return steady

    def params(self, namespace: str | None) -> dict[str, t.Any]:
        """The store parameters that serve the namespace now (None: the default store's)."""
        self._check_open()
        with self._reads.lock:
            return self._reads.params(namespace)

    def _following(self, side: Connections, namespace: str, work: t.Callable[[Store], T]) -> T:
        """Work on the store that serves the namespace; once more when the route moved it under the work's feet."""
        self._check_open()
        params = side.params(namespace)
        until = time.monotonic() + MOVING_SECONDS
        while True:
            try:
                return work(side.at(params))
            except (NamespaceQuarantined, StoreUnavailable, StoreDamaged) as exc:
                moved = side.moved(namespace, params)
                if moved is None and not (isinstance(exc, StoreMoved) and time.monotonic() < until):
                    raise
            if moved is not None:
                return work(side.at(moved))
            time.sleep(0.05)

    def _check_open(self) -> None:
        if self.closed:
            raise InvalidInput("This Memory is closed.", "open a new one")

    # --- the write lock over several calls ----------------------------------------------------------------------
    @contextlib.contextmanager
    def lock(self, namespace: str, wait: float, lease: float) -> t.Iterator[int]:
        with self._writes.lock:
            self._await_turn(namespace, wait)
            held = self._held.get(namespace)
            if held is None:
                number = self.writing(namespace, lambda store: store.lock(namespace, self.actor, wait, lease))
                held = self._held[namespace] = _Held(number, self._writes.params(namespace))
            held.depth += 1
        try:
            yield held.number
        finally:
            with self._writes.lock:
                held.depth -= 1
                if not held.depth and self._held.get(namespace) is held:
                    self._give_back(namespace, held)

    def _under_lock(self, held: _Held, namespace: str, work: t.Callable[[Store], T]) -> T:
        """A write that relies on lock(): never to another store, and none after the lock was lost."""
        self._check_open()
        if held.lost or self._writes.params(namespace) != held.params:
            raise NamespaceLocked(
                f"The write lock {held.number} of namespace {namespace!r:.80} is lost: its lease ran out, or the "
                "namespace moved to another store.",
                "leave the lock, take it again, and read again before writing",
            )
        try:
            return work(self._writes.at(held.params))
        except NamespaceLocked:
            held.lost = True
            raise

    def _give_back(self, namespace: str, held: _Held) -> None:
        del self._held[namespace]
        self._turn.notify_all()
        try:
            self._writes.at(held.params).unlock(namespace, held.number)
        except MemoryOpsError as exc:  # the lease ends it; the caller's own error matters more
            LOG.warning("write lock of namespace %r not given back: %s", namespace, exc.message)

    def _await_turn(self, namespace: str, wait: float) -> None:
        """Threads of this program respect each other's lock(); the store cannot tell them apart."""
        me = threading.get_ident()

        def mine() -> bool:
            held = self._held.get(namespace)
            return held is None or held.thread == me

        if not self._turn.wait_for(mine, wait):
            raise NamespaceLocked(
                f"Another thread of this program has held the write lock of {namespace!r:.80} for over {wait:g} s.",
                "try again",
            )

    # --- the log of reads ---------------------------------------------------------------------------------------
    def log_read(self, at: int, namespace: str, operation: str, key: str | None, digest: bytes | None = None) -> None:
        """Note a read; it reaches the access log of the store that serves the namespace with a later flush."""
        entry = (0, at, namespace, operation, key, None, None, digest, None, self.actor, None, b"")
        with contextlib.suppress(MemoryOpsError), self._reads.lock:
            self.buffer.add(self._reads.params(namespace), entry)

    def log_damage(self, namespace: str, key: str, exc: MemoryOpsError) -> None:
        """What diagnose and monitor look for; the content and the key itself stay out of the program's own log."""
        what = "decryption failed" if isinstance(exc, KeyUnavailable) else "memory corrupt"
        raw = key.encode("utf-8", "surrogateescape")  # a damaged key may be no text
        digest = hashlib.sha256(raw).hexdigest()[:16]
        LOG.error("%s: namespace %r key sha256:%s: %s", what, namespace, digest, exc.message)
        self.log_read(self.clock(), namespace, "corrupt", raw.decode("utf-8", "replace"))

    def flush(self) -> int:
        if self.closed:
            return 0
        with self._writes.lock:
            return self.buffer.flush(lambda params, entries: self._writes.at(params).append_log(entries))

    def flush_if_due(self) -> None:
        if self.buffer.due() and self._writes.lock.acquire(blocking=False):  # a reader waits for no writer
            try:
                self.flush()
            finally:
                self._writes.lock.release()

    # --- life ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        with self._writes.lock:
            if self.closed:
                return
            self.flush()
            self.buffer.give_up()
            for namespace, held in list(self._held.items()):
                self._give_back(namespace, held)
            self.closed = True
            self._writes.close()
        with self._reads.lock:
            self._reads.close()
        _LIVE.discard(self)

    def after_fork(self) -> None:
        """In the child: connections, locks and buffered entries are the parent's."""
        self._reads.after_fork()
        self._writes.after_fork()
        self._turn = threading.Condition(self._writes.lock)
        self._held = {}
        self.buffer.after_fork()
        self.actor = self._given_actor or _default_actor()


class _Held:
    """A write lock that a thread of this program holds."""

    def __init__(self, number: int, params: dict[str, t.Any]) -> None:
        self.number, self.params = number, params
        self.thread, self.depth = threading.get_ident(), 0
        self.lost = False


def wall_clock() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def _default_actor() -> str:
    program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    return f"{socket.gethostname()}:{os.getpid()}:{program}"


_LIVE: weakref.WeakSet[Session] = weakref.WeakSet()


def _flush_all() -> None:
    for session in list(_LIVE):
        session.flush()


def _fork_all() -> None:
    for session in list(_LIVE):
        session.after_fork()


atexit.register(_flush_all)
os.register_at_fork(after_in_child=_fork_all)
