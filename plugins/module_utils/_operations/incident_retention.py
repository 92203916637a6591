# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How long what an incident left behind is kept: rows that were set aside, its folder, the keys that its facts name.

PRIVATE to the collection. Nobody works in a closed incident any more, so nobody needs its rows, but for records that
are isolated still. Later incidents ask up to where a former one judged, which copy served in which epoch, and when a
watch passed: those facts stay. The evidence in the repository is not touched here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from .._errors import MemoryOpsError
from .._model import AsideRows, IncidentState
from .._repository import Repository
from .._repository.holds import standing
from .._store import WHOLE, Store
from . import held_records
from .former_repository import FOLDER
from .incident import LEASE_SECONDS, Run, base, new_incident_id, now_us, own_files, rfc3339
from .retention_note import Note

DROPPED: t.Final = "dropped_at"  # the fact of an incident whose rows and files went
PREFIX: t.Final = "retention-"  # of incidents that are opened to drop a generation, and go with the run
#: What was set aside in no incident: by the repair of an engine's structure, and what can no longer be read.
NOBODYS: t.Final = ("structure", "damaged")
AT_ONCE: t.Final = 500  # incidents
OTHER_FOLDERS: t.Final = frozenset((FOLDER, "replica"))
#: Facts that name no record. Those of the whole store stay all.
KEPT: t.Final = frozenset((
    "baseline_snapshot", "fenced_at", "fenced_epoch", "fenced_sequence", "first_write_at", "fitness", "forensic",
    "loss_accepted", "mirrored", "monitored", "own_rotation", "plan", "promoted_epoch", "reading", "released_at",
    "released_by_force", "released_sequence", "rotation", "started_at", "state_before", "undone",
))  # fmt: skip


def apply(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    repository: Repository | None,
    keyring: t.Any,
    name: str,
    keep: float | None,
    run: Run,
    now: float | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Drop what incidents left that were closed more than ``keep`` seconds ago; None: it stays for good.

    Nothing of a namespace goes while it, or the whole store, has an open incident or a quarantine, nor of an incident
    whose isolated records are not all back or that is held in the repository. One look a day is enough, or each
    thirtieth of ``keep``. ``repository`` None: it cannot be asked.

    Returns {"changed", "incidents": [ids of which all went], "set_aside": rows that went (in check mode: would go),
    "incidents_kept": {id: why it stays though it is old}}. Errors: StoreUnavailable.
    """
    nothing: dict[str, t.Any] = {"changed": False, "incidents": [], "set_aside": 0, "incidents_kept": {}}
    identity, now = store.identity(), time.time() if now is None else now
    if keep is None or not identity.store_id:  # without an id nobody ever changed anything there
        return nothing
    note = Note(store_params, name, run.work_dir, identity.store_id, "incident_retention")
    if note.fresh(now, keep):
        return nothing
    work = _Retention(store, store_params, run, int((now - keep) * 1e6), check)
    result = {**nothing, **work.run(lambda ids: held_in(repository, keyring, name, ids))}
    if not check:
        note.keep(now)
    return result


class _Retention:
    """One look at all incidents of a store."""

    def __init__(
        self, store: Store, store_params: t.Mapping[str, t.Any], run: Run, before: int, check: bool
    ) -> None:
        self.store, self.who, self.before, self.check = store, run, before, check
        self.folder = run.work_dir or base(store_params)
        self.kept: dict[str, str] = {}
        self.set_aside = 0

    def run(self, held: t.Callable[[t.Collection[str]], dict[str, str]]) -> dict[str, t.Any]:
        self._end_left_open()
        states = self.store.incidents()
        with self.store.reader() as reader:
            spaces = {space.name: space for space in reader.namespaces()}
        busy = {one.namespace: f"{_of(one.namespace)} has the open incident {one.incident}" for one in reversed(states)
                if one.state == "open"}  # fmt: skip
        for space in spaces.values():
            if space.state == "quarantined":
                busy.setdefault(space.name, f"{_of(space.name)} is quarantined")
        out = held_records.outstanding_of(states)  # a group's name is of its own in all namespaces
        by_id: dict[str, list[IncidentState]] = {}
        for one in reversed(states):  # oldest first: whoever isolated goes before whoever released
            by_id.setdefault(one.incident, []).append(one)
        folders = self._folders()
        switch = next((one.incident for one in states if one.namespace == WHOLE), None)  # may not be home yet
        old: dict[str, list[IncidentState]] = {}
        for incident, ones in by_id.items():
            left = [one for one in ones if DROPPED not in one.facts]
            due = all(one.state == "closed" and one.lease_until < self.before for one in ones)
            # of another host of the same store the folder may be left
            if due and incident != switch and (left or incident in folders):
                why = next(filter(None, (self._why(one, busy, out) for one in ones)), None)
                if why:
                    self.kept[incident] = why
                else:
                    old[incident] = left
        self.kept.update(held(old) if old else {})
        old = {incident: ones for incident, ones in old.items() if incident not in self.kept}
        free = set(spaces) - set(busy) if WHOLE not in busy else set()
        self._drop_rows(old, free if busy else {*free, ""}, out)  # a row may belong to no namespace, too
        if not self.check:
            self._drop_generations(old, {space.name: space.generation for space in spaces.values()})
            self._drop_facts(old, states)
        gone = [incident for incident in old if incident not in self.kept]
        changed = bool(gone or self.set_aside)
        return {"changed": changed, "incidents": gone, "set_aside": self.set_aside, "incidents_kept": self.kept}

    def _why(
        self, one: IncidentState, busy: t.Mapping[str, str], out: t.AbstractSet[str]
    ) -> str | None:
        if set(one.facts.get("held") or {}) & out:
            return "records that were isolated in it are not back"
        return busy.get(one.namespace) or busy.get(WHOLE)

    def _drop_rows(
        self,
        old: t.Mapping[str, t.Sequence[IncidentState]],
        spaces: t.AbstractSet[str],
        out: t.AbstractSet[str],
    ) -> None:
        ids: dict[str, list[str]] = {space: list(NOBODYS) for space in sorted(spaces)}
        for incident, ones in old.items():
            for one in ones:
                if one.namespace != WHOLE:
                    ids.setdefault(one.namespace, []).append(incident)
        reasons = [held_records.REASON + group for group in sorted(out)]
        for namespace, names in ids.items():
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                which = AsideRows(namespace, some, self.before, reasons)
                self.set_aside += self.store.drop_aside(which, self.check)

    # --- former generations -------------------------------------------------------------------------------------
    def _drop_generations(
        self, old: t.Mapping[str, t.Sequence[IncidentState]], active: t.Mapping[str, int]
    ) -> None:
        """Those that a rebuild left which was never watched to a good end."""
        for incident, ones in old.items():
            for one in ones:
                named = {one.facts[fact] for fact in ("switched_from", "switched_to", "building") if fact in one.facts}
                if one.namespace not in active or not named:
                    continue
                left = named & (set(self.store.generations(one.namespace)) - {active[one.namespace]})
                if left:
                    try:
                        self._drop(one.namespace, sorted(left))
                    except MemoryOpsError as exc:  # somebody began to work there: another time
                        self.kept[incident] = f"its former generation could not be dropped: {exc.message}"

    def _drop(self, namespace: str, generations: t.Sequence[int]) -> None:
        name = PREFIX + new_incident_id()[len("inc-") :]
        claim = self.store.claim(
            namespace, self.who.attempt, self.who.owner, incident=name, new_incident=name, lease=LEASE_SECONDS
        )
        try:
            for generation in generations:
                self.store.drop_generation(claim, generation)
        except BaseException:
            with contextlib.suppress(MemoryOpsError):
                self.store.end_lease(claim)
            raise
        self.store.close_incident(claim)
        self.store.keep_facts(namespace, name, None)

    def _end_left_open(self) -> None:
        """A run that was killed left its own incident."""
        for one in () if self.check else self.store.incidents():
            if one.incident.startswith(PREFIX) and not one.facts:
                if one.state == "open":
                    with contextlib.suppress(MemoryOpsError):  # it is not dead yet
                        claim = self.store.claim(
                            one.namespace, self.who.attempt, self.who.owner, incident=one.incident,
                            new_incident=one.incident, takeover=self.who.takeover, lease=LEASE_SECONDS,
                        )  # fmt: skip
                        self.store.close_incident(claim)
                        self.store.keep_facts(one.namespace, one.incident, None)
                else:
                    self.store.keep_facts(one.namespace, one.incident, None)

    # --- files and facts ----------------------------------------------------------------------------------------
    def _drop_facts(
        self, old: t.Mapping[str, t.Sequence[IncidentState]], states: t.Sequence[IncidentState]
    ) -> None:
        """Last, since they say that the rest went."""
        going = {incident for incident in old if incident not in self.kept}
        named = {group for one in states if one.incident not in going for group in one.facts.get("held") or {}}
        for incident in [one for one in old if one in going]:
            self._drop_folder(incident)
            for one in old[incident]:
                facts = dict(one.facts) if one.namespace == WHOLE else _left(one.facts, named)
                self.store.keep_facts(
                    one.namespace, incident, {**facts, DROPPED: rfc3339(now_us())} if facts else None
                )

    def _folders(self) -> frozenset[str]:
        """Names of what lies where the folders of incidents do. Errors: StoreUnavailable."""
        with own_files(self.folder):
            there = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        return frozenset(there) - OTHER_FOLDERS

    def _drop_folder(self, incident: str) -> None:
        """Errors: StoreUnavailable."""
        if incident in self._folders():  # so it is a plain name, whatever the store says
            path = os.path.join(self.folder, incident)
            with own_files(path):
                shutil.rmtree(path)


def _left(facts: t.Mapping[str, t.Any], named: t.AbstractSet[str]) -> dict[str, t.Any]:
    """The facts that name no record, and that a group of isolated records is back as long as one says that it went."""
    left = {name: value for name, value in facts.items() if name in KEPT}
    applied, validated = facts.get("applied"), facts.get("validated")
    if applied:
        method = (applied.get("result") or {}).get("method")
        left["applied"] = {"complete": applied.get("complete"), "result": {"method": method}}
    if validated:
        left["validated"] = {"verdict": validated.get("verdict")}
    back = [group for group in facts.get("held_back") or [] if group in named]
    return {**left, "held_back": back} if back else left


def _of(namespace: str) -> str:
    return f"namespace {namespace!r:.80}" if namespace else "the whole store"


def held_in(
    repository: Repository | None, keyring: t.Any, name: str, incidents: t.Collection[str]
) -> dict[str, str]:
    """Why which of these incidents must stay for what the repository says of them."""
    if repository is None:
        return dict.fromkeys(incidents, "there is no repository that could say whether it is held")
    found: dict[str, str] = {}
    try:
        for info in repository.snapshots(name, keyring):
            if info.problem is None and info.incident not in incidents:
                continue
            for hold in standing(repository.objects, name, info.id, keyring):
                if info.problem is not None:  # nobody can tell of which incident it is
                    why = f"snapshot {info.id} is held by {hold['hold']} and cannot be read"
                    found = {**dict.fromkeys(incidents, why), **found}
                else:
                    found[str(info.incident)] = f"its snapshot {info.id} is held by {hold['hold']}"
    except MemoryOpsError as exc:
        return dict.fromkeys(incidents, f"the repository cannot say whether it is held: {exc.message}")
    return found


def dropped(store: Store, namespace: str, incident: str | None = None) -> IncidentState | None:
    """The newest rebuild of the namespace, or the named one, if nothing is left of it to go back to."""
    for one in store.incidents(namespace):
        if one.facts.get("applied") if incident is None else one.incident == incident:
            return one if DROPPED in one.facts else None
    return None
