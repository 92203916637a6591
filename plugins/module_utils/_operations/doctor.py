# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the whole set-up of a memory cluster, and of each thing the command that mends it.

PRIVATE to the collection. Changes nothing: the proof of a fence is rolled back, and what the repository's endpoint
enforces is what was seen when it was made, unless a probe is asked for.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._errors import InvalidInput, RepositoryUnavailable, StoreUnavailable
from .._layouts import seals
from .._model import NamespaceState
from .._replication import open_server, own_store
from .._store import Store
from .._store_optional import left_fences
from . import scrub
from .commands import ago, counted, namespaces, of_each, run
from .doctor_base import FAIL, NONE, PASS, UNKNOWN, Limits, worst_of
from .doctor_clock import clock_check
from .doctor_repository import OF_SNAPSHOTS, RepositoryChecks
from .incident import microseconds, rfc3339

PROVEN = 20  # namespaces whose fence is tried, those that are quarantined first
# What no engine can fence: it is stated, and not a fault of the set-up.
INHERENT = (
    "a program", "raw readers: a program", "a transaction", "the owner of the tables", "a raw MERGE",
    "a server that joins later",
)  # fmt: skip
OWNERS = "raw readers: row-level security does not bind"  # whoever may do everything anyway …
BEYOND = ("(BYPASSRLS)", "(member of the owner)")  # … and who need not
OF_STORE = ("integrity", "fence", "quarantine", "lease", "lag")
CHECKS = (
    "store", "keyring", "repository", *OF_SNAPSHOTS, "conditional_put", "key_age", *OF_STORE, "clock", "space",
    "notifications",
)  # fmt: skip


def doctor(
    *,
    open_store: t.Callable[[], Store],
    store_params: t.Mapping[str, t.Any],
    keyring_params: t.Mapping[str, t.Any] | None,
    repository_params: t.Mapping[str, t.Any] | None,
    open_keyring: t.Callable[[], t.Any],
    open_repository: t.Callable[[], t.Any],
    name: str,
    limits: Limits,
    copy: bool = False,
    probe: bool = False,
    only: t.Collection[str] = (),
    work_dir: str | None = None,
    now: float | None = None,
) -> dict[str, t.Any]:
    """{verdict, checks [{check, verdict, says, next}], faults [names], clock}; the verdict is the worst of the checks.

    ``clock`` {at, took, limit, differences} is for doctor_clock.settle() on the controller, which also looks at the
    notifications.

    ``only``: these checks, and what they need but does not open. ``probe``: try anew what the endpoint enforces.
    ``copy``: this is a secondary; how far it is behind, its clock and its disk are looked at, nothing else.
    ``now``: seconds since 1970. What cannot be asked is could-not-verify.
    Errors: InvalidInput (a check of no such name), no other.
    """
    at = time.time() if now is None else now
    found = _Examination(name, limits, at, store_params, work_dir, only)
    found.probe = probe
    strange = [one for one in only if one not in CHECKS]
    if strange:
        raise InvalidInput(f"There is no check {strange[0]!r:.40}.", f"use some of {', '.join(CHECKS)}")
    store = ring = repository = None
    if found.wanted("store", "backup", *OF_STORE):
        store = found.opened("store", open_store, "the store", "correct memory_store")
    if not found.wanted("keyring", "key_age", *OF_SNAPSHOTS):
        pass
    elif keyring_params is not None:
        ring = found.opened("keyring", open_keyring, "the keyring", "correct memory_keyring")
    elif not copy:
        found.add("keyring", FAIL, "No keyring is set, so no snapshot authenticates.", "set memory_keyring")
    if not found.wanted("repository", "conditional_put", "clock", "lag", *OF_SNAPSHOTS):
        pass
    elif repository_params is not None:
        repository = found.opened("repository", open_repository, "the repository", run("backup"))
    elif not copy:
        found.add("repository", FAIL, "No repository is set, so there is no backup.", "set memory_repository")
    if copy:
        found.check("lag", found.lag, store, repository)
    else:
        found.repository_checks(repository, ring, store)
        found.check("key_age", found.key_age, ring)
        found.check("integrity", found.integrity, store)
        found.check("fence", found.fence, store)
        found.check("quarantine", found.quarantine, store)
        found.check("lease", found.lease, store)
    found.check("clock", found.clock, repository)
    found.check("space", found.space, keyring_params, repository_params)
    took = time.time() - found.began
    clock = {"at": at, "took": took, "limit": limits.skew, "differences": found.differences}
    return {"changed": False, **worst_of(found.checks), "checks": found.checks, "clock": clock}


class _Examination(RepositoryChecks):
    """The checks, each of which says one sentence. ``differences``: how far other clocks are from this host's."""

    def __init__(self, *arguments: t.Any) -> None:
        super().__init__(*arguments)
        self.differences: dict[str, float] = {}

    # --- keys ---------------------------------------------------------------------------------------------------
    def key_age(self, ring: t.Any) -> None:
        if not seals(str(self.store_params.get("layout") or "native")):
            self.add("key_age", NONE, "This layout's records have no key of ours.")
        elif not self.without("key_age", ring, "the keyring"):
            created = ring.created(ring.active_id)
            if created is None:
                self.add("key_age", UNKNOWN, "Nobody noted when the record key was made.", run("rotate_keys"))
                return
            age = max(0.0, self.now - created / 1e6)
            old = age > self.limits.key
            says = f"The record key is {ago(age)} old; the limit is {ago(self.limits.key)}."
            self.add("key_age", FAIL if old else PASS, says, run("rotate_keys") if old else "")

    # --- the store ----------------------------------------------------------------------------------------------
    def integrity(self, store: Store | None) -> None:
        if store is None:
            self.without("integrity", store, "the store")
            return
        notes = scrub.read_notes(self.folder)
        names = [state.name for state in _states(store)]
        failed = [one for one in names if notes.get(one, {}).get("verdict") == "fail"]
        rebuilt = [one for one in failed if _rebuilt_since(store, one, notes[one]["at"])]
        damaged = [one for one in failed if one not in rebuilt]
        worse = [one for one in damaged if not notes[one].get("only_keys")]
        ages = {one: self.now - notes[one]["at"] / 1e6 for one in names if notes.get(one, {}).get("at")}
        never = [one for one in names if one not in ages]
        late = [one for one in sorted(ages, key=lambda one: -ages[one]) if ages[one] > self.limits.scrub]
        if worse:
            says = f"The last scrub found damage in {namespaces(worse)}."
            self.add("integrity", FAIL, says, of_each("rebuild", worse), urgent=True)
        elif damaged:
            values = sum(notes[one]["findings"] for one in damaged)
            says = f"No key of the application that is given opens {counted(values, 'value')} in {namespaces(damaged)}."
            self.add("integrity", FAIL, says, "correct memory_store.application_key_file, then " + run("scrub"))
        elif rebuilt:
            says = f"The last scrub found damage in {namespaces(rebuilt)}; rebuilt since, and not scrubbed."
            self.add("integrity", UNKNOWN, says, run("scrub"))
        elif not names:
            self.add("integrity", NONE, "The store holds no namespace.")
        elif never or late:
            told = [f"{namespaces(never)} {'was' if len(never) == 1 else 'were'} never scrubbed"] if never else []
            if late:
                were, long = ("was", "") if len(late) == 1 else ("were", "up to ")
                age = f"{long}{ago(ages[late[0]])} ago; the limit is {ago(self.limits.scrub)}"
                told.append(f"{namespaces(late)} {were} last scrubbed {age}")
            self.add("integrity", FAIL, "; ".join(told) + ".", run("scrub"))
        else:
            self.add("integrity", PASS, f"Every namespace was scrubbed within {ago(max(ages.values()))}.")

    def fence(self, store: Store | None) -> None:
        if store is None:
            self.without("fence", store, "the store")
            return
        if "fence-writes" not in store.capabilities():
            says = "Nothing keeps applications from the records, so nothing can be isolated."
            hooked = "give the memory object quarantine and release (docs/python_memory.md)"
            following = hooked if "outside-fence" in store.capabilities() else "set memory_store.application_user"
            self.add("fence", FAIL, says, f"{following}, then {run('doctor')}")
            return
        with store.reader() as reader:
            states = sorted(reader.namespaces(), key=lambda state: (state.state != "quarantined", state.name))
            lost = [line for line in reader.structure() if "fence" in line]
        if lost:
            more = f" ({len(lost)} such remarks in all)" if len(lost) > 1 else ""
            says = f"The fence is not whole: {lost[0][:200].rstrip('.')}{more}."
            self.add("fence", FAIL, says, run("rebuild", memory_namespace=states[0].name) if states else run("prepare"))
            return
        stated: dict[str, None] = {}
        open_ones: dict[str, str] = {}  # namespace: why
        for state in states[:PROVEN]:
            proof = store.prove(state.name)
            stated.update(dict.fromkeys(map(str, proof["not_fenced"])))
            if state.state == "quarantined" and not (proof["writes_refused"] and proof["reads_refused"]):
                open_ones[state.name] = "; ".join(map(str, proof["detail"]))[:200]
        if open_ones:
            says = f"The fence around {namespaces([*open_ones])} does not hold: {[*open_ones.values()][0]}."
            following = "stop its application, then " + of_each("isolate", [*open_ones])
            self.add("fence", FAIL, says, following, urgent=True)
            return
        shut = [one for state in states[:PROVEN] if state.state == "serving" for one in left_fences(store, state.name)]
        if shut:
            self.add("fence", FAIL, shut[0].says, shut[0].next_step)
            return
        bypass = [line for line in stated if not _inherent(line)]
        if bypass:
            says = f"The fence can be bypassed: {'; '.join(bypass)[:300]}."
            mend = "correct memory_store.application_user and its rights"
            if "no ACL file" in bypass[0]:
                mend = "set aclfile in the server's configuration and restart it"
            self.add("fence", FAIL, says, f"{mend}, then {run('doctor')}")
        elif not states:
            self.add("fence", UNKNOWN, "There is no namespace to try the fence on.", "write a first memory")
        elif not store.identity().store_id:
            says = "Nothing was isolated or backed up here yet, so there is no fence to try."
            self.add("fence", NONE, says, run("backup"))
        else:
            told = f"; no engine of this kind fences {'; '.join(stated)}" if stated else ""
            self.add("fence", PASS, f"The fence is whole{told}.")

    def quarantine(self, store: Store | None) -> None:
        if store is None:
            self.without("quarantine", store, "the store")
            return
        standing = [state.name for state in _states(store) if state.state == "quarantined"]
        if standing:
            says = f"Quarantined: {namespaces(standing)}."
            self.add("quarantine", FAIL, says, of_each("rebuild", standing), urgent=True)
        else:
            self.add("quarantine", PASS, "No namespace is quarantined.")

    def lease(self, store: Store | None) -> None:
        if store is None:
            self.without("lease", store, "the store")
            return
        left = [one for one in store.incidents() if one.state == "open" and one.lease_until < self.now * 1e6]
        if left:
            one = left[0]
            says = f"{one.owner} left incident {one.incident} open; its lease ended at {rfc3339(one.lease_until)}."
            if len(left) > 1:
                whose = namespaces([each.namespace or "the whole store" for each in left])
                says += f" {len(left):,} incidents were left so: {whose}."
            following = run("rebuild", memory_namespace=one.namespace) if one.namespace else run("failback")
            self.add("lease", FAIL, says, following)
        else:
            self.add("lease", PASS, "No run left an incident or a lease behind.")

    # --- a copy ---------------------------------------------------------------------------------------------------
    def lag(self, store: Store | None, repository: t.Any) -> None:
        """A replica tells it of its server, another copy by the snapshots that it was filled from."""
        if store is None:
            self.without("lag", store, "the copy")
            return
        behind: float | None = None
        if "whole-store" in store.capabilities():
            server = open_server(own_store(self.store_params))
            try:
                standing = server.standing()
            finally:
                server.close()
            if standing.role == "replica":
                # The age of the newest change would grow while the primary has nothing to tell.
                silent, old = standing.silent_seconds, standing.behind_seconds
                behind = silent if standing.link else old or silent
                if behind is None:
                    self.add("lag", UNKNOWN, "The replica does not tell how far it is behind.", "look at its server")
                    return
        if behind is None:
            newest = max((info.id for info in repository.snapshots(self.name)), default="") if repository else ""
            times = [
                self.now - state.restored_at / 1e6
                for state in _states(store)
                if state.restored_at is not None and state.restored_snapshot != newest
            ]
            behind = max(times, default=0.0)
            if not any(state.restored_at is not None for state in _states(store)):
                self.add("lag", FAIL, "The copy was never filled.", run("backup"))
                return
        late = behind > 2 * self.limits.rpo
        says = f"The copy is {ago(max(0.0, behind))} behind; the RPO is {ago(self.limits.rpo)}."
        self.add("lag", FAIL if late else PASS, says, run("backup") if late else "")

    # --- the host -------------------------------------------------------------------------------------------------
    def clock(self, repository: t.Any) -> None:
        told = None
        before = time.time()
        if repository is not None:
            try:
                told = repository.objects.clock()
            except (RepositoryUnavailable, StoreUnavailable):
                told = None
        if told is not None:
            here = self.now + (before + time.time()) / 2 - self.began
            self.differences["the repository's"] = abs(here - told)
        self.checks.append(clock_check(self.limits.skew, self.differences))

    def space(
        self, keyring_params: t.Mapping[str, t.Any] | None, repository_params: t.Mapping[str, t.Any] | None
    ) -> None:
        path = self.store_params.get("path")
        url = str((repository_params or {}).get("url") or "")
        server = (self.store_params.get("server") or {}).get("data_directory")
        copies = url[7:] if url.startswith("file://") else None
        places = [path, self.folder, (keyring_params or {}).get("path"), server, copies]
        least: tuple[float, str, int] | None = None
        for one in filter(None, places):
            where = os.path.abspath(os.path.expanduser(str(one)))
            while not os.path.exists(where):
                where = os.path.dirname(where)
            disk = os.statvfs(where)
            share = disk.f_bavail / max(1, disk.f_blocks)
            if least is None or share < least[0]:
                least = (share, where, disk.f_bavail * disk.f_frsize)
        if least is None:
            self.add("space", UNKNOWN, "No place on this host is known.", "set memory_work_dir")
            return
        low = least[0] < self.limits.free
        free = f"{least[0]:.0%} ({least[2] >> 20} MiB)"
        says = f"Of the disk of {least[1]} {free} is free; the limit is {self.limits.free:.0%}."
        self.add("space", FAIL if low else PASS, says, f"df -h {least[1]}, and make room there" if low else "")


def _inherent(line: str) -> bool:
    if line.startswith(OWNERS):
        return not any(word in line for word in BEYOND)
    return line.startswith(INHERENT) or line.endswith("the operator's own")


def _rebuilt_since(store: Store, namespace: str, at: int) -> bool:
    """Whether a rebuild that passed its validation was released after this time (µs)."""
    return any(
        (one.facts.get("applied") or {}).get("complete")
        and (one.facts.get("validated") or {}).get("verdict") == PASS
        and (microseconds(one.facts.get("released_at")) or 0) > at
        for one in store.incidents(namespace)
    )


def _states(store: Store) -> list[NamespaceState]:
    with store.reader() as reader:
        return reader.namespaces()
