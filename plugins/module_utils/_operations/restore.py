# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Restore a namespace from a snapshot: into a new generation that is checked before one switch.

PRIVATE to the collection. Readers go on all the time; writers of a serving namespace wait on its write lock.
Some keys alone, or another name, are in restore_records.py.
"""
from __future__ import annotations

import contextlib
import itertools
import time
import typing as t

from .._codec import check_namespace
from .._errors import (
    InvalidInput,
    NamespaceUnknown,
    StoreDamaged,
)
from .._model import Claim, LogEntry, NamespaceState
from .._repository import Repository, Snapshot
from .._repository.chunks import NamespaceDigest
from .._store import Store
from .._store_optional import left_fences
from . import commands, dropped_keys
from .coverage import newest_whole
from .incident import now_us
from .incoming import Incoming, checked
from .restore_fill import fill
from .restore_guards import no_secondary_overwritten, same_layout, same_lineage
from .restore_newer import keep_newer
from .restore_records import copy_under, parts_of, some_keys
from .restore_renamed import copy_rows_under, refuse_overlap
from .restore_work import Opened, Work, claimed, state_of
from .snapshot_check import Checker, Tally


def restore(
    *,
    store_params: t.Mapping[str, t.Any],
    repository: Repository | t.Mapping[str, t.Any],
    keyring: t.Any,
    name: str,
    snapshot_id: str | None = None,
    namespace: str,
    to_namespace: str | None = None,
    keys: t.Sequence[str] | None = None,
    pattern: str | None = None,
    claim: Claim | None = None,
    attempt: str | None = None,
    owner: str | None = None,
    takeover: str | None = None,
    create: bool = False,
    as_secondary: bool = False,
    overwrite: bool = False,
    expiry: str = "keep",
    check: bool = False,
    newer_stay: bool = False,
    snapshot: Snapshot | None = None,
    opened: Opened | None = None,
) -> dict[str, t.Any]:
    """Bring a namespace back from a snapshot (``snapshot_id`` None: the newest good one that holds it).

    ``to_namespace``: as another name, every record sealed anew and written as an application writes. ``keys``: only
    these, which the snapshot has to have, and beside them those whose key matches ``pattern``; what the store holds
    newer and intact stays unless ``overwrite``.
    ``create``: make a missing store or namespace. ``as_secondary``: keep a standby copy warm. ``claim``: of the
    incident under way; without one the restore opens and closes its own. ``expiry``: keep | rebase, by the time that
    passed since the snapshot. ``check``: write nothing, say what would happen. ``newer_stay``: refuse a whole namespace
    that serves what was written after the snapshot, looked at while its writers wait. ``snapshot`` and ``opened``:
    where the caller has them open, for many namespaces. Damaged records of a snapshot are left out and listed, never
    brought back.

    Returns {changed, check, snapshot, namespace, to_namespace, records, restored, unchanged, damaged, newer,
    listed keys of each, digest, generation, previous_generation, log_entries, adopted_keys, warnings, seconds}.
    Errors: SnapshotUnusable, RepositoryRefused (another store's), KeyUnavailable, NamespaceUnknown, CannotProceed,
    LeaseHeld, StaleAttempt, StoreUnavailable, StoreDamaged, RepositoryUnavailable.
    """
    started = time.monotonic()
    place = repository if isinstance(repository, Repository) else Repository.open(repository)
    target = to_namespace if to_namespace is not None else namespace
    check_namespace(target)
    chosen = keys is not None or pattern is not None
    if as_secondary and (chosen or target != namespace):
        raise InvalidInput("A secondary takes whole namespaces under their own names.", "leave keys and name out")
    if snapshot is None and snapshot_id is None:
        snapshot = place.newest_good(name, keyring, namespace)
    elif snapshot is None:
        snapshot = place.snapshot(name, t.cast(str, snapshot_id), keyring)
    if namespace not in snapshot.namespaces():
        snapshot.chunks(namespace)  # says which there are
    result: dict[str, t.Any] = {
        "changed": False,
        "check": check,
        "snapshot": snapshot.id,
        "namespace": namespace,
        "to_namespace": target,
        "records": snapshot.manifest["namespaces"][namespace]["records"],
        "warnings": [],
    }
    if not snapshot.good:
        result["warnings"].append(f"Snapshot {snapshot.id} is {snapshot.purpose}, not a good one.")
    if snapshot.manifest["consistency"] != "point-in-time":
        result["warnings"].append(
            f"Snapshot {snapshot.id} is fuzzy: the store was written while it was taken, so some records are of a "
            "later moment than others; each is whole."
        )
    with contextlib.ExitStack() as stack:
        store = (opened or stack.enter_context(contextlib.closing(Opened(store_params, create, check)))).store
        if store is None:
            return {**result, "changed": True, "would": "make the store and restore the namespace"}
        state = state_of(store, target)
        if state is None and not create and target == namespace:
            raise NamespaceUnknown(
                f"The store has no namespace {target!r:.80}.",
                "correct the name, or let the restore make it: "
                + commands.run("restore", memory_namespace=target, memory_create="true"),
            )
        same_layout(store, snapshot)
        rebase = checked(store, expiry)
        if rebase and as_secondary:
            raise InvalidInput(
                "A secondary is a copy: its records expire when those of the primary do.",
                "leave memory_restore_expiry at keep",
            )
        same_lineage(store, snapshot, check)
        needed = {key: one for key, one in snapshot.wrapped_keys().items() if key in snapshot.manifest["keys"]}
        adopted = [key for key in needed if key not in keyring.ids()] if check else keyring.adopt(needed)
        result["adopted_keys"] = adopted
        lost = sorted(set(snapshot.manifest["keys"]) - set(needed) - set(keyring.ids()))
        if lost:
            result["warnings"].append(f"No one has the record keys {', '.join(lost)}: what they sealed stays closed.")
        drops, who = dropped_keys.begin_writing(store), owner or "restore"
        work = Work(store, snapshot, keyring, namespace, target, state, who, check, store_params)
        work.incoming = Incoming(store, store_params, namespace, target, now_us() if rebase else None)
        parts = parts_of(work, keys, pattern)
        if chosen:
            parts = itertools.chain([next(parts)], parts)  # refused before anything is made
        if target != namespace and "encryption" in store.capabilities():
            result.update(copy_under(work, parts, overwrite))
        elif target != namespace:
            refuse_overlap(work)
            with claimed(work, claim, attempt, takeover) as held:
                result.update(copy_rows_under(work, held, parts, overwrite))
        else:
            if as_secondary and state is not None:
                no_secondary_overwritten(store, state, snapshot, place)
            with claimed(work, claim, attempt, takeover) as held:
                if chosen:
                    done = some_keys(work, held, parts, overwrite, frozenset(keys or ()))
                    result["warnings"] += done.pop("warnings", [])
                    result.update(done)
                else:
                    result.update(_whole(work, held, as_secondary, newer_stay))
        result["warnings"] += dropped_keys.dropped_since(store, drops)
        result["warnings"] += [f"{one.says} Next: {one.next_step}" for one in left_fences(store, target)]
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def restore_whole(
    *,
    namespaces: t.Sequence[str] | None = None,
    snapshot_id: str | None = None,
    newer_stay: bool = False,
    **arguments: t.Any,
) -> dict[str, t.Any]:
    """``restore`` for every namespace of one snapshot (or these). {changed, snapshot, namespaces {name: result}}.

    Where none is named, it is the newest good one that holds everything, not the baseline of one namespace.
    ``newer_stay``: refuse, before the first, where one serves what was written after the snapshot; each is looked at
    again while its writers wait.
    """
    place = arguments["repository"]
    if not isinstance(place, Repository):
        place = Repository.open(place)
    name, keyring = arguments["name"], arguments["keyring"]
    if snapshot_id is None:
        snapshot = newest_whole(place, name, keyring, namespaces)
    else:
        snapshot = place.snapshot(name, snapshot_id, keyring)
    results = {}
    where = (arguments["store_params"], arguments.get("create", False), arguments.get("check", False))
    with contextlib.closing(Opened(*where)) as opened:
        wanted = snapshot.namespaces() if namespaces is None else namespaces
        if newer_stay and opened.store is not None:
            held = [one for one in wanted if one in snapshot.namespaces()]
            same_layout(opened.store, snapshot)
            if opened.store.identity().lineage == snapshot.info.lineage:
                keep_newer(opened.store, snapshot, held)
        for namespace in wanted:
            given = {**arguments, "repository": place, "snapshot": snapshot, "opened": opened}
            results[namespace] = restore(**given, namespace=namespace, newer_stay=newer_stay)
    return {
        "changed": any(result["changed"] for result in results.values()),
        "snapshot": snapshot.id,
        "namespaces": results,
    }


def _whole(work: Work, claim: Claim | None, as_secondary: bool, newer_stay: bool) -> dict[str, t.Any]:
    """All of the namespace, through a new generation."""
    store, entry, state, snapshot = work.store, work.entry, work.state, work.snapshot
    if claim is not None and state is not None:
        store.finish_switch(claim)  # of a restore that was killed
        state = state_of(store, work.target) or state
    point = (snapshot.info.epoch, snapshot.info.sequence)
    there = state is not None and (
        (as_secondary and state.restored_digest == entry["digest"])
        or (not as_secondary and not entry["damaged"] and _is_there(work, point))
    )
    if claim is None:
        would = "it is there already, record for record" if there else "restore into a new generation and switch"
        return {"changed": not there, "would": would}
    if state is None:
        raise AssertionError("state")
    result: dict[str, t.Any] = {"restored": 0, "unchanged": entry["records"], "digest": entry["digest"]}
    changed = False
    if not there:
        serving = state.state == "serving"
        if serving:
            left = store.incident(claim).facts.get("restore_lock")
            if left is not None:  # a killed restore of this incident held it
                store.unlock(work.target, left)
            store.note(claim, restore_lock=work.lock())
        try:
            if serving and newer_stay:  # what was written since it was looked at first; from here on writers wait
                work.untouched = store.incident(claim).facts.get("restore_generation") is None
                keep_newer(store, snapshot, [work.target], f"{work.target!r:.80} is not restored")
                work.untouched = False
            result.update(fill(work, claim, state, _known(state) if as_secondary else (-1, -1)))
            store.switch(claim, result["generation"], state.generation)  # which rows that went straight in do without
            changed = True
        finally:
            if work.locked is not None:
                store.unlock(work.target, work.locked)
        store.note(claim, restore_generation=None, restore_lock=None)
        _log_restore(work, claim)
    identity = store.identity()
    behind = as_secondary or (identity.epoch, identity.sequence) < point
    if behind and (changed or state.restored_snapshot != snapshot.id):
        store.filled_from(claim, snapshot.id, *point, snapshot.info.at, result["digest"])
        changed = True
    if as_secondary:
        active = _active(store, work.target)
        for generation in store.generations(work.target):
            if generation != active:
                store.drop_generation(claim, generation)
    elif state.state == "standby" and state.restored_snapshot is None:
        changed = store.set_state(claim, "serving") or changed
    return {**result, "changed": changed}


def _known(state: NamespaceState) -> tuple[int, int]:
    """Up to where a standby copy has the log already."""
    if state.restored_epoch is None or state.restored_sequence is None:
        return (-1, -1)
    return (state.restored_epoch, state.restored_sequence)


def _active(store: Store, namespace: str) -> int:
    with store.reader() as reader:
        return reader.namespace(namespace).generation


def _is_there(work: Work, point: tuple[int, int]) -> bool:
    """Whether the active generation is exactly the snapshot's; ends at the first row that is not."""
    if work.incoming.alters(work.snapshot):
        return work.incoming.fixed and _are_there(work)
    digest = NamespaceDigest()
    with work.store.reader() as reader:
        try:
            tally = Tally()
            checker = Checker(work.target, tally)
            counted = False
            for rows in reader.scan(work.target):
                checker(rows)
                if checker.bad or max((row[1], row[2]) for row in rows) > point:
                    return False
                if not counted and reader.count(work.target) != work.entry["records"]:
                    return False  # looked at second, as counting passes all of them
                counted = True
            digest.merge(tally.rows, tally.total)
        except StoreDamaged:
            return False
    return bool(digest.hexdigest() == work.entry["digest"])


def _are_there(work: Work) -> bool:
    """The same of rows that come out other than they are in the snapshot."""
    with work.store.reader() as reader:
        try:
            live = (row for rows in reader.scan(work.target) for row in rows)
            for _chunk, rows in work.snapshot.read(work.snapshot.chunks(work.namespace)):
                for row in work.incoming(work.snapshot, rows):
                    if row != next(live, None):
                        return False
            return next(live, None) is None
        except StoreDamaged:
            return False


def _log_restore(work: Work, claim: Claim) -> None:
    entry = LogEntry(
        0, time.time_ns() // 1000, work.target, "restore", None, None, None, None, None, work.owner,
        f"snapshot {work.snapshot.id}", b"",
    )  # fmt: skip
    work.store.log_operation(claim, [tuple(entry)])
