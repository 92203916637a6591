# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a memory store can do, whatever its engine and layout: the one interface that operations know.

PRIVATE to the collection. Rows are tuples in the order of _model.Record, log rows in the order of _model.LogEntry.
Everything here works on batches; an implementation never goes record by record where its engine has a bulk path.
"""
from __future__ import annotations

import os
import typing as t

from ._errors import CapabilityMissing, InvalidInput
from ._model import AsideRows, Change, Claim, IncidentState, LastWrite, LogEntry, NamespaceState, Row, StoreIdentity
from ._store_address import check_scheme

ENGINES: t.Final = ("sqlite", "postgresql", "valkey", "jsonl", "python")
Checked = t.Callable[[t.Sequence[LogEntry], t.Sequence[bool]], None]


class Reader(t.Protocol):
    """Everything seen through one reader is from one point in time, or ``moved`` says that it is not.

    Close it soon: it may hold back clean-up.
    """

    identity: StoreIdentity  # at that point
    at: int  # the wall clock of that point, for display

    def namespaces(self) -> list[NamespaceState]: ...

    def namespace(self, name: str) -> NamespaceState:
        """Errors: NamespaceUnknown, NamespaceDamaged."""

    def count(self, namespace: str, generation: int | None = None) -> int:
        """Rows of a generation (default: the active one), tombstones included."""

    def scan(
        self,
        namespace: str,
        *,
        after: str | None = None,
        until: str | None = None,
        generation: int | None = None,
        batch: int = 2000,
        descending: bool = False,
    ) -> t.Iterator[list[Row]]:
        """Rows with after < key <= until in key order (UTF-8 byte order), tombstones included.

        A batch holds at most ``batch`` rows and is cut earlier when its payloads pass some 8 MiB.
        Errors: StoreDamaged, in the middle too, when a page cannot be read.
        """

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]: ...

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        """At most parts-1 ascending keys that cut the active generation into ranges of about equal row counts."""

    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        """Entries with id > after_id, oldest first; with ``operations`` only those."""

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        """Per key the newest logged write or delete, in key order."""

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        """{"entries": n, "corrupt": n, "missing": n, "first_sequence": n, "last_sequence": n, "intact": bool,
        "pruned": (epoch, sequence)}.

        ``missing`` counts sequences that this store gave out, did not prune and has no entry for. Of writes up to
        ``pruned`` entries may be gone in good order: they were pruned, or another store gave them out. ``each`` is
        given every batch of the log, of all namespaces, as it is read: the entries, and of each whether its checksum
        holds.
        """

    def structure(self) -> list[str]:
        """What the engine itself finds wrong with its tables, indexes and fence, at most 100 lines."""

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        """Rows that were set aside: (incident, reason, row)."""

    def moved(self, namespace: str) -> bool:
        """Whether the namespace was changed since this reader was opened while the reader could see it.

        Always False where an engine reads one point in time.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Reader: ...

    def __exit__(self, *exc: object) -> None: ...


class Write(t.Protocol):
    """An application's write in progress; the store is held until the context ends, which commits (or rolls back)."""

    epoch: int
    first_sequence: int  # the caller may use first_sequence … first_sequence + count - 1
    lock: int
    at: int  # the time to use for created and updated; never before the newest record's
    ttl: float | None

    def current(self, keys: t.Sequence[str]) -> dict[str, Row]:
        """The live rows of these keys, tombstones included."""

    def put(
        self, rows: t.Sequence[Row], entries: t.Sequence[tuple[t.Any, ...]], aside: str | None = None
    ) -> None:
        """Insert or replace rows and append their log entries (LogEntry order; id and checksum are filled in here).

        With ``aside`` (a soft delete) the former live rows are set aside under that reason and the incident "";
        ``prune_log`` drops those up to its ``writes_through``, so that they do not outlive their use.
        """


class Store(t.Protocol):
    """One open store. Not safe for threads at the same time (a caller may pass it from thread to thread under a lock
    of its own); never used across a fork."""

    def capabilities(self) -> frozenset[str]: ...

    def identity(self) -> StoreIdentity: ...

    def reader(self, point: str | None = None) -> Reader: ...

    def point(self) -> t.ContextManager[str]:
        """While open, readers given its value, in any process, see the same state. Keep it shorter than a second."""

    # --- applications -------------------------------------------------------------------------------------------
    def writing(self, namespace: str, count: int, wait: float = 30.0) -> t.ContextManager[Write]:
        """Reserve ``count`` sequences under the namespace's write lock; creates the namespace when it is new.

        Errors: NamespaceQuarantined (also standby), NamespaceReadOnly (reading), NamespaceLocked, StoreUnavailable
        (disk full, read-only, busy).
        """

    def lock(self, namespace: str, actor: str, wait: float, lease: float) -> int:
        """Take the write lock for longer than one write; the number goes into the log. ``writing`` by others waits."""

    def unlock(self, namespace: str, number: int) -> None: ...

    def append_log(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        """Append entries that belong to no write (buffered reads). Works in a quarantine too."""

    def set_ttl(self, namespace: str, ttl: float | None) -> bool:
        """The lifetime of records written from now on; whether it changed."""

    def sweep(self, namespace: str, now: int, limit: int = 500) -> int:
        """Remove records that expired before ``now`` (µs); how many. They leave no tombstone, but a log entry each,
        so that their absence is explained. Damaged records stay. None while quarantined or locked."""

    def drop_tombstones(self, namespace: str, rows: t.Sequence[Row]) -> int:
        """Take these tombstones out of the active generation, in one transaction, each only if it lies there as it was
        read; how many went. Give some thousand at once at most.

        Errors: as of ``writing``: applications could put a record in their place too.
        """

    # --- incidents ----------------------------------------------------------------------------------------------
    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        """Newest first."""

    def claim(
        self,
        namespace: str,
        attempt: str,
        owner: str,
        *,
        incident: str | None = None,
        new_incident: str,
        takeover: str | None = None,
        lease: float = 60.0,
    ) -> Claim:
        """Open or resume the namespace's incident for this attempt and raise the token.

        ``incident`` None means the open one, else ``new_incident``. The same attempt gets its own claim again.
        ``takeover`` names a dead attempt whose lease need not be waited for.
        Errors: NamespaceUnknown, LeaseHeld (who, since when, until when), CannotProceed (another incident is open).
        """

    def renew(self, claim: Claim, lease: float = 60.0) -> None:
        """Errors: StaleAttempt, here and in every method below that takes a claim."""

    def incident(self, claim: Claim) -> IncidentState: ...

    def note(self, claim: Claim, **facts: t.Any) -> None:
        """Merge into the incident's facts; a value None removes the fact."""

    def end_lease(self, claim: Claim) -> None:
        """Give the lease back at the orderly end of a run; the incident stays open."""

    def close_incident(self, claim: Claim) -> None: ...

    def drop_aside(self, which: AsideRows, check: bool = False) -> int:
        """Drop these rows in small transactions; how many (``check``: would go). Needs no claim, as nobody works in an
        incident that is not open. Errors: CannotProceed when one is open."""

    def keep_facts(self, namespace: str, incident: str, facts: t.Mapping[str, t.Any] | None) -> None:
        """These become the facts of a closed incident; None: nobody needs to know of it any more.
        Errors: CannotProceed when it is open."""

    # --- operators ----------------------------------------------------------------------------------------------
    def fence(self, claim: Claim) -> bool:
        """Quarantine: serving TTL 1 s, no application reads or writes; keeps the former policy; whether it changed."""

    def unfence(self, claim: Claim) -> bool:
        """Bring back exactly the former policy and state; whether it changed."""

    def set_state(self, claim: Claim, state: str) -> bool:
        """serving, reading (applications read, and write nothing) or standby, without a quarantine (failover,
        failback); whether it changed."""

    def prove(self, namespace: str) -> dict[str, t.Any]:
        """Try, as a raw client, to insert, update and delete, and as Memory to read; all rolled back.

        {"writes_refused": bool, "reads_refused": bool, "reads_accepted": bool, "detail": […],
        "not_fenced": ["raw readers …"]}. Both of reads may be false: Memory refuses what a raw client gets.
        """

    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        """Apply compare-and-sets in one transaction; the keys that were refused (live row differs and is not
        already the wanted one). Rows with deleted set that are new need a sequence from ``reserve``."""

    def reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        """Key rotation: give rows of the active generation a new (key_id, payload, checksum) where ``key`` still
        has the ``expected`` checksum, in one transaction; the keys that were refused. Rows are (key_id, payload,
        checksum, key, expected), all with the same key id, in key order and near each other, as one scan gave them.
        Durable after ``settle`` or any other commit."""

    def settle(self) -> None:
        """Let the engine put away what ``reseal`` and ``load`` left (SQLite: its write-ahead log); in any process."""

    def reserve(self, claim: Claim, count: int) -> tuple[int, int]:
        """(epoch, first of ``count`` sequences) for tombstones that the operator writes."""

    def log_operation(self, claim: Claim, entries: t.Sequence[tuple[t.Any, ...]]) -> None: ...

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool: ...

    def begin_generation(self, claim: Claim) -> int:
        """A new, empty, inactive generation of the claim's namespace."""

    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        """Bulk insert or replace into an inactive generation. Durable after ``settle`` or any other commit."""

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        """Copy up to ``limit`` rows with key > after inside the engine; the last key, None when nothing was left.

        ``excluding`` is the path of a plan file (a SQLite file whatever the engine) whose table ``plan`` has a column
        ``key`` with what to leave out.
        """

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        """Make ``generation`` the active one if ``expected`` is; False when it already is. One atomic write; where the
        records are an application's own keys, many small ones under the fence (see ``finish_switch``)."""

    def finish_switch(self, claim: Claim) -> None:
        """Carry a switch to its end that was killed; does nothing where a switch is one write."""

    def drop_generation(self, claim: Claim, generation: int) -> int:
        """Delete an inactive generation in small transactions; the number of rows."""

    def generations(self, namespace: str) -> list[int]: ...

    def filled_from(self, claim: Claim, snapshot: str, epoch: int, sequence: int, at: int, digest: str) -> None:
        """Note on the namespace which snapshot this copy holds; the store's own counters never fall behind it."""

    def adopt_lineage(self, lineage: str) -> bool:
        """An empty store takes the lineage of the store whose snapshot fills it. Errors: RepositoryRefused."""

    def raise_epoch(self, claim: Claim, above: int) -> int:
        """Promotion: the store's epoch becomes greater than ``above`` and its own; the new one."""

    def import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        """Append another copy's write entries of the namespace that are missing here; how many."""

    def prune_log(self, before_id: int, writes_through: tuple[int, int]) -> int:
        """Drop read entries with id < before_id and write entries up to (epoch, sequence); how many."""

    def repair_structure(self) -> list[str]:
        """Rebuild what the engine can rebuild alone (indexes); what it did."""

    def warnings(self) -> list[str]:
        """What is no damage, but should be known: how much of what was acknowledged a crash may cost."""

    def close(self) -> None: ...


class Wholesale(Store, t.Protocol):
    """A store whose server can have replicas (capability whole-store), so that all of it fails over at once.

    An incident of the whole store has the namespace ``WHOLE``; ``claim`` and all that takes a claim take it. While
    it is held, and as long as ``stand_by`` holds, no other attempt claims a namespace.
    """

    def stand_by(self, claim: Claim) -> list[str]:
        """Every serving namespace stands by from now on, in one transaction that also notes which ones in the fact
        ``stood_by`` of the incident; no new one is made until ``serve_again``. All those noted, in order. What is
        quarantined stays so. Errors: StoreUnavailable when a transaction that has written does not end."""

    def serve_again(self, claim: Claim) -> list[str]:
        """Exactly those noted serve again, in one transaction; the fact becomes ``served_again``. Who changed."""


WHOLE: t.Final = ""


def whole(store: Store) -> Wholesale:
    """Errors: CapabilityMissing."""
    if "whole-store" not in store.capabilities():
        raise CapabilityMissing(
            f"A {store.identity().engine} store cannot fail over as a whole (whole-store).",
            "fail over one namespace: -e memory_failover_scope=namespace",
        )
    return t.cast(Wholesale, store)


def open_store(params: t.Mapping[str, t.Any], *, create: bool = False) -> Store:
    """Open the store that ``params`` (engine, layout, path or url, …) describes.

    Errors: InvalidInput, StoreUnavailable (StoreMissing: none was made there), StoreDamaged. With ``create`` a missing
    store is made (applications, a secondary that is filled for the first time) and one that exists is opened;
    operators never make one by a mistyped path.
    """
    from ._layouts import layout, scratch_layout
    from ._layouts.lines import LinesLayout
    from ._layouts.tables import TablesLayout

    engine = params.get("engine") or "sqlite"
    if engine not in ENGINES:
        raise InvalidInput(f"There is no engine {engine!r:.80}.", f"set memory_store.engine to {' | '.join(ENGINES)}")
    check_scheme(engine, params)
    name = params.get("layout") or "native"
    chosen = scratch_layout(name) if params.get("scratch") else layout(name, params.get("tables"))
    if chosen.engines and engine not in chosen.engines:
        raise InvalidInput(
            f"The engine {engine} cannot run the layout {chosen.name}.",
            f"set memory_store.engine to {' | '.join(chosen.engines)}",
        )
    opened: Store
    if engine == "postgresql" and isinstance(chosen, TablesLayout):
        from ._engines.tables_postgresql import TablesPostgresqlStore

        opened = TablesPostgresqlStore.open(params, chosen, create=create)
    elif engine == "postgresql":
        from ._engines.postgresql import PostgresqlStore

        opened = PostgresqlStore.open(params, chosen, create=create)
    elif engine == "valkey" and chosen.name == "keyspace":
        from ._engines.keyspace import KeyspaceStore

        opened = KeyspaceStore.open(params, chosen, create=create)
    elif engine == "valkey":
        from ._engines.valkey import ValkeyStore

        opened = ValkeyStore.open(params, chosen, create=create)
    elif engine == "python":
        from ._engines.python import PythonStore

        opened = PythonStore.open(params, chosen, create=create)
    elif engine == "sqlite" and isinstance(chosen, TablesLayout):
        from ._engines.tables_sqlite import TablesSqliteStore

        opened = TablesSqliteStore.open(params, chosen, create=create)
    elif isinstance(chosen, LinesLayout):
        from ._engines.jsonl import LinesStore

        opened = LinesStore.open(params, chosen, create=create)
    else:
        from ._engines.sqlite import SqliteStore

        opened = SqliteStore.open(params, chosen, create=create)
    return opened


def scratch_params(folder: str, name: str = "scratch", layout: str = "native") -> dict[str, t.Any]:
    """Parameters of a store for a rehearsal: an embedded one, whatever engine the snapshot is from, as rows are logical
    and all engines hold the same. ``layout``: the snapshot's; what it cannot do, the scratch store cannot either."""
    path = os.path.join(folder, "scratch.db")
    return {"engine": "sqlite", "layout": layout, "path": path, "name": name, "scratch": True}
