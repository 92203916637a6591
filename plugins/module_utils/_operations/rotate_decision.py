# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which record key a rotation goes to: that of one under way, a new one, or the active one.

PRIVATE to the collection. Writes nothing.
"""

from __future__ import annotations

import time
import typing as t

from .._store import Store


class Decision:
    """Which key, and whether it must still be made."""

    def __init__(self, target: str | None, former: str, resumed: bool) -> None:
        self.target = target  # None: to be created
        self.former = former
        self.resumed = resumed
        self.created = False


def decide(
    store: Store,
    ring: t.Any,
    names: t.Sequence[str],
    incident: str | None,
    attempt: str | None,
    new_key: bool,
    min_age: float,
    force: bool,
) -> Decision:
    active = ring.active_id
    for name in names:
        for state in store.incidents(name):
            note = state.facts.get("rotation")
            if not note or (state.incident != incident if incident else state.state != "open"):
                continue
            target = note.get("to")
            if target is None and not note.get("done"):  # killed between the intent and the note of the new key
                made = [key_id for key_id in ring.ids() if key_id not in note.get("known", [])]
                target = made[-1] if made else None
                if target is None:
                    continue
            if target not in ring.ids():
                continue
            if note.get("done"):
                if target == active and (not force or note.get("attempt") == attempt):
                    return Decision(active, note.get("from") or active, False)
            elif target != active and _age(ring, active) < _age(ring, target):
                return Decision(active, note.get("from") or active, True)  # a later rotation made a newer key
            else:
                return Decision(target, note.get("from") or active, True)
    if new_key and (force or _age(ring, active) >= min_age):
        return Decision(None, active, False)
    return Decision(active, active, False)


def _age(ring: t.Any, key_id: str) -> float:
    created = ring.created(key_id)
    return float("inf") if created is None else time.time() - created / 1e6
