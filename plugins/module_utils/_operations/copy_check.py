# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a replica's copy of the memories verifies: read only, and noted beside it, so that a failover need not wait.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed
from . import integrity
from .commands import run
from .incident import folder, now_us, own_files, write_note
from .replicas import Side, age, at

NOTES: t.Final = "verified.json"


def check_copy(
    side: Side,
    namespaces: t.Sequence[str] | None,
    open_keyring: t.Callable[[], t.Any],
    *,
    fresh: float,
    work_dir: str | None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Scan every namespace of this copy that is not quarantined (or the named ones), unless it passed within ``fresh``
    seconds. Returns {verified_at (of the oldest), scanned [names], namespaces [names]}.

    Errors: CannotProceed that names the first copy that does not verify (replicated damage is no rescue).
    """
    with side.store.reader() as reader:
        there = {state.name: state for state in reader.namespaces()}
        identity = reader.identity
    for name in namespaces or ():
        if name not in there:
            raise CannotProceed(f"The copy on {side.host} has no namespace {name}.", "name one that it has")
    wanted = sorted(namespaces or [n for n, state in there.items() if state.state != "quarantined"])
    path = os.path.join(folder(side.params, "replica", work_dir), NOTES)
    notes = _read(path) if os.path.exists(path) else {}
    known = notes.get("namespaces", {}) if notes.get("store_id") == identity.store_id else {}
    scanned: list[str] = []

    def keep() -> None:
        if scanned and not check:
            kept = {n: k for n, k in known.items() if n in there}
            write_note(path, {"store_id": identity.store_id, "namespaces": kept})

    for name in wanted:
        since = age(known.get(name, {}).get("at"))
        if since is not None and 0 <= since <= fresh and known[name].get("generation") == there[name].generation:
            continue
        begun = now_us()
        verdict = integrity.scan(
            store_params=side.params, keyring=open_keyring(), namespace=name, structure=not scanned
        )
        if verdict["verdict"] != "pass":
            keep()
            why = "; ".join(map(str, verdict["reasons"])) or f"findings {dict(verdict['findings'])}"
            raise CannotProceed(
                f"The copy of {name} on {side.host} does not verify ({verdict['verdict']}: {why[:300]}): damage was "
                "replicated, and a failover would not help.",
                "rebuild it: " + run("rebuild", memory_namespace=name),
            )
        known[name] = {"at": begun, "generation": there[name].generation}
        scanned.append(name)
    keep()
    oldest = min((known[name]["at"] for name in wanted), default=None)
    return {"verified_at": oldest, "scanned": scanned, "namespaces": wanted}


def verify(
    side: Side,
    namespaces: t.Sequence[str] | None,
    open_keyring: t.Callable[[], t.Any],
    *,
    fresh: float,
    work_dir: str | None,
    check: bool = False,
) -> dict[str, t.Any]:
    """check_copy for its own sake, of a server that is a replica. Errors: CannotProceed."""
    if side.standing().role != "replica":
        said = f"{side.host} is no replica now, so its copy was not looked at"
        nothing: dict[str, t.Any] = {"scanned": [], "namespaces": [], "verified_at": None, "incident": None}
        return {**nothing, "changed": False, "detail": said}
    found = check_copy(side, namespaces, open_keyring, fresh=fresh, work_dir=work_dir, check=check)
    scanned = found["scanned"]
    return {
        **found,
        "changed": bool(scanned),
        "verified_at": at(found["verified_at"]),
        "incident": None,
        "detail": f"copies that passed: {', '.join(scanned)}" if scanned else "all copies passed lately",
    }


def _read(path: str) -> dict[str, t.Any]:
    """What is no note of ours counts as none."""
    try:
        with own_files(os.path.dirname(path)), open(path, encoding="utf-8") as file:
            found = json.load(file)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
