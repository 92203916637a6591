# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a namespace whose control row is gone or does not lead to its records, on every engine. No I/O.

PRIVATE to the collection. Nothing is read or written by such a row: what it leads to would be no memory at all, or
another one's. Isolating the namespace mends it (``repair_structure``), and a rebuild begins with that.
"""
from __future__ import annotations

import json
import typing as t

from .._errors import NamespaceDamaged, StoreDamaged
from .._extra_vars import run

STATES: t.Final = ("serving", "quarantined", "standby", "reading")
GONE: t.Final = "is gone, its records are there"
AGAIN: t.Final = "made the control row of namespace {!r:.80} again; it is quarantined, as it may have been"


def elsewhere(generation: object) -> str:
    return f"names generation {generation!s:.40}, which it does not have"


def no_state(state: object) -> str:
    return f"has the state {state!r:.40}, which there is not"


def astray_why(state: str, prior: str | None, generation: object, own: bool) -> str | None:
    """What is wrong with a control row; None when it leads to the namespace's records. ``own``: whether the namespace
    has the generation."""
    if state not in STATES:
        return no_state(state)
    if state == "quarantined" and (prior not in STATES or prior == "quarantined"):
        return f"has lost the state from before its quarantine ({prior!r:.40} stands there)"
    return None if own else elsewhere(generation)


def row_line(name: str, why: str) -> str:
    return f"the control row of namespace {name!r:.80} {why}"


def astray(name: str, why: str) -> NamespaceDamaged:
    line = row_line(name, why)
    return NamespaceDamaged(f"{line[0].upper()}{line[1:]}.", _rebuild(name))


def incident_astray(name: str, incident: str) -> StoreDamaged:
    """Of the row of an incident, without which nobody knows what was done in it; no ``name``: of the whole store."""
    if not name:
        return StoreDamaged(
            f"The row of incident {incident:.80} of the whole store cannot be read: it may stand fenced.",
            "follow docs/dr_plan.md",
        )
    return NamespaceDamaged(
        f"The row of incident {incident:.80} of namespace {name!r:.80} cannot be read.", _rebuild(name)
    )


def facts_of(text: str) -> dict[str, t.Any] | None:
    """What an incident's row says was done; None when it cannot be read."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError):
        return None
    return found if found.__class__ is dict else None


def incident_unread(name: str, incident: str) -> str:
    return f"the row of incident {incident} of namespace {name!r:.80} cannot be read"


def incident_closed(name: str, incident: str) -> str:
    return f"closed incident {incident:.80} of namespace {name!r:.80}, whose row cannot be read"


def records_gone(name: str, generation: int) -> StoreDamaged:
    """Of an engine in which they can be gone as a whole."""
    return StoreDamaged(
        f"The records of namespace {name!r:.80} are gone (generation {generation}): the server dropped them, or "
        "another program deleted them.",
        _rebuild(name),
    )


def _rebuild(name: str) -> str:
    return run("rebuild", memory_namespace=name)
