# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan does where a store holds what cannot be read as any record: a line of a file that is cut, or has a hole.

PRIVATE to the collection. Nobody knows how many records are in it, so those that are absent are taken for damaged. (A
snapshot that was taken since does not have them either; it is a suspect one, and no source.)
"""
from __future__ import annotations

from .plan_file import PlanFile

RESERVED = "\0memops/"  # keys of the collection's own
ABSENT = "absent"
TORN = "absent since the snapshot, and there is what cannot be read"
UNREAD = "cannot be read as any record; one of those that come back"
SPARE = "what is left of a record that is there"


def come_back(draft: PlanFile, unread: str) -> int:
    """Plan for what cannot be read (its keys begin with ``unread``). How many records that are absent are repaired; so
    many of what cannot be read are not lost."""
    torn = False
    for entries in draft.entries("lost"):
        mine = [entry for entry in entries if entry.key.startswith(unread)]
        spare = [entry for entry in mine if "/" in entry.key[len(unread) :]]
        draft.add(entry._replace(action="suspect", reason=SPARE) for entry in spare)
        # made anew: no memory is lost with it
        draft.add(entry._replace(action="expired") for entry in entries if entry.key.startswith(RESERVED))
        torn = torn or len(mine) > len(spare)
    if not torn:
        return 0
    back = 0
    for entries in draft.entries(ABSENT):
        draft.add(entry._replace(action="repair", reason=TORN) for entry in entries)
        back += len(entries)
    left = back
    for entries in draft.entries("lost"):
        mine = [entry for entry in entries if entry.key.startswith(unread)][:left]
        draft.add(entry._replace(action="suspect", reason=UNREAD) for entry in mine)
        left -= len(mine)
    return back
