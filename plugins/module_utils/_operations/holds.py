# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep snapshots from being removed, let them go again, and bring back what retention put aside.

PRIVATE to the collection. A hold is written first and the manifest looked for afterwards, while retention puts the
manifest aside first and looks for holds afterwards: so whichever is later sees the other.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._errors import InvalidInput, SnapshotUnusable
from .._inputs import check_reason
from .._repository import Repository, holds
from .._repository.aside import bring_back, read_aside
from .._repository.catalogue import ids, listing, read_problem
from .._repository.manifest import SNAPSHOT_ID, folder, read_keys
from .._repository.objects import check_name

LIST = "list the snapshots with memops.agent_memory.info"
UNDELETED = "undeleted"  # the hold that keeps what was brought back from being removed at once


def hold(
    *,
    repository: Repository,
    keyring: t.Any,
    name: str,
    label: str,
    present: bool,
    by: str,
    reason: str = "",
    snapshots: t.Sequence[str] = (),
    of_incident: str | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Place the hold ``label`` on the named snapshots and on all of an incident, or lift it.

    A hold that stands already, for the same reason, is not placed again. One that is placed on a snapshot that waits
    for its removal brings it back. To lift without naming any snapshot lifts it wherever it stands.
    Returns {changed, hold, snapshots [ids that it was placed on or lifted from], back [ids], holds {id: [standing]}}.
    Errors: InvalidInput, SnapshotUnusable (there is none such), KeyUnavailable, RepositoryUnavailable.
    """
    check_name("store", name)
    holds.check_hold(label)
    check_reason(reason)
    if present and not reason:
        raise InvalidInput("A hold needs a reason.", "say why in memory_hold_reason")
    objects = repository.objects
    chosen = _chosen(repository, keyring, name, snapshots, of_incident, present)
    changed: list[str] = []
    back: list[str] = []
    after: dict[str, list[str]] = {}
    for one in chosen:
        before = {found["hold"]: found["reason"] for found in holds.standing(objects, name, one, keyring)}
        wanted = {**before, label: reason} if present else {k: v for k, v in before.items() if k != label}
        removed = bool(present and read_problem(objects, name, one))
        if wanted != before:
            changed.append(one)
            if not check:
                secret = read_keys(objects, name, one, keyring)[0]
                (holds.place if present else holds.lift)(objects, name, one, secret, label, by, reason)
        if present and check:
            back += [one] if removed else []
        elif present and read_problem(objects, name, one):
            back += bring_back(objects, name, one, keyring)
        after[one] = sorted(wanted)
    return {"changed": bool(changed or back), "hold": label, "snapshots": changed, "back": back, "holds": after}


def undelete(
    *,
    repository: Repository,
    keyring: t.Any,
    name: str,
    by: str,
    reason: str,
    snapshots: t.Sequence[str] = (),
    check: bool = False,
) -> dict[str, t.Any]:
    """Bring back what waits for its removal, all of it when no snapshot is named, and hold it.

    Where objects are locked, what somebody deleted or overwrote beside us comes back first, and needs no hold.
    Returns {changed, snapshots [ids that came back], uncovered [keys of objects], waiting [ids that wait for their
    removal afterwards]}. Errors: as ``hold``.
    """
    uncovered = _uncover(repository, check_name("store", name), [_known(one) for one in snapshots], check)
    if check and any(f"/{one}/" in key for key in uncovered for one in snapshots):
        snapshots = []  # they are not there before that is done
    waiting = [one for one, dummy in marked(repository, name)]
    for one in snapshots:
        if one not in waiting and read_problem(repository.objects, name, _known(one)):
            raise SnapshotUnusable(
                f"Snapshot {one} of {name} is not there, and does not wait for its removal either.",
                LIST,
            )
    wanted = [one for one in waiting if not snapshots or one in snapshots]
    back: list[str] = []
    if wanted:
        back = hold(
            repository=repository, keyring=keyring, name=name, label=UNDELETED, present=True, by=by, reason=reason,
            snapshots=wanted, check=check,
        )["back"]  # fmt: skip
    return {
        "changed": bool(back or uncovered),
        "snapshots": back,
        "uncovered": uncovered,
        "waiting": [one for one in waiting if one not in back],
    }


def _uncover(repository: Repository, name: str, snapshots: t.Sequence[str], check: bool) -> list[str]:
    """What a snapshot consists of, as it was first written. Its keys only when none is left: a former master key's
    object is hidden by whoever gives that master key up."""
    objects = repository.objects
    if objects.locks is None:
        return []

    def wanted(key: str) -> bool:
        where, _slash, child = key.rpartition("/")
        if child.endswith(".json") and where.endswith("/keys"):
            return not objects.children(where + "/")
        return child in ("manifest.json", "index") or child.endswith(".pack")

    places = [folder(name, one) for one in snapshots] or [f"snapshots/{name}/"]
    return [key for place in places for key in objects.locks.uncover(place, wanted, check)]


def marked(repository: Repository, name: str) -> list[tuple[str, float]]:
    """What waits for its removal, the last that was removed first: (id, when that was in seconds since 1970)."""
    objects = repository.objects
    there = ids(objects, check_name("store", name))

    def looked(one: str) -> tuple[str, float] | None:
        aside = read_aside(objects, name, one) if read_problem(objects, name, one) else None
        return None if aside is None else (one, aside.at)

    with ThreadPoolExecutor(min(8, max(1, len(there)))) as pool:
        found = [one for one in pool.map(looked, there) if one is not None]
    return sorted(found, key=lambda one: one[1], reverse=True)


def _chosen(
    repository: Repository,
    keyring: t.Any,
    name: str,
    snapshots: t.Sequence[str],
    of_incident: str | None,
    present: bool,
) -> list[str]:
    chosen = [_known(one) for one in snapshots]
    for one in chosen:
        if read_problem(repository.objects, name, one) and read_aside(repository.objects, name, one) is None:
            raise SnapshotUnusable(
                f"There is no snapshot {one} of {name} in {repository.location}.",
                LIST,
            )
    if of_incident:
        found = [info.id for info in listing(repository.objects, name, keyring) if info.incident == of_incident]
        if not found:
            raise SnapshotUnusable(
                f"No snapshot of {name} belongs to the incident {of_incident!r:.80}.",
                LIST,
            )
        chosen += found
    if not chosen:
        if present:
            raise InvalidInput("No snapshot is named.", "set memory_snapshot or memory_incident")
        chosen = ids(repository.objects, name)
    return list(dict.fromkeys(chosen))


def _known(snapshot_id: t.Any) -> str:
    if not isinstance(snapshot_id, str) or not SNAPSHOT_ID.match(snapshot_id):
        raise InvalidInput(f"{snapshot_id!r:.80} is no snapshot's id.", LIST)
    return snapshot_id
