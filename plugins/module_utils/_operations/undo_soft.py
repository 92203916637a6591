# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Take a soft rebuild back: each record that it replaced becomes again what it was, from the row that lies aside.

PRIVATE to the collection. What the rebuild marked as deleted, since nobody had a good copy, stays so: the log says that
it was deleted, and a row that came back would be older than the log's newest entry of its key. So does what is too
damaged to be written: its former row stays aside.
"""

from __future__ import annotations

import os
import typing as t

from .._errors import CannotProceed
from .._model import CHECKSUM, Change, Claim
from .._store import Reader, Store
from . import incident as incidents
from .commands import counted
from .held_records import plausible
from .incident import Run
from .plan_file import Entry, PlanFile

LISTED: t.Final = 100


class Undone(t.NamedTuple):
    """How many records are what they were, were taken away again, and stay as the rebuild left them (with their first
    keys)."""

    back: int
    removed: int
    left: int
    left_keys: list[str]

    def result(self, incident: str) -> dict[str, t.Any]:
        return {
            "changed": True,  # the incident's plan counts as not carried out from now on
            "incident": incident,
            "records": {"back": self.back, "removed": self.removed, "left": self.left},
            "left_keys": self.left_keys,
        }


def applied_soft(known: t.Mapping[str, t.Any]) -> t.Any:
    """What the soft rebuild that stands (or is being undone) came to; None when there is none."""
    applied = known.get("undoing") or known.get("applied") or {}
    return applied if applied.get("complete") and applied["result"].get("method") == "soft" else None


def undo_soft(
    store: Store, store_params: t.Mapping[str, t.Any], claim: Claim | None, incident: str, namespace: str, run: Run
) -> dict[str, t.Any]:
    """``claim`` None: only look. Errors: CannotProceed when the plan is gone."""
    folder = incidents.folder(store_params, incident, run.work_dir)
    tombstones = "tombstones" in store.capabilities()
    back = removed = 0
    left: list[str] = []
    identity = store.identity()
    newest = (identity.epoch, identity.sequence)
    with incidents.own_files(folder), PlanFile.open(os.path.join(folder, "plan.db"), namespace) as planned:
        if claim is not None:
            known = store.incident(claim).facts
            store.note(claim, undoing=applied_soft(known), applied=None, validated=None)
        with store.reader() as reader:
            for batch in reader.aside(namespace, incident):
                entries = {entry.key: entry for entry in planned.get([row[0] for _incident, _reason, row in batch])}
                rows = {
                    row[0]: row for _incident, reason, row in batch if _replaced(entries.get(row[0]), reason, row)
                }
                stay = {
                    key
                    for key, row in rows.items()
                    if (tombstones and entries[key].buried) or not plausible(row, newest)
                }
                left += stay
                wanted = {key: row for key, row in rows.items() if key not in stay}
                back += _change(store, claim, namespace, wanted)
        for added in planned.entries():
            gone = [entry.key for entry in added if entry.expected is None and entry.source is not None]
            removed += _change(store, claim, namespace, dict.fromkeys(gone))
    if claim is not None:
        store.note(claim, undoing=None, undone="soft")
        store.settle()
    return Undone(back, removed, len(left), sorted(left)[:LISTED]).result(incident)


def _replaced(entry: Entry | None, reason: str, row: t.Sequence[t.Any]) -> bool:
    """Whether this is the row that the plan replaced, and not one of the same key that somebody isolated."""
    return entry is not None and row[CHECKSUM] == entry.expected and reason == f"{entry.action}: {entry.reason}"


def _change(store: Store, claim: Claim | None, namespace: str, wanted: t.Mapping[str, t.Any]) -> int:
    """Make the records these rows (None: none), against what lies there now. How many were other before.

    Errors: CannotProceed when one changes meanwhile.
    """
    if not wanted:
        return 0
    with store.reader() as reader:
        live = _live(reader, namespace, list(wanted))
    changes = [
        Change(key, live[key][CHECKSUM] if key in live else None, row)
        for key, row in wanted.items()
        if live.get(key) != (None if row is None else tuple(row))
    ]
    if claim is not None and changes:
        refused = store.change(claim, changes)
        if refused:
            raise CannotProceed(
                f"{counted(len(refused), 'record')} of {namespace} changed meanwhile.",
                "check that nothing writes to the store, then run the same command again",
            )
    return len(changes)


def _live(reader: Reader, namespace: str, keys: t.Sequence[str]) -> dict[str, tuple[t.Any, ...]]:
    return {key: tuple(row) for key, row in reader.get_many(namespace, keys).items()}
