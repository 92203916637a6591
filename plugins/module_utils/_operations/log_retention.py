# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How long the access log is kept: what is older goes once a good snapshot holds it.

PRIVATE to the collection. Without this the log of an agent that reads all day outgrows its memories. An entry of a read
is evidence for diagnose and for the hit rate, no more. The newest entry of a write proves its record; where it is gone,
the same record in a good snapshot does.
"""

from __future__ import annotations

import time
import typing as t

from .._model import READ_OPERATIONS, WRITE_OPERATIONS
from .._repository import Repository
from .._store import Reader, Store
from .coverage import good_of, newest_of_each
from .retention_note import Note


class _Found(t.NamedTuple):
    """The entries that may go: how many, the id of the last one, and the newest (epoch, sequence) among them."""

    entries: int
    last: int
    newest: t.Tuple[int, int]


def apply(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    repository: Repository | None,
    keyring: t.Any,
    name: str,
    keep_reads: float | None,
    keep_writes: float | None,
    work_dir: str | None = None,
    now: float | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Drop the entries of reads that are older than ``keep_reads`` seconds, and of writes (with what applications
    soft-deleted by then) older than ``keep_writes``, and than those of reads that stay; None: those stay for good.

    Only what the newest good snapshot of every namespace holds goes, and nothing while a namespace is quarantined. One
    look a day is enough, or each thirtieth of the shorter time. ``repository`` None: it is not there yet.

    Returns {"changed", "reads", "writes": entries that went (in check mode: would go), "reason": why none could}.
    Errors: SnapshotUnusable, KeyUnavailable, RepositoryUnavailable, StoreUnavailable.
    """
    nothing = {"changed": False, "reads": 0, "writes": 0}
    if keep_writes is not None:
        # a validation asks for what was read once; that it was deleted or replaced since, only this entry tells
        keep_writes = None if keep_reads is None else max(keep_reads, keep_writes)
    wanted = [seconds for seconds in (keep_reads, keep_writes) if seconds is not None]
    known = store.capabilities()
    if "log" not in known or "sequence" not in known:
        return {**nothing, "reason": "the layout keeps no access log in the store"}
    if not wanted:
        return {**nothing, "reason": ""}
    identity, now = store.identity(), time.time() if now is None else now
    noted = Note(store_params, name, work_dir, identity.store_id, "log_retention")
    if noted.fresh(now, min(wanted)):
        return {**nothing, "reason": ""}
    with store.reader() as reader:
        states = reader.namespaces()
        held = [state.name for state in states if state.incident or state.state == "quarantined"]
        if held:
            return {**nothing, "reason": f"namespace {held[0]!r:.80} is quarantined"}
        if repository is None:
            return {**nothing, "reason": "there is no snapshot yet"}
        each = newest_of_each(good_of(repository, name), [state.name for state in states])
        bare = [state.name for state in states if state.name not in each]
        if bare or not each:
            return {**nothing, "reason": f"no good snapshot holds namespace {bare[0]!r:.80}" if bare else ""}
        # what is authenticated counts, not what a listing says
        manifests = [repository.snapshot(name, one, keyring).manifest for one in {info.id for info in each.values()}]
        if any(manifest["store"]["store_id"] != identity.store_id for manifest in manifests):
            return {**nothing, "reason": "the newest good snapshot is of another copy of this store"}
        end = min(manifest["log_last_id"] for manifest in manifests)
        point = min((manifest["point"]["epoch"], manifest["point"]["sequence"]) for manifest in manifests)
        reads = _older(reader, noted.number("reads"), end, keep_reads, now, READ_OPERATIONS, None)
        writes = _older(reader, noted.number("writes"), end, keep_writes, now, WRITE_OPERATIONS, point)
    some = bool(reads.entries or writes.entries)
    if not check:
        if some:
            store.prune_log(reads.last + 1 if reads.entries else 0, writes.newest)
        noted.keep(now, reads=reads.last, writes=writes.last)
    return {"changed": some, "reads": reads.entries, "writes": writes.entries, "reason": ""}


def _older(
    reader: Reader, after: int, end: int, seconds: float | None, now: float, operations: t.Collection[str],
    point: tuple[int, int] | None,
) -> _Found:  # fmt: skip
    """The entries of these operations with after < id <= end that are old enough (and, of writes, up to ``point``)."""
    count, newest = 0, (0, 0)
    if seconds is None:
        return _Found(0, after, newest)
    cutoff = int((now - seconds) * 1e6)
    for batch in reader.log(after_id=after, operations=tuple(operations)):
        old = [
            entry for entry in batch
            if entry.id <= end and entry.at < cutoff and (point is None or _version(entry) <= point)
        ]  # fmt: skip
        if old:
            # ids ascend and times nearly so: what is older than one that may go, may go; a damaged time stops nothing
            after = old[-1].id
            gone = [entry for entry in batch if entry.id <= after]
            count += len(gone)
            newest = max([newest, *map(_version, old)])
        if not old or old[-1] is not batch[-1]:
            break
    return _Found(count, after, newest)


def _version(entry: t.Any) -> tuple[int, int]:
    return entry.epoch or 0, entry.sequence or 0
