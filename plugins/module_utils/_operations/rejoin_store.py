# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Make a former primary a replica of the one that took over, after what only it has was told, to the record.

PRIVATE to the collection. It runs on the former primary's host.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed, StoreUnavailable
from .._model import IncidentState, LogEntry
from .._replication import Standing
from .._store import WHOLE, Store
from . import incident as incidents
from .commands import run as command
from .incident import Journal, Run, own_files
from .replicas import SWITCHES, Side, lead_away

LOST: t.Final = "lost_keys.jsonl"
PERHAPS: t.Final = "perhaps_lost_keys.jsonl"
SHOWN: t.Final = 1000
WRITES: t.Final = ("write", "delete")


def rejoin(
    *,
    old: Side,
    main: Side,
    forensic: t.Callable[[str], str | None],
    run: Run,
    accept_loss: bool = False,
    timeout: float = 300.0,
    check: bool = False,
) -> dict[str, t.Any]:
    """``forensic`` publishes a snapshot of ``old`` for an incident and gives its id, None where that cannot be.

    Returns {changed, incident, lost, lost_keys [namespace: key, the first 1,000], lost_file, untold, forensic,
    position, notes, detail}; ``untold``: what only ``old`` had cannot be told, as nobody looked before it was gone, or
    a log was pruned past where both parted (``lost_file`` then lists what may be lost).
    Errors: CannotProceed (which one is newer is not clear, or what would be lost cannot be told), StoreUnavailable.
    """
    theirs = main.standing()
    if theirs.role != "primary":
        raise CannotProceed(
            f"{main.host} is a replica, so nothing can rejoin it.", "fail over first, or name the primary"
        )
    mine = _standing(old)
    last = _took_over(main)
    incident = run.incident or (last.incident if last else "rejoin")
    folder = incidents.folder(old.params, incident, run.work_dir)
    certain = _nothing_to_tell(old, folder, last.facts if last else {})
    if mine is not None and old.server.follows(mine, theirs):
        detail = f"{old.host} follows {main.host} already"
        return {"changed": False, **_told(folder, incident, detail, _gone(old, folder, last))}
    lost, untold = 0, False
    snapshot = None
    if mine is not None and mine.role == "primary":
        _is_former(old, main)
        if not check:
            old.server.step_back()
            old.close()  # sessions from before that still write nothing
            _fence(old, run, incident)
            lead_away(old)
        found = only_here(old.store, main.store)
        untold = not (found.certain or certain)
        if found.certain or untold:
            lost = _note(found, folder, check)
        else:  # it was fenced in time, or both were compared when their logs could tell
            lost = _told(folder, incident, "", False)["lost"]
        if check:
            return _would(old, main, incident, lost, untold)
        if lost or untold:
            snapshot = forensic(incident)
            if snapshot is None and not accept_loss:
                what = f"{lost} acknowledged writes are on {old.host} alone" if not untold else (
                    f"What only {old.host} has cannot be told, since a write log was pruned past where both parted"
                )  # fmt: skip
                raise CannotProceed(
                    f"{what}, and its state cannot be kept as a snapshot.",
                    "set memory_repository and memory_keyring, or give that state up: memory_accept_loss=true",
                )
    elif mine is None and not accept_loss and not certain:
        raise CannotProceed(
            f"The server of {old.host} does not run, so what only it has cannot be told.",
            "start it, kept from applications, then run the same command; or give that up: memory_accept_loss=true",
        )
    elif check:
        return _would(old, main, incident, None, False)
    elif mine is None:
        untold = not certain
    else:
        untold = _gone(old, folder, last)
    with Journal(folder).step("rejoin", run, lost=None if untold else lost, forensic=snapshot) as outcome:
        old.close()
        standing = old.server.follow(main.params, timeout)
        notes = list(getattr(old.server, "notes", ()))
        outcome.update(position=standing.position, history=standing.history, notes=notes)
    return {
        "changed": True, "forensic": snapshot, "position": standing.position, "notes": notes,
        **_told(folder, incident, "; ".join([f"{old.host} follows {main.host}", *notes]), untold),
    }  # fmt: skip


def _took_over(main: Side) -> IncidentState | None:
    """The failover by which ``main`` became the primary; one that was begun since and given up is none."""
    for state in main.store.incidents(WHOLE):
        done = state.facts.get("to") == main.place and state.facts.get("promoted_at")
        if state.facts.get("kind") in SWITCHES and done:
            return state
    return main.switch()


def _standing(side: Side) -> Standing | None:
    try:
        return side.standing()
    except StoreUnavailable:
        return None


def _is_former(old: Side, main: Side) -> None:
    """Errors: CannotProceed unless both were one store and the other is the newer primary."""
    mine, theirs = old.store.identity(), main.store.identity()
    if mine.store_id != theirs.store_id:
        raise CannotProceed(
            f"{old.host} holds another store than {main.host}, so it cannot rejoin.",
            "make it a replica by hand when nothing there is needed",
        )
    if mine.epoch >= theirs.epoch:
        raise CannotProceed(
            f"{main.host} did not take over from {old.host}: its epoch is {theirs.epoch}, and {mine.epoch} there.",
            f"name the primary, or fail over first: {command('failover')}",
        )


def _fence(old: Side, run: Run, incident: str) -> None:
    """Whatever still writes there stops before it is compared. Nothing to do where a failover has fenced it."""
    open_one = next((state for state in old.store.incidents(WHOLE) if state.state == "open"), None)
    name = open_one.incident if open_one else f"{incident}-rejoin"
    # Of the failover that made the other the primary: that has come further there, whoever held it here.
    superseded = open_one.attempt if open_one and open_one.incident == incident else run.takeover
    chosen = Run(run.attempt, run.owner, name, superseded, run.work_dir)
    claim = incidents.claim(old.store, WHOLE, chosen)
    old.store.stand_by(claim)
    old.store.end_lease(claim)  # the fence stands by itself


def _nothing_to_tell(old: Side, folder: str, switch: t.Mapping[str, t.Any]) -> bool:
    """It was fenced, with proof, before the other took over; or all was told before it was stopped."""
    fenced = switch.get("from") == old.place and not switch.get("forced")
    return fenced or os.path.exists(os.path.join(folder, LOST))


def _gone(old: Side, folder: str, last: IncidentState | None) -> bool:
    """``old`` is a replica: nobody fenced it before the other took over, and no comparison told what it had alone."""
    facts = last.facts if last else {}
    unfenced = facts.get("from") == old.place and bool(facts.get("forced"))
    unsure = unfenced or os.path.exists(os.path.join(folder, PERHAPS))
    return unsure and not os.path.exists(os.path.join(folder, LOST))


class Alone(t.NamedTuple):
    """Writes and deletes of one log that another lacks. ``certain``: False where one was pruned past their parting."""

    entries: t.Iterator[LogEntry]  # oldest first
    certain: bool


def only_here(here: Store, there: Store) -> Alone:
    """What the log of ``here`` has, and ``there`` does not.

    Both logs are the same up to where the servers parted, so up to the newest entry that both have: beyond it one is
    known there when one of the same (epoch, sequence) and digest is. Without such an entry only two whole logs tell.
    """
    with here.reader() as mine, there.reader() as theirs:
        common = _newest_common(_writes(mine), _writes(theirs))
        certain = common > 0 or all(reader.log_health()["pruned"][1] == 0 for reader in (mine, theirs))
    return Alone(_beyond(here, there, common), certain)


def _beyond(here: Store, there: Store, common: int) -> t.Iterator[LogEntry]:
    with here.reader() as mine, there.reader() as theirs:
        known = {(e.epoch, e.sequence, e.digest) for e in _writes(theirs, common)}
        yield from (e for e in _writes(mine, common) if (e.epoch, e.sequence, e.digest) not in known)


def _writes(reader: t.Any, after_id: int = 0) -> t.Iterator[LogEntry]:
    for batch in reader.log(after_id=after_id, operations=WRITES):
        yield from (LogEntry._make(entry) for entry in batch)


def _newest_common(mine: t.Iterator[LogEntry], theirs: t.Iterator[LogEntry]) -> int:
    """The id of the last of the entries that follow each other in both logs; 0: they have none in common."""
    common, other = 0, next(theirs, None)
    for entry in mine:
        while other is not None and other.id < entry.id:
            other = next(theirs, None)
        if other is None:
            break
        if other.id == entry.id and other.checksum == entry.checksum:
            common = entry.id
        elif common or other.id == entry.id:  # else it was pruned there
            break
    return common


def _note(found: Alone, folder: str, check: bool) -> int:
    """Write every key to the incident's folder, a line each; how many writes. In check mode they are counted."""
    if check:
        return sum(1 for _entry in found.entries)
    path, count = os.path.join(folder, LOST if found.certain else PERHAPS), 0
    with own_files(folder):
        with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            for e in found.entries:
                line = {"namespace": e.namespace, "key": e.key, "operation": e.operation, "epoch": e.epoch}
                file.write(json.dumps({**line, "sequence": e.sequence, "at": e.at}) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
    return count


def _told(folder: str, incident: str, detail: str, untold: bool) -> dict[str, t.Any]:
    """What was lost, as it was told when the servers were compared."""
    path, lost = os.path.join(folder, PERHAPS if untold else LOST), 0
    keys: list[str] = []
    if os.path.exists(path) and not untold:
        with own_files(folder), open(path, encoding="utf-8") as file:
            for line in file:
                lost += 1
                if len(keys) < SHOWN:
                    known = json.loads(line)
                    keys.append(f"{known['namespace']}: {known['key']}")
    listed = untold and os.path.exists(path)
    if listed:
        detail += (
            "; what only it had acknowledged cannot be told, since a write log was pruned past where both parted: "
            f"what may be lost is listed in {path}"
        )
    elif untold:
        detail += "; what only it had acknowledged cannot be told any more, since nobody compared both before"
    return {
        "incident": incident, "lost": None if untold else lost, "lost_keys": keys,
        "lost_file": path if lost or listed else None, "untold": untold, "detail": detail,
    }  # fmt: skip


def _would(old: Side, main: Side, incident: str, lost: int | None, untold: bool) -> dict[str, t.Any]:
    more = "" if lost is None else f", and {lost} acknowledged writes that only it has would be listed and set aside"
    if untold:
        more = f", and up to {lost} acknowledged writes listed and set aside: a write log was pruned past their parting"
    return {
        "changed": True, "incident": incident, "lost": None if untold else lost, "lost_keys": [], "lost_file": None,
        "untold": untold, "detail": f"{old.host} would become a replica of {main.host}{more}",
    }  # fmt: skip
