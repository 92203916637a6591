# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring single records back into service, as they were when isolate_records.py took them out.

PRIVATE to the collection.
"""

from __future__ import annotations

import time
import typing as t

from .._errors import CannotProceed
from .._model import CHECKSUM, EXPIRES, KEY, UPDATED, Change, Claim, Row, is_isolated
from .._store import Store
from .._store_optional import need_primary
from . import incident as incidents
from .held_records import (
    BATCH,
    LISTED,
    ROUNDS,
    aside_of,
    chosen_rows,
    claimed,
    closing,
    end_left_open,
    home,
    log,
    outstanding,
    renew,
    some,
    told,
)  # fmt: skip
from .incident import Journal, Run, now_us
from .isolate_choice import Choice


def release_records(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    choice: Choice | None,
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Bring isolated records back as they were; ``choice`` None: all of them.

    A record that an application wrote anew meanwhile is not touched: its key is a conflict, and the isolated row stays
    aside. Returns {incident, changed, released, conflicts, conflict_keys, record_keys (the first 100), detail, before,
    after}.
    Errors: InvalidInput (nothing is chosen by it), CannotProceed (a standby copy), NamespaceUnknown, LeaseHeld,
    StoreUnavailable (a replica).
    """
    need_primary(store)
    try:
        state = home(store, namespace)
    except CannotProceed:
        if choice is not None:
            raise
        return _Back(store, namespace, None, frozenset()).result(None, "standby", check)
    stays = state.state if choice else "serving"  # without a choice the caller lifts a quarantine
    groups = outstanding(store, namespace)
    back = _Back(store, namespace, choice, groups)
    back.run()
    if choice is not None:
        _refuse_unknown(store, namespace, choice, back)
    if check or not (back.count or (choice is None and groups)):
        if not check:
            end_left_open(store, namespace, run)
        return back.result(None, stays, check)
    claim = claimed(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with closing(store, claim), journal.step("reinstate", run, records=back.count) as outcome:
        if back.count:
            log(store, claim, run, "reinstate", choice.told() if choice else "all isolated records")
        back = _Back(store, namespace, choice, groups, claim)
        back.run()
        if choice is None:  # what is not back now never will be: it has a newer record in its place
            done = list(store.incident(claim).facts.get("held_back") or [])
            store.note(claim, held_back=[*done, *sorted(groups)])
        outcome.update(released=back.count, conflicts=len(back.conflicts))
    return back.result(claim.incident, stays, check)


def isolated(store: Store, namespace: str) -> int:
    """How many records are out of service now."""
    back = _Back(store, namespace, None, outstanding(store, namespace))
    back.run()
    return back.count


class _Back:
    """Goes through the rows that lie aside; with ``claim`` it puts back what can be, else it counts."""

    def __init__(
        self, store: Store, namespace: str, choice: Choice | None, groups: frozenset[str], claim: Claim | None = None
    ) -> None:
        self._store, self._namespace, self._choice, self._groups = store, namespace, choice, groups
        self._claim, self._renewed = claim, time.monotonic()
        self._versioned = "sequence" in store.capabilities()
        self.count = self.seen = 0
        self.named: set[str] = set()  # of the keys of the choice, those that were isolated
        self.keys: list[str] = []
        self.conflicts: list[str] = []
        self._conflicts = 0

    def run(self) -> None:
        with self._store.reader() as reader:
            for rows in aside_of(reader, self._namespace, self._groups):
                if self._choice is not None:
                    rows = [row for row in rows if self._choice.takes(row)]
                    self.named |= self._choice.keys & {row[KEY] for row in rows}
                for start in range(0, len(rows), BATCH):
                    self._part(rows[start : start + BATCH])

    def _part(self, rows: t.Sequence[Row]) -> None:
        self.seen += len(rows)
        for _round in range(ROUNDS):
            with self._store.reader() as reader:
                live = reader.get_many(self._namespace, [row[KEY] for row in rows])
            todo: dict[str, tuple[Row, Row | None]] = {}
            for row in rows:
                there = live.get(row[KEY])
                if _stands_for(there, row):
                    todo[row[KEY]] = (row, there)  # of two copies of one version the later one was the live one
                elif there is not None and (
                    there[: UPDATED + 1] != row[: UPDATED + 1]
                    or (not self._versioned and there[CHECKSUM] != row[CHECKSUM])
                ):
                    self._conflict(row[KEY])
            refused: set[str] = set()
            if self._claim is not None and todo:
                changes = [
                    Change(key, None if there is None else there[CHECKSUM], row) for key, (row, there) in todo.items()
                ]
                refused = set(self._store.change(self._claim, changes))
                self._renewed = renew(self._store, self._claim, self._renewed)
            self.count += len(todo) - len(refused)
            done = [key for key in todo if key not in refused]
            self.keys += done[: LISTED - len(self.keys)]
            rows = [row for row in rows if row[KEY] in refused]
            if not rows:
                return
        for row in rows:
            self._conflict(row[KEY])

    def _conflict(self, key: str) -> None:
        self._conflicts += 1
        if len(self.conflicts) < 10 * LISTED:
            self.conflicts.append(key)

    def result(self, incident: str | None, state: str, check: bool) -> dict[str, t.Any]:
        detail = told(self.count, "would come" if check else "came", "back", state)
        warnings = []
        if self._conflicts:
            warnings.append(
                f"{self._conflicts} isolated records of {self._namespace} stay aside, since newer ones were written "
                f"under their keys ({some(self.conflicts)})."
            )
        return {
            "incident": incident, "changed": bool(self.count), "released": self.count, "conflicts": self._conflicts,
            "conflict_keys": self.conflicts, "record_keys": self.keys, "detail": detail, "warnings": warnings,
            "before": {"isolated": self.keys}, "after": {"isolated": []},
        }  # fmt: skip


def _stands_for(there: Row | None, row: Row) -> bool:
    """Whether ``there`` is what the isolation of ``row`` left: its tombstone, or nothing where a rebuild took that."""
    if there is None:
        return not _over(row)
    return is_isolated(there) and there[: UPDATED + 1] == row[: UPDATED + 1]


def _over(row: Row) -> bool:
    return row[EXPIRES] is not None and row[EXPIRES] <= now_us()


def _refuse_unknown(store: Store, namespace: str, choice: Choice, back: _Back) -> None:
    """Errors: InvalidInput when the choice names what is neither isolated nor in service."""
    named = set(back.named)
    found = bool(back.seen)
    missing = Choice(choice.keys - named, None, None, None)
    for rows, odd in chosen_rows(store, namespace, missing if found or not choice.wide else choice):
        found = found or bool(rows)
        named |= choice.keys & {*(row[KEY] for row in rows), *odd}
        if found and choice.wide:
            return
    unknown = sorted(choice.keys - named)
    if not found or (unknown and not choice.wide):
        raise choice.nothing(namespace, unknown, "record")
