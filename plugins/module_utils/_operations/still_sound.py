# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a namespace that passed a rebuild lately is as good as it was then.

PRIVATE to the collection. Changes nothing.
"""

from __future__ import annotations

import os
import tempfile
import typing as t

from .._errors import MemoryOpsError
from .._store import Reader, Store
from . import access_log_review, integrity, sources
from . import incident as incidents
from .commands import counted, named
from .plan_draft import Case, drafted_unlogged
from .plan_file import PlanFile
from .plan_unlogged import LACKING, NEEDED, UNSAID, Window


def passed_lately(store: Store, namespace: str, recent: float) -> t.Mapping[str, t.Any] | None:
    """The facts of the newest incident, if it passed at most ``recent`` seconds ago."""
    for state in store.incidents(namespace):
        passed = (state.facts.get("monitored") or {}).get("verdict") == "pass"
        late = incidents.now_us() - state.renewed >= recent * 1e6
        return state.facts if state.state == "closed" and passed and not late else None
    return None


def still_sound(
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    chosen: sources.Sources | None,
) -> tuple[bool, list[str]]:
    """Whether nothing was damaged since the last incident was closed, and what nobody can know of it, in words.

    Where a log tells who wrote, nobody wrote without the lock. Where none does, no record is other than in the newest
    of the ``chosen`` snapshots in a way that no application makes; where there is none to compare with, nobody knows.
    """
    if integrity.scan(store_params=store_params, keyring=keyring, namespace=namespace)["verdict"] != "pass":
        return False, []
    with store.reader() as reader:
        if reader.structure() or not reader.log_health()["intact"]:
            return False, []
        if "log" in store.capabilities():
            review = access_log_review.review(reader.log(namespace), settled=incidents.settled(store, namespace))
            return not review.unlocked, []
        draft, reasons = _against_snapshots(store, store_params, namespace, keyring, reader, chosen)
    if draft is None or any(reasons.get(one) for one in (*UNSAID, NEEDED, LACKING)):
        return False, []
    return True, _gone(draft)


def damaged_again(
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    chosen: sources.Sources | None,
    known: t.Mapping[str, t.Any],
) -> bool:
    """Whether it is certain that a namespace was damaged after the release in the incident of these facts. On doubt it
    is not, as it serves."""
    try:
        if integrity.scan(store_params=store_params, keyring=keyring, namespace=namespace)["verdict"] == "fail":
            return True
        with store.reader() as reader:
            if "log" in store.capabilities():
                judged = max(incidents.settled(store, namespace), int(known.get("fenced_sequence") or 0))
                return bool(access_log_review.review(reader.log(namespace), settled=judged).unlocked)
            reasons = _against_snapshots(store, store_params, namespace, keyring, reader, chosen)[1]
    except MemoryOpsError:
        return False
    deleted = (known.get("plan") or {}).get("absent") == "keep"
    return any(reasons.get(one) for one in (*UNSAID, *(() if deleted else (NEEDED,))))


def _against_snapshots(
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    reader: Reader,
    chosen: sources.Sources | None,
) -> tuple[dict[str, t.Any] | None, dict[str, int]]:
    """What a rebuild without a window would plan, and its reasons; None where nothing can be compared."""
    if chosen is None or not chosen.snapshots:
        return None, {}
    with incidents.own_files(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="memops-") as folder:
        case = Case(store, namespace, keyring, reader, chosen, None, os.path.join(folder, "plan.db"))
        try:
            draft, _probes = drafted_unlogged(case, store_params, Window())
        except MemoryOpsError:
            return None, {}
        with PlanFile.open(draft["plan_file"]) as planned:
            return draft, planned.reasons()


def _gone(draft: t.Mapping[str, t.Any]) -> list[str]:
    """An application may delete what it likes, so that what is gone is no damage by itself."""
    absent = draft["records"]["absent"]
    if not absent:
        return []
    keys = named([key for key, back, _at in draft["gone"] if not back])
    return [
        f"{counted(absent, 'key')} of the last good snapshot {'is' if absent == 1 else 'are'} not there any more "
        f"(deleted or lost, nobody knows): {keys}. This namespace passed lately, so this run brings none of them back; "
        "memory_absent=restore with memory_force=true does."
    ]
