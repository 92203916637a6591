# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill a new generation with a snapshot's rows, prove it, and bring the log entries that the store lacks. Where the
store can, rows of an empty namespace go straight to their place instead, in one transaction that reads them back, as
long as it keeps nobody waiting.

PRIVATE to the collection. One process fetches and opens chunks, this one loads their rows, a third one reads back what
was loaded, and where the engine lets several write, a fourth one imports the log meanwhile. Loading is not durable step
by step: a power cut may take the newest rows of the inactive generation, whole transactions of them, and the restore
then begins it anew; the switch that comes after is durable with all before it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import typing as t
from functools import partial

from .._codec import RecordCodec
from .._errors import CannotProceed
from .._model import Claim, LogEntry, NamespaceState, Row
from .._repository import Snapshot
from .._repository.chunks import ChunkRef, NamespaceDigest
from .._repository.reader import rows_of
from .._store import Store, open_store
from .._store_optional import DirectLoad, DirectRows, ManyWriters, PreparedLoad
from .restore_check import WAIT_SECONDS, Follower, LogComparison, Proof, read_back
from .restore_work import Work
from .snapshot_check import Checker, Tally
from .workers import Parent, Worker

LOAD_BYTES = 4 << 20  # of one transaction, which holds the store for some hundredths of a second
PREPARED_BYTES = 1 << 20  # that are prepared at a time: both processes hold them, and what is made of them
DIRECT_BYTES, DIRECT_ROWS = 8 << 20, 4000  # that are put at a time
DIRECT_CHUNKS = 32  # that are about as many bytes
LOOK_SECONDS = 1.0  # after which a transaction that gets nothing from the repository asks whom it keeps waiting
LOG_ROWS = 8_000
SMALL = 40_000  # records that one process restores before others would be up
LISTED = 1000  # keys that a result lists
# what the NamedTuple's own _make does, without a Python call for each entry
_log_entry: t.Callable[[Row], LogEntry] = partial(tuple.__new__, LogEntry)


def fill(work: Work, claim: Claim, state: NamespaceState, since: tuple[int, int]) -> dict[str, t.Any]:
    """Load a new generation, prove that it is what the snapshot holds, and import the log entries newer than ``since``
    that are missing. Errors: CannotProceed, SnapshotUnusable."""
    store, entry = work.store, work.entry
    leftover = store.incident(claim).facts.get("restore_generation")
    if leftover is not None and leftover != state.generation and leftover in store.generations(work.target):
        store.drop_generation(claim, leftover)
    generation = store.begin_generation(claim)
    store.note(claim, restore_generation=generation)
    chunks, log = work.snapshot.chunks(work.namespace), work.snapshot.chunks(work.namespace, "log")
    damaged: list[str] = []
    imported = 0
    if entry["damaged"] or work.incoming.alters(work.snapshot):
        done, wrong, digest = _intact_rows(work, claim, generation, chunks, damaged)
        missing = _compared(LogComparison(store, work.target, log))
    elif (direct := _direct(work, claim, state, generation, chunks)) is not None:
        done, wrong, digest = direct, None, entry["digest"]
        missing = _compared(LogComparison(store, work.target, log))
    elif entry["records"] <= SMALL:
        done = _load(work, claim, generation, work.snapshot.plain(chunks), lambda _chunks: store.settle())
        proof = Proof(store, work.target, generation, chunks)
        proof.finish()
        wrong, digest = proof.wrong, entry["digest"]
        missing = _compared(LogComparison(store, work.target, log))
    else:
        done, wrong, missing, imported = _side_by_side(work, claim, generation, chunks, log, since)
        digest = entry["digest"]
    expected = entry["records"] - len(damaged)
    if wrong is None and done != expected:
        wrong = f"{done} of {expected} records"
    if wrong is not None:
        raise CannotProceed(
            f"The new generation {generation} of {work.target!r:.80} is not what snapshot {work.snapshot.id} holds: "
            f"{wrong}. Nothing was switched.",
            "verify the snapshot and check the disk, then run the same command again",
        )
    late = [log[position] for position in missing]
    imported += _import_log(store, claim, work.snapshot, late, since, lambda: work.renew(claim))
    return {
        "generation": generation,
        "previous_generation": state.generation,
        "restored": done,
        "unchanged": 0,
        "damaged": len(damaged),
        "damaged_keys": damaged[:LISTED],
        "digest": digest,
        "log_entries": imported,
    }


def _direct(
    work: Work, claim: Claim, state: NamespaceState, generation: int, chunks: t.Sequence[ChunkRef]
) -> int | None:
    """Rows that are in their place, read back, and active; None where they have to be staged."""
    store = work.store
    if not isinstance(store, DirectLoad):
        return None
    work.snapshot.unlock(chunks)
    try:
        with contextlib.ExitStack() as stack:
            arranger, arriving = None, []
            if work.entry["records"] > DIRECT_ROWS or len(chunks) > DIRECT_CHUNKS:
                arranger = Worker(_arrange, work, chunks, store)
                stack.callback(arranger.stop)
            else:  # all of it, before anything is held
                arriving = list(_arranged(work, chunks, store))
            direct = stack.enter_context(store.direct(claim, generation, state.generation, work.entry["records"]))
            if direct is None:
                return None
            done = 0
            for rows, arranged in arriving if arranger is None else _arriving(arranger, direct):
                direct.put(arranged)
                done += rows
                work.say(done)
            if _digest_of(work.target, direct.rows()) != work.entry["digest"]:
                why, remedy = direct.changing()
                raise CannotProceed(
                    f"The tables would not hold what snapshot {work.snapshot.id} holds of {work.target!r:.80}: {why}. "
                    "Nothing was changed.",
                    remedy,
                )
    except _GivesWay:
        return None
    return done


class _GivesWay(Exception):
    """Somebody waits for what a direct load holds, for as long as the repository takes."""


def _arriving(arranger: Worker, direct: DirectRows) -> t.Iterator[tuple[int, t.Any]]:
    """What was arranged. Errors: _GivesWay."""
    while True:
        while not arranger.channel.poll(LOOK_SECONDS):
            if direct.waited_for():
                raise _GivesWay
        some = arranger.receive()[1]
        if some is None:
            return
        yield some
        if direct.waited_for():
            raise _GivesWay


def _digest_of(namespace: str, rows: t.Iterable[Row]) -> str:
    checksum, count, total = RecordCodec(namespace).checksum, 0, 0
    for row in rows:
        count += 1
        total += int.from_bytes(checksum(row), "big")
    return NamespaceDigest(count, total).hexdigest()


def _arranged(work: Work, chunks: t.Sequence[ChunkRef], store: DirectLoad) -> t.Iterator[tuple[int, t.Any]]:
    waiting: list[Row] = []
    size = 0
    for chunk, plain in work.snapshot.plain(chunks):
        waiting += rows_of(chunk, plain)
        size += len(plain)
        if size >= DIRECT_BYTES or len(waiting) >= DIRECT_ROWS:
            yield len(waiting), store.arranged(work.target, waiting)
            waiting, size = [], 0
    if waiting:
        yield len(waiting), store.arranged(work.target, waiting)


def _arrange(parent: Parent, work: Work, chunks: t.Sequence[ChunkRef], store: DirectLoad) -> None:
    for some in _arranged(work, chunks, store):
        parent.check()
        parent.send("arranged", some)
    parent.send("arranged", None)


def _side_by_side(
    work: Work,
    claim: Claim,
    generation: int,
    chunks: t.Sequence[ChunkRef],
    log: t.Sequence[ChunkRef],
    since: tuple[int, int],
) -> tuple[int, str | None, list[int], int]:
    """(rows loaded, where the store holds something else, log chunks to import, entries that were imported)."""
    beside = isinstance(work.store, ManyWriters)
    work.snapshot.unlock([*chunks, *log] if beside else chunks)
    imported = 0

    def renew() -> None:
        work.renew(claim)

    prepares = work.store if isinstance(work.store, PreparedLoad) else None
    with contextlib.ExitStack() as stack:
        if prepares is None:
            fetcher = Worker(_fetch, work.snapshot, chunks)
        else:
            fetcher = Worker(_prepare, work, generation, chunks, prepares)
        stack.callback(fetcher.stop)
        follower = Follower(work.store_params, work.target, generation, chunks, [] if beside else log)
        stack.callback(follower.stop)
        importer = None
        if isinstance(work.store, ManyWriters):
            turns = multiprocessing.get_context("fork").Lock()
            work.store.take_turns(turns)
            stack.callback(work.store.take_turns, None)
            importer = Worker(_bring_log, turns, dict(work.store_params), claim, work.snapshot, log, since)
            stack.callback(importer.stop)
        if prepares is None:
            arriving = ((chunk, fetcher.receive()[1]) for chunk in chunks)
            done = _load(work, claim, generation, arriving, follower.committed)
        else:
            done = _load_prepared(work, claim, generation, fetcher, follower.committed, prepares)
        fetcher.stop()
        proven, wrong, missing = follower.finish(renew)
        if importer is not None and wrong is None:
            while not importer.channel.poll(WAIT_SECONDS):
                renew()
            imported = importer.receive()[1]
    if wrong is None and proven != done:
        wrong = f"{proven} of {done} records"
    return done, wrong, missing, imported


def _bring_log(
    parent: Parent,
    turns: t.Any,
    store_params: dict[str, t.Any],
    claim: Claim,
    snapshot: Snapshot,
    log: t.Sequence[ChunkRef],
    since: tuple[int, int],
) -> None:
    store = open_store(store_params)
    if isinstance(store, ManyWriters):
        store.take_turns(turns)
    comparison = LogComparison(store, claim.namespace, log)
    while comparison.step():
        parent.check()
    late = [log[position] for position in comparison.missing]
    parent.send("imported", _import_log(store, claim, snapshot, late, since, parent.check))


def _fetch(parent: Parent, snapshot: Snapshot, chunks: t.Sequence[ChunkRef]) -> None:
    for _chunk, plain in snapshot.plain(chunks):
        parent.check()
        parent.send("chunk", plain)


def _prepare(
    parent: Parent, work: Work, generation: int, chunks: t.Sequence[ChunkRef], store: PreparedLoad
) -> None:
    for number, rows in _batches(work.snapshot.plain(chunks), PREPARED_BYTES):
        parent.check()
        parent.send("prepared", (number, len(rows), store.prepared(work.target, generation, rows)))
    parent.send("prepared", None)


def _batches(arriving: t.Iterable[tuple[ChunkRef, bytes]], enough: int) -> t.Iterator[tuple[int, list[Row]]]:
    """(how many chunks have come, the rows that came with them) for each load."""
    waiting: list[Row] = []
    size = number = 0
    for number, (chunk, plain) in enumerate(arriving, 1):
        waiting += rows_of(chunk, plain)
        size += len(plain)
        if size >= enough:
            yield number, waiting
            waiting, size = [], 0
    if waiting:
        yield number, waiting


def _load(
    work: Work,
    claim: Claim,
    generation: int,
    arriving: t.Iterable[tuple[ChunkRef, bytes]],
    committed: t.Callable[[int], None],
) -> int:
    """Load the rows of chunks as they arrive; ``committed`` is told how many chunks are in the store."""
    done = 0
    for number, rows in _batches(arriving, LOAD_BYTES):
        work.store.load(claim, generation, rows)
        committed(number)
        done += len(rows)
        work.say(done)
        work.renew(claim)
    return done


def _load_prepared(
    work: Work,
    claim: Claim,
    generation: int,
    preparer: Worker,
    committed: t.Callable[[int], None],
    store: PreparedLoad,
) -> int:
    """As ``_load``, of what another process makes ready."""
    done = 0
    for number, rows, prepared in iter(lambda: preparer.receive()[1], None):
        store.load_prepared(claim, generation, prepared)
        committed(number)
        done += rows
        work.say(done)
        work.renew(claim)
    return done


def _intact_rows(
    work: Work, claim: Claim, generation: int, chunks: t.Sequence[ChunkRef], damaged: list[str]
) -> tuple[int, str | None, str]:
    """The rows that are whole, as they come in: (rows, what is wrong, digest); ``damaged`` gets the others' keys."""
    checker = Checker(work.namespace, Tally())
    loaded = Tally()
    count = Checker(work.target, loaded)
    done = 0
    for _chunk, rows in work.snapshot.read(chunks):
        checker(rows)
        bad = set(checker.bad)
        damaged += [str(rows[position][0]) for position in checker.bad]
        good = work.incoming(work.snapshot, (row for position, row in enumerate(rows) if position not in bad))
        count(good)
        work.store.load(claim, generation, good)
        work.store.settle()
        done += len(good)
        work.say(done)
        work.renew(claim)
    found = read_back(work.store, work.target, generation, lambda: work.renew(claim))
    wrong = None
    if found.rows != done or found.damaged or found.total != loaded.total:
        wrong = f"{found.rows} of {done} records, {found.damaged} damaged"
    return done, wrong, NamespaceDigest(found.rows, found.total).hexdigest()


def _compared(comparison: LogComparison) -> list[int]:
    while comparison.step():
        pass
    return comparison.missing


def _import_log(
    store: Store,
    claim: Claim,
    snapshot: Snapshot,
    chunks: t.Sequence[ChunkRef],
    since: tuple[int, int],
    each: t.Callable[[], None],
) -> int:
    """The evidence of the restored records: their write entries that this store lacks; how many. ``each`` is called per
    chunk."""
    imported = 0
    writes: list[LogEntry] = []
    for _chunk, entries in snapshot.read(chunks):
        writes += [
            _log_entry(entry)
            for entry in entries
            if entry[3] in ("write", "delete") and (entry[5] or 0, entry[6] or 0) > since
        ]
        if len(writes) >= LOG_ROWS:
            imported += store.import_log(claim, writes)
            writes = []
        each()
    return imported + (store.import_log(claim, writes) if writes else 0)
