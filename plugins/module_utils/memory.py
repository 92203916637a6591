# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""``Memory``: how an agent reads and writes its memories. PUBLIC: applications import this file.

::

    from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory

    with Memory(
        route="/etc/agent-memory/route.json",
        keyring={"path": "/var/lib/agent-memory/keyring.json", "master_key_file": "/etc/agent-memory/master.key"},
    ) as memory:
        memory.write("agent-7", "user/1/name", {"first": "Ada"}, reason="introduced herself")
        memory.read("agent-7", "user/1/name")

Values are ``bytes`` or what JSON can express (tuples come back as lists). Every value is sealed before it leaves the
process, and on every read its checksum and its encryption are verified. During a quarantine reads miss and writes raise
``NamespaceQuarantined``. A failover moves a running program at once: the route file is looked at in every call. From a
secondary that may not take writes, reads go on and writes raise ``NamespaceReadOnly``, a kind of it.

Where the application has OpenTelemetry's API, every operation is a span ``memory_operation`` (docs/observing.md).
"""
from __future__ import annotations

import contextlib
import datetime
import typing as t

from ._access import NOTHING, log_pages, outcome, pages, put, serve
from ._benchmark import RESERVED, Search, evaluate, parse, value_text
from ._codec import RecordCodec, check_key, check_namespace, encode_value
from ._errors import (
    InvalidInput,
    KeyUnavailable,
    MemoryOpsError,
    NamespaceLocked,
    NamespaceQuarantined,
    NamespaceReadOnly,
    NamespaceUnknown,
    RecordCorrupt,
    StoreDamaged,
    StoreUnavailable,
)
from ._inputs import check_reason, check_seconds, moment, rfc3339
from ._model import CHECKSUM, KEY, LogEntry, Row
from ._read_log import ReadLog
from ._session import Session
from ._store import Store, open_store
from ._tracing import trace

__all__ = [
    "InvalidInput",
    "KeyUnavailable",
    "Memory",
    "MemoryOpsError",
    "NamespaceLocked",
    "NamespaceQuarantined",
    "NamespaceReadOnly",
    "NamespaceUnknown",
    "RecordCorrupt",
    "StoreDamaged",
    "StoreUnavailable",
]

CHUNK_ITEMS = 1000  # of write_many: one transaction
CHUNK_BYTES = 16 << 20


class Memory:
    """The memories of one or many namespaces. Safe for threads; after a fork the child opens its own connections.

    ``store``: mapping of store parameters (engine, path, …), or ``route``: absolute path of a route file that names
    them. ``keyring``: mapping of keyring parameters (source, path, master_key_file, …). ``actor`` is what the access
    log calls this program (default "host:pid:program"). Reads are logged in batches of at most ``buffer_size`` entries
    that are at most ``buffer_seconds`` old when the next call comes; ``flush``, ``close`` and the end of the program
    write the rest. ``create`` makes a store and a keyring that do not exist yet, but none in place of a store that is
    lost: with a ``route`` it makes both or neither. ``clock`` returns µs since 1970 UTC.

    Errors are MemoryOpsError: one sentence and the next step. Every method may raise StoreUnavailable, StoreDamaged
    and InvalidInput.
    """

    def __init__(
        self,
        store: t.Mapping[str, t.Any] | None = None,
        keyring: t.Mapping[str, t.Any] | None = None,
        route: str | None = None,
        actor: str | None = None,
        buffer_seconds: float = 1.0,
        buffer_size: int = 500,
        *,
        create: bool = True,
        clock: t.Callable[[], int] | None = None,
    ) -> None:
        if (store is None) == (route is None):
            raise InvalidInput("Memory needs either a store or a route.", "pass store={…} or route='/…/route.json'")
        if keyring is None or not isinstance(keyring, t.Mapping) or not keyring.get("path"):
            raise InvalidInput("Memory needs a keyring with a path.", "pass keyring={'path': …, 'master_key_file': …}")
        if actor is not None and (not isinstance(actor, str) or not actor):
            raise InvalidInput("actor must be a non-empty text.", "leave it out for host:pid:program")
        buffer = ReadLog(buffer_seconds, buffer_size)
        self._session = Session(store, keyring, route, actor, buffer, create, clock)
        self._keyring = self._session.keyring
        self._clock = self._session.clock
        place = store or {}
        trace(self, place.get("engine") or ("sqlite" if store else None), place.get("name"))

    # --- writing ------------------------------------------------------------------------------------------------
    def write(
        self, namespace: str, key: str, data: t.Any, reason: str | None = None, ttl: float | None = None
    ) -> int:
        """Store ``data`` under ``key``, under the namespace's write lock; the sequence that the write took.

        The namespace is made when it is new. ``ttl``: seconds that the record lives, default the namespace's ttl.
        Errors: NamespaceQuarantined, NamespaceLocked, KeyUnavailable.
        """
        check_namespace(namespace)
        check_reason(reason)
        ttl = None if ttl is None else check_seconds("ttl", ttl)
        return put(self._session, namespace, [(_key(key), encode_value(data))], reason, ttl)

    def write_many(
        self,
        namespace: str,
        items: t.Mapping[str, t.Any] | t.Iterable[tuple[str, t.Any]],
        reason: str | None = None,
        ttl: float | None = None,
    ) -> int:
        """Store many (key, data) pairs, some CHUNK_ITEMS per transaction; how many keys were written.

        A transaction is all or nothing, the whole is not: after an error the first chunks are stored. Of a key that
        comes twice the last value counts. Errors: as write.
        """
        check_namespace(namespace)
        check_reason(reason)
        ttl = None if ttl is None else check_seconds("ttl", ttl)
        pairs = items.items() if isinstance(items, t.Mapping) else items
        chunk: dict[str, bytes] = {}
        size = written = 0
        for key, data in pairs:
            body = encode_value(data)
            size += len(body) - len(chunk.pop(_key(key), b""))
            chunk[key] = body
            if len(chunk) >= CHUNK_ITEMS or size >= CHUNK_BYTES:
                put(self._session, namespace, list(chunk.items()), reason, ttl)
                written, size, chunk = written + len(chunk), 0, {}
        if chunk:
            put(self._session, namespace, list(chunk.items()), reason, ttl)
        return written + len(chunk)

    def delete(self, namespace: str, key: str, soft: bool = True, reason: str | None = None) -> bool:
        """Delete a record; whether there was one. Errors: as write.

        Both kinds leave a tombstone (sequence, time, no content), so that no rebuild brings the record back. A soft
        delete also keeps the former record, still sealed, beside the live ones until the log is pruned, where an
        operator can restore it; after a hard one only snapshots have it.
        """
        check_namespace(namespace)
        check_reason(reason)
        _key(key)

        def probe(store: Store) -> bool:
            with store.reader() as reader:
                try:
                    state = reader.namespace(namespace)
                except NamespaceUnknown:
                    return False
                if state.state != "serving":
                    return True  # the write below meets the fence and says so
                row = reader.get_many(namespace, [key]).get(key)
            return row is not None and outcome(row, self._clock(), state.serving_ttl) == "hit"

        if not self._session.reading(namespace, probe):
            return False
        aside = (reason or "soft delete") if soft else None
        put(self._session, namespace, [(key, b"")], reason, None, operation="delete", aside=aside)
        return True

    # --- reading ------------------------------------------------------------------------------------------------
    def read(self, namespace: str, key: str, default: t.Any = None) -> t.Any:
        """The value, or ``default`` when there is none to serve: absent, deleted, expired, or in quarantine.

        Errors: RecordCorrupt (checksum or encryption does not hold), KeyUnavailable (its record key is missing).
        """
        return self.read_many(namespace, [key]).get(key, default)

    def read_many(self, namespace: str, keys: t.Iterable[str], skip_damaged: bool = False) -> dict[str, t.Any]:
        """Key → value of those keys that there are, from one point in time.

        A damaged record raises as in ``read``, after the others were checked and logged;
        ``skip_damaged`` leaves it out.
        """
        check_namespace(namespace)
        wanted = list(dict.fromkeys(_key(key) for key in keys))

        def fetch(store: Store) -> tuple[str, float | None, dict[str, Row]]:
            with store.reader() as reader:
                try:
                    state = reader.namespace(namespace)
                except NamespaceUnknown:
                    return "unknown", None, {}
                if state.state == "quarantined":
                    return state.state, None, {}
                return state.state, state.serving_ttl, reader.get_many(namespace, wanted)

        try:
            state, serving_ttl, rows = self._session.reading(namespace, fetch)
        except StoreDamaged as exc:
            for key in wanted:
                self._session.log_damage(namespace, key, exc)
            raise
        values: dict[str, t.Any] = {}
        trouble: MemoryOpsError | None = None
        codec, now = RecordCodec(namespace), self._clock()
        for key in wanted:
            row = rows.get(key)
            if state == "quarantined":
                self._session.log_read(now, namespace, "refused", key)
            elif row is None:
                self._session.log_read(now, namespace, "miss", key)
            else:
                try:
                    value = serve(self._session, codec, namespace, row, now, serving_ttl)
                except (RecordCorrupt, KeyUnavailable) as exc:
                    trouble = trouble or exc
                else:
                    if value is not NOTHING:
                        values[key] = value
        self._session.flush_if_due()
        if trouble is not None and not skip_damaged:
            raise trouble
        return values

    def list_keys(self, namespace: str, prefix: str | None = None) -> t.Iterator[str]:
        """The keys that there are, in the order of their UTF-8 bytes; none in quarantine.

        Read page by page: keys written meanwhile may or may not come. Nothing is opened, so damaged records are listed.
        """
        check_namespace(namespace)
        if prefix:
            check_key(prefix)
        for page, now, serving_ttl in pages(self._session, namespace, prefix or None):
            for row in page:
                if not row[KEY].startswith(RESERVED) and outcome(row, now, serving_ttl) == "hit":
                    yield row[KEY]

    def search(self, namespace: str, query: str, limit: int = 10) -> list[tuple[str, float, t.Any]]:
        """The best ``limit`` records for the words of ``query``: (key, score, value), best first.

        Lexical and linear: every record is opened. Damaged ones are logged and left out.
        """
        check_namespace(namespace)
        if not isinstance(query, str) or not query.strip():
            raise InvalidInput("A search needs a text with a word in it.", "pass a query")
        if not isinstance(limit, int) or limit < 1:
            raise InvalidInput("limit must be a number from 1.", "correct limit")
        search, codec = Search([query], limit), RecordCodec(namespace)
        for page, now, serving_ttl in pages(self._session, namespace, None):
            for row in page:
                if row[KEY].startswith(RESERVED) or outcome(row, now, serving_ttl) != "hit":
                    continue
                with contextlib.suppress(RecordCorrupt, KeyUnavailable):
                    value = serve(self._session, codec, namespace, row, now, serving_ttl, log_hit=False)
                    if value is not NOTHING:
                        search.add(row[KEY], value_text(value), _keeper(value, row[CHECKSUM]))
        found = search.results(0)
        for key, _score, (_value, digest) in found:
            self._session.log_read(self._clock(), namespace, "hit", key, digest)
        self._session.flush_if_due()
        return [(key, score, value) for key, score, (value, _digest) in found]

    def get_access_logs(
        self, namespace: str, since: str | float | datetime.datetime | None = None
    ) -> t.Iterator[dict[str, t.Any]]:
        """The access log, oldest first, also in quarantine.

        Dicts of id, at (RFC 3339, UTC), namespace, operation, key, epoch, sequence, digest (hex), lock, actor, reason.
        ``since``: RFC 3339 text, an aware datetime, or seconds since 1970.
        """
        check_namespace(namespace)
        first = moment(since)
        self.flush()
        for page in log_pages(self._session, namespace):
            for entry in map(LogEntry._make, page):
                if entry.at >= first:
                    line = entry._asdict()
                    del line["checksum"]
                    line.update(at=rfc3339(entry.at), digest=entry.digest.hex() if entry.digest is not None else None)
                    yield line

    # --- the namespace --------------------------------------------------------------------------------------------
    def ttl(self, namespace: str) -> float | None:
        """Seconds that new records live; None: for ever (or no such namespace yet)."""
        check_namespace(namespace)

        def ask(store: Store) -> float | None:
            with store.reader() as reader:
                return reader.namespace(namespace).ttl

        try:
            return self._session.reading(namespace, ask)
        except NamespaceUnknown:
            return None

    def set_ttl(self, namespace: str, seconds: float | None) -> bool:
        """The lifetime of records written from now on (None: for ever); whether it changed."""
        check_namespace(namespace)
        ttl = None if seconds is None else check_seconds("ttl", seconds)

        def change(store: Store) -> bool:
            try:
                return store.set_ttl(namespace, ttl)
            except NamespaceUnknown:
                return store.create_namespace(namespace, ttl=ttl)

        return self._session.writing(namespace, change)

    def lock(self, namespace: str, wait: float = 30.0, lease: float = 60.0) -> t.ContextManager[int]:
        """Hold the namespace's write lock over several reads and writes; gives its number, which the log shows.

        Writers in other processes and threads wait. ``wait``: seconds to wait for it; ``lease``: seconds after which
        others may take it from a holder that died or forgot. The same thread may nest it. Errors: NamespaceLocked.
        """
        check_namespace(namespace)
        return self._session.lock(namespace, check_seconds("wait", wait, zero=True), check_seconds("lease", lease))

    def rotate_keys(self, namespace: str | None = None) -> dict[str, t.Any]:
        """Make a new record key and re-encrypt a namespace (None: every namespace of the default store) with it.

        Resumable: call it again after an interruption. Returns what the rotate operation reports.
        """
        from ._operations.rotate import rotate

        if namespace is not None:
            check_namespace(namespace)
        self.flush()
        params = self._session.params(namespace)
        return rotate(store_params=params, keyring=self._keyring, namespace=namespace, force=True)

    def evaluate_benchmark(self, namespace: str, cases: str | t.Iterable[t.Any]) -> dict[str, t.Any]:
        """Ask the questions of a benchmark: path of a JSON Lines file, or mappings with key or query, and expect.

        {"cases": n, "passed": n, "accuracy": float or None without a case, "failed": [{"line": n, "why": text}]}.
        Nothing of it enters the access log. Errors: InvalidInput with the line, NamespaceUnknown, NamespaceQuarantined.
        """
        check_namespace(namespace)
        parsed = parse(cases)

        store = open_store(self._session.params(namespace))  # its own: other threads go on reading
        try:
            with store.reader() as reader:
                state = reader.namespace(namespace)
                if state.state == "quarantined":
                    raise NamespaceQuarantined(
                        f"The namespace {namespace!r:.80} is in quarantine, and applications cannot read it.",
                        "run the validate playbook, which can, or release the namespace",
                    )
                now, ttl = self._clock(), state.serving_ttl
                return evaluate(reader, self._keyring, namespace, parsed, now=now, serving_ttl=ttl)
        finally:
            store.close()

    # --- life -----------------------------------------------------------------------------------------------------
    def flush(self) -> int:
        """Write the buffered read entries; how many. A failure is logged, kept for the next try and never raised."""
        return self._session.flush()

    @property
    def dropped_entries(self) -> int:
        """Read entries that were lost because the store did not take them in time."""
        return self._session.buffer.dropped

    def close(self) -> None:
        """Write what is buffered, give back locks, close. Closing twice is fine."""
        self._session.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Memory {self._session.actor}{' closed' if self._session.closed else ''}>"

    def __reduce__(self) -> t.NoReturn:
        raise TypeError("a Memory is not pickled: open it in the process that uses it")


def _keeper(value: t.Any, digest: bytes) -> t.Callable[[int], tuple[t.Any, bytes]]:
    return lambda _query: (value, digest)


def _key(key: t.Any) -> str:
    if check_key(key).startswith(RESERVED):
        raise InvalidInput("Keys that start with NUL and 'memops/' belong to the collection.", "use another key")
    return t.cast(str, key)
