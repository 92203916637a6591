# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The control row of a namespace in Valkey as a mapping: whether it can be believed, and what of it if not.

PRIVATE to the collection. The server knows no types for it, and another program may have changed any part. Which
generations a namespace has stands twice: in its row, and in a hash beside, by which a row that is gone is known.
"""
from __future__ import annotations

import json
import typing as t

from .control_rows import STATES, elsewhere, no_state

DAMAGED: t.Final = "is damaged"
NOTED: t.Final = "noted"  # in the row: what stands in the hash beside
_NUMBERS: t.Final = ("lock_number", "changed", "largest")
_SECONDS: t.Final = ("ttl", "serving_ttl", "prior_ttl")
_TEXTS: t.Final = ("incident", "prior_state", "restored_snapshot", "restored_digest", "lock_actor")
_MAYBE: t.Final = (
    "restored_epoch", "restored_sequence", "restored_at", "lock_held", "lock_since", "lock_until"
)  # fmt: skip
_KINDS: t.Final[dict[str, tuple[type, ...]]] = {
    "state": (str,), "generation": (int,), "generations": (list,), "expiring": (bool,),
    **dict.fromkeys(_NUMBERS, (int,)),
    **dict.fromkeys(_SECONDS, (int, float, type(None))),
    **dict.fromkeys(_TEXTS, (str, type(None))),
    **dict.fromkeys(_MAYBE, (int, type(None))),
}  # fmt: skip


def wrong(space: t.Any) -> str | None:
    """What is wrong with a row; None when it leads to the namespace's records."""
    if space.__class__ is not dict:
        return DAMAGED
    for name, kinds in _KINDS.items():
        if name not in space or space[name].__class__ not in kinds:
            return DAMAGED
    generation, generations = space["generation"], space["generations"]
    if any(one.__class__ is not int or one < 1 for one in (generation, *generations)):
        return DAMAGED
    if space["state"] not in STATES:
        return no_state(space["state"])
    if space["state"] == "quarantined" and space["prior_state"] not in ("serving", "standby", "reading"):
        return f"has lost the state from before its quarantine ({space['prior_state']!r:.40} stands there)"
    if generation not in generations or space.get(NOTED, mark(space)) != mark(space):
        return elsewhere(generation)
    return None


def mark(space: t.Mapping[str, t.Any]) -> list[int]:
    """The active generation and all of them."""
    return [space["generation"], *space["generations"]]


def noted(name: str, space: dict[str, t.Any]) -> tuple[str, ...]:
    """What the hash beside is to say of a row that is being saved; nothing where it says that already."""
    if space.get(NOTED) == mark(space):
        return ()
    space[NOTED] = mark(space)
    return name, json.dumps(space[NOTED])


def known(raw: bytes | None) -> list[int]:
    """``mark`` of what the hash beside says; nothing where that is damaged, too."""
    try:
        found = json.loads(raw or b"[]")
    except ValueError:
        return []
    sound = found.__class__ is list and all(one.__class__ is int and one > 0 for one in found)
    return found if sound and len(found) > 1 else []


def loaded(raw: bytes | None) -> t.Any:
    """A row as it lies there; None for what is none."""
    try:
        return json.loads(raw or b"null")
    except ValueError:
        return None


def salvaged(former: t.Any, fresh: t.Mapping[str, t.Any]) -> tuple[dict[str, t.Any], bool]:
    """(``fresh`` with all that a damaged row still says in the right form, whether its state is not known)."""
    kept = dict(fresh)
    for name, kinds in _KINDS.items():
        if former.__class__ is dict and name in former and former[name].__class__ in kinds:
            kept[name] = former[name]
    for name in ("moving", "changing"):  # what of another application's keys is under way
        if former.__class__ is dict and former.get(name).__class__ is dict:
            kept[name] = former[name]
    stands = former.__class__ is dict and "state" in former
    doubted = not stands or wrong({**kept, "generation": 1, "generations": [1], NOTED: [1, 1]}) is not None
    if doubted:
        kept.update({name: fresh[name] for name in ("state", "serving_ttl", "prior_state", "prior_ttl")})
    return kept, doubted
