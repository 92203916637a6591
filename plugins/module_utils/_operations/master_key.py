# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Move a keyring and the snapshots to another master key; give the former one up when that is asked for.

PRIVATE to the collection. Two steps, since a cluster has one repository and a keyring on each host. Each goes on by the
same call after a kill. Records and packs are not touched: who has the former master key and a copy of what it wrapped
still opens those.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .. import _keyring_rewrap
from .._errors import InvalidInput, KeyUnavailable
from .._keyring import Keyring
from .._repository import Repository, catalogue
from .._repository.objects import check_name
from .._repository.rewrap import Proof, Rewrap

THREADS = 8
T = t.TypeVar("T")


class MasterKeys(t.NamedTuple):
    """Keyrings without a file. ``old`` is None when the keyring names the new master key already, or the old one is
    gone; ``gone`` then says why."""

    old: Keyring | None
    new: Keyring
    gone: str | None


def open_masters(keyring: t.Mapping[str, t.Any], new_master: t.Mapping[str, t.Any] | None) -> MasterKeys:
    """The master key of ``keyring`` and the one to move to (None: the same). Errors: InvalidInput, KeyUnavailable."""
    if not new_master:
        return MasterKeys(None, Keyring.open({**keyring, "path": None}), None)
    new = Keyring.open({**new_master, "path": None})
    try:
        old = Keyring.open({**keyring, "path": None})
    except KeyUnavailable as exc:  # given up already, perhaps; whether it is needed shows
        return MasterKeys(None, new, exc.message)
    return MasterKeys(old, new, None) if old.master_id != new.master_id else MasterKeys(None, new, None)


def rewrap_keyring(
    keyring: t.Mapping[str, t.Any],
    new_master: t.Mapping[str, t.Any] | None,
    *,
    retire: bool = False,
    force: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """Let the new master key open the keyring file too; with ``retire`` alone.

    ``force`` goes on although a record key opens with neither. Returns {changed, verdict, reasons, master, masters
    {before, after}, record_keys, unopened [key ids], warnings}.
    Errors: InvalidInput, KeyUnavailable, CannotProceed.
    """
    path = keyring.get("path")
    if not path:
        raise InvalidInput("The keyring has no path.", "set memory_keyring.path to the keyring file")
    if not new_master and not retire:
        raise InvalidInput(
            "No new master key is named.", "set memory_new_master_key (source, master_key_file, kms_key_id, …)"
        )
    keys = open_masters(keyring, new_master)
    try:
        if retire:
            found = _keyring_rewrap.retire(path, keys.old, keys.new, force=force, check=check)
        else:
            found = _keyring_rewrap.rewrap(path, keys.old, keys.new, check=check)
    except KeyUnavailable as exc:
        if keys.gone:
            raise KeyUnavailable(f"{exc.message} The former master key: {keys.gone}", exc.next_step) from None
        raise
    if not retire and keys.old is None and not keys.gone and found.before == [keys.new.master_id]:
        raise InvalidInput(
            f"The new master key has the same id as that of the keyring: {keys.new.master_id}; nothing was changed.",
            "name another one in memory_new_master_key",
        )
    reasons = [f"The record key {key} of {path} opens with neither master key" for key in found.unopened]
    return {
        "changed": found.changed,
        "verdict": "could-not-verify" if reasons and not force else "pass",
        "reasons": reasons,
        "master": keys.new.master_id,
        "masters": {"before": found.before, "after": found.after},
        "record_keys": found.keys,
        "unopened": found.unopened,
        "warnings": reasons if force else [],
    }


def rewrap_repository(
    repository: t.Mapping[str, t.Any],
    name: str,
    keyring: t.Mapping[str, t.Any],
    new_master: t.Mapping[str, t.Any] | None,
    *,
    spool: str | None = None,
    retire: bool = False,
    force: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """Let the new master key open every snapshot of the store ``name`` and every journal, and prove it.

    Snapshots of other stores and journals are done too where the old master key opens them. ``spool`` is the directory
    with forensic snapshots that wait there. ``retire`` deletes the keys objects of all other master keys, of this
    store's snapshots and of journals, each after its proof, and none while anything is unproven (``force``: it stays).

    Returns {changed, verdict, reasons, master, snapshots, wrapped, journals, retired, unproven [{what, location,
    reason}], others [store names and incidents of other master keys], warnings}.
    Errors: InvalidInput, KeyUnavailable, RepositoryUnavailable, RepositoryRefused.
    """
    check_name("store", name)
    keys = open_masters(keyring, new_master)
    places = [Repository.open(repository)]
    if spool:
        waiting = Repository.open_if_there({"url": f"file://{spool}"})
        places += [waiting] if waiting else []
    works = [_Place(place, name, keys, check) for place in places]
    for work in works:
        work.wrap()
    unproven = [one for work in works for one in work.unproven]
    retired = 0
    if retire and (force or not unproven):
        retired = sum(work.retire() for work in works)
    wrapped = sum(work.wrapped for work in works)
    others = sorted({other for work in works for other in work.others})
    warnings = list(places[0].warnings)
    if others:
        warnings.append(
            f"Of other master keys in {places[0].location}, and left alone: {', '.join(others[:10])}"
            f"{' …' if len(others) > 10 else ''}."
        )
    reasons = [f"{one['what']}: {one['reason'].rstrip('.')}" for one in unproven]
    if unproven and keys.gone:
        reasons.append(f"The former master key: {keys.gone}")
    if force:
        warnings += [f"Not proven, and left as it is: {reason}" for reason in reasons]
    return {
        "changed": bool(wrapped or retired),
        "verdict": "could-not-verify" if unproven and not force else "pass",
        "reasons": reasons,
        "master": keys.new.master_id,
        "snapshots": sum(len(work.proven) for work in works),
        "wrapped": wrapped,
        "journals": sum(len(work.journals) for work in works),
        "retired": retired,
        "unproven": unproven,
        "others": others,
        "warnings": warnings,
    }


class _Place:
    """One repository: the configured one or a spool."""

    def __init__(self, repository: Repository, name: str, keys: MasterKeys, check: bool) -> None:
        self._objects = repository.objects
        self._location = repository.location
        self._name = name
        self._rewrap = Rewrap(repository.objects, keys.old, keys.new, check)
        self.wrapped = 0
        self.proven: list[tuple[str, str]] = []
        self.journals: list[str] = []
        self.unproven: list[dict[str, t.Any]] = []
        self.others: list[str] = []

    def wrap(self) -> None:
        for name in dict.fromkeys([self._name, *self._objects.children("snapshots/")]):
            found = catalogue.ids(self._objects, name)
            whose = _each(partial(self._one, name), found)
            if name != self._name and found and not any(proof for proof in whose):
                self.others.append(name)
            for snapshot_id, proof in zip(found, whose):
                if proof is not None:
                    self._count(proof, self.proven, (name, snapshot_id), f"Snapshot {snapshot_id} of {name}")
        incidents = self._objects.children("incidents/")
        for incident, proof in zip(incidents, _each(self._rewrap.journal, incidents)):
            if proof is None:
                self.others.append(incident)
            else:
                self._count(proof, self.journals, incident, f"The journal of {incident}")

    def retire(self) -> int:
        """Only what was proven, and of snapshots only the cluster's own: others have keyrings of their own."""
        mine = [snapshot_id for name, snapshot_id in self.proven if name == self._name]
        done = _each(lambda one: self._rewrap.retire_snapshot(self._name, one), mine)
        return sum(done) + sum(_each(self._rewrap.retire_journal, self.journals))

    def _one(self, name: str, snapshot_id: str) -> Proof | None:
        """None: it is no snapshot, or one of another store under another master key."""
        if catalogue.read_problem(self._objects, name, snapshot_id):
            return None  # unfinished, or retention is about to collect it
        if name != self._name and not self._rewrap.concerns(name, snapshot_id):
            return None
        return self._rewrap.snapshot(name, snapshot_id)

    def _count(self, proof: Proof, proven: list[T], item: T, what: str) -> None:
        self.wrapped += proof.changed
        if proof.problem is None:
            proven.append(item)
        else:
            self.unproven.append({"what": what, "location": self._location, "reason": proof.problem})


def _each(work: t.Callable[[str], T], items: t.Sequence[str]) -> list[T]:
    """At once; the first error ends it without waiting for those that have not begun."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
