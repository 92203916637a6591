# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The integrity scan: one parallel pass over a namespace that recomputes every checksum and opens every payload.

PRIVATE to the collection. All workers see one point in time. Nothing is held in memory but a batch per worker, a
damage map of some hundred buckets and some examples; the damaged keys go to a file.
"""

from __future__ import annotations

import os
import sqlite3
import time
import typing as t

from .. import _progress
from .._application_seals import over
from .._errors import KeyUnavailable, StoreDamaged, StoreUnavailable
from .._keyring_unsealed import opener
from .._store import Reader, open_store
from .integrity_rows import Bucket, Range, check_range, halve, shown
from .workers import Parent, Worker, collect

#: what the scan can find
KINDS = ("checksum", "unreadable", "unopenable", "key-missing", "structure", "index", "application-key")
#: what is told and decides no plan: that a key does not open a value says nothing of which of both is the wrong one
TOLD = frozenset(("application-key",))
SMALL = 10_000  # rows that one process reads before a second one would be up


def scan(
    *,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any = None,
    namespace: str,
    generation: int | None = None,
    workers: int = 2,
    buckets: int = 200,
    limit: int = 1000,
    damage_file: str | None = None,
    structure: bool = True,
    application: bool = False,
    progress: t.Callable[[dict[str, t.Any]], None] | None = None,
) -> dict[str, t.Any]:
    """Check every row of a generation (default: the active one) inside one point in time.

    ``keyring`` (a Keyring or its parameters) opens every payload; without it the best verdict is could-not-verify
    with ``intact`` true. ``damage_file`` becomes a SQLite file with ``damage(key TEXT PRIMARY KEY, kind TEXT)``.
    ``structure`` also lets the engine check itself (pages, indexes), the whole store at once. ``application`` also
    tries the application's own keys, where some are given, on what it encrypted: for those who tell of it. Who decides
    by the verdict leaves it out, as a wrong key is no damage.

    Returns {verdict, intact, opened, namespace, generation, at, epoch, sequence, rows, live, tombstones, expired,
    damaged, findings {kind: n}, examples [{kind, key, evidence}], damage_map [{first_key, last_key, rows, damaged}],
    structure [lines of the engine], damage_file, reasons, workers, seconds}. Errors: NamespaceUnknown,
    StoreUnavailable, StoreDamaged (nothing of it can be read), KeyUnavailable (no keyring at all; a missing record
    key is a finding).
    """
    started = time.monotonic()
    ring = None
    with _Summary(limit, damage_file) as summary:
        wanted = 1
        _progress.begin("checking records")
        store = open_store(store_params)
        try:
            ring = as_keyring(over(opener(store, keyring), store_params if application else {}))
            with store.reader() as reader:
                chosen = reader.namespace(namespace).generation if generation is None else generation
                if workers > 1 and _more_than(reader, namespace, chosen, SMALL):
                    wanted = workers
            if wanted == 1:
                with store.reader() as reader:
                    point = (reader.at, reader.identity)
                    job = Range(namespace, chosen, None, None, point[0], buckets)
                    lists = [check_range(reader, job, ring, summary.receive)]
                    if structure:
                        summary.receive("structure", reader.structure())
        finally:
            store.close()  # closed before a fork: SQLite's locks do not survive one
        if wanted > 1:
            point, lists = _parallel(
                store_params, namespace, chosen, wanted, buckets, ring, structure, summary, progress
            )
        return {
            "namespace": namespace,
            "generation": chosen,
            "at": point[0],
            "epoch": point[1].epoch,
            "sequence": point[1].sequence,
            "opened": ring is not None,
            **summary.result(ring is not None),
            "damage_map": _damage_map([bucket for one in lists for bucket in one], buckets),
            "structure": summary.structure,
            "damage_file": damage_file,
            "workers": wanted,
            "seconds": round(time.monotonic() - started, 3),
        }


def as_keyring(keyring: t.Any) -> t.Any:
    """A Keyring from a Keyring or its parameters, its keys unwrapped already (a fork must not share a connection)."""
    if not keyring:
        return None
    if not hasattr(keyring, "cipher"):
        from .._keyring import Keyring

        keyring = Keyring.open(keyring)
    for key_id in keyring.ids():
        try:
            keyring.cipher(key_id)
        except KeyUnavailable:
            pass  # a finding at the records that name it
    return keyring


def _more_than(reader: Reader, namespace: str, generation: int, rows: int) -> bool:
    """Without counting: counting reads the whole table. Damage here is found again by the scan."""
    seen = 0
    try:
        for batch in reader.scan(namespace, generation=generation):
            seen += len(batch)
            if seen > rows:
                return True
    except StoreDamaged:
        pass
    return False


def _parallel(
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    generation: int,
    workers: int,
    buckets: int,
    ring: t.Any,
    structure: bool,
    summary: _Summary,
    progress: t.Callable[[dict[str, t.Any]], None] | None,
) -> tuple[tuple[int, t.Any], list[list[Bucket]]]:
    """Forked readers over key ranges of one point in time."""
    crew = [Worker(_reading, dict(store_params), ring) for _turn in range(workers)]
    store = None
    try:
        store = open_store(store_params)
        with store.point() as point:
            for worker in crew:
                worker.send(point)
            for worker in crew:
                worker.receive()  # its reader is open: the point may be given up
            with store.reader(point) as reader:
                at, identity = reader.at, reader.identity
        with store.reader() as reader:  # the cuts need not be of the same point
            try:
                cuts = reader.boundaries(namespace, workers)
            except StoreDamaged:
                cuts = []  # what cannot be counted can still be scanned around
        edges = [None, *cuts, None]
        jobs = [
            Range(namespace, generation, edges[i], edges[i + 1], at, max(1, buckets // (len(edges) - 1)))
            for i in range(len(edges) - 1)
        ]
        found: dict[str | None, list[Bucket]] = {}
        extra = structure
        waiting = list(reversed(jobs))
        for worker in crew:
            worker.send(waiting.pop() if waiting else None)
        rows = 0
        for worker, kind, value in collect(crew):
            if kind == "range":
                found[value[0]] = value[1]
                rows += sum(bucket[2] for bucket in value[1])
                if progress:
                    progress({"phase": "scan", "done": rows, "ranges": len(found), "of": len(jobs)})
                if waiting:
                    worker.send(waiting.pop())
                elif extra:  # whoever is free first looks at the engine's own structure
                    extra = False
                    worker.send("structure")
                else:
                    worker.send(None)
            elif kind != "done":
                summary.receive(kind, value)
        return (at, identity), [found[job.after] for job in jobs]
    finally:
        for worker in crew:
            worker.stop()
        if store is not None:
            store.close()


def _reading(parent: Parent, store_params: dict[str, t.Any], ring: t.Any) -> None:
    """A worker: opens a reader of the given point, then checks ranges until there are none."""
    point = parent.receive()
    with open_store(store_params).reader(point) as reader:
        parent.send("ready", None)

        def send(kind: str, value: t.Any) -> None:
            parent.check()
            parent.send(kind, value)

        for job in iter(parent.receive, None):
            if job == "structure":
                send("structure", reader.structure())
                parent.send("range", (job, []))
            else:
                parent.send("range", (job.after, check_range(reader, job, ring, send)))
    parent.send("done", None)


# --- putting it together ----------------------------------------------------------------------------------------
class _Summary:
    """Takes what the workers send: counts, examples up to the limit, and damaged keys into the file."""

    def __init__(self, limit: int, damage_file: str | None) -> None:
        self._limit = limit
        self._findings: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._examples: list[dict[str, t.Any]] = []
        self._counts = [0, 0, 0]
        self._damaged = 0
        self.structure: list[str] | None = None
        self._path = damage_file
        self._file: sqlite3.Connection | None = None

    def __enter__(self) -> _Summary:
        if self._path:
            try:
                for leftover in (self._path + ".new", self._path + ".new-journal"):
                    if os.path.exists(leftover):
                        os.unlink(leftover)
                os.close(os.open(self._path + ".new", os.O_CREAT | os.O_WRONLY, 0o600))
                self._file = sqlite3.connect(self._path + ".new", isolation_level=None)
                self._file.execute("PRAGMA synchronous=OFF")  # it can be made again by another scan
                self._file.execute("CREATE TABLE damage (key TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID")
                self._file.execute("BEGIN")
            except (OSError, sqlite3.Error) as exc:
                raise self._unwritable(exc) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if self._file is not None and self._path:
            try:
                if kind is None:
                    self._file.execute("COMMIT")
                self._file.close()
                if kind is None:
                    os.replace(self._path + ".new", self._path)
            except (OSError, sqlite3.Error) as exc:
                raise self._unwritable(exc) from None

    def _unwritable(self, exc: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"The list of damaged keys {self._path} cannot be written: {exc}.", "free space or name another folder"
        )

    def receive(self, kind: str, value: t.Any) -> None:
        if kind == "counts":
            self._counts = [a + b for a, b in zip(self._counts, value)]
        elif kind == "structure":
            self.structure = list(value)
            self.receive(
                "damage", [(None, "index" if "index" in line.lower() else "structure", line) for line in value]
            )
        elif kind == "damage":
            for key, what, evidence in value:
                self._findings[what] += 1
                self._damaged += key is not None
                if len(self._examples) < self._limit:
                    self._examples.append({"kind": what, "key": key and shown(key), "evidence": evidence})
            if self._file is not None:
                rows = [(key, what) for key, what, _evidence in value if key is not None and what not in TOLD]
                try:
                    self._file.executemany("INSERT OR REPLACE INTO damage VALUES (?,?)", rows)
                except sqlite3.Error as exc:
                    raise self._unwritable(exc) from None

    def result(self, opened: bool) -> dict[str, t.Any]:
        found = {kind: n for kind, n in self._findings.items() if n}
        reasons = [f"{n} × {kind}" for kind, n in found.items()]
        if not found and not opened:
            reasons = ["no key was at hand: every checksum holds, but no payload was opened"]
        rows, tombstones, expired = self._counts
        return {
            "verdict": "fail" if found else "pass" if opened else "could-not-verify",
            "intact": not found,
            "rows": rows,
            "live": rows - tombstones - expired,
            "tombstones": tombstones,
            "expired": expired,
            "damaged": self._damaged,
            "findings": found,
            "examples": self._examples,
            "reasons": reasons,
        }


def _damage_map(buckets: list[Bucket], limit: int) -> list[dict[str, t.Any]]:
    while len(buckets) > max(1, limit):
        buckets = halve(buckets)
    return [
        {"first_key": shown(first), "last_key": shown(last), "rows": rows, "damaged": damaged}
        for first, last, rows, damaged in buckets
    ]
