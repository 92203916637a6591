# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Retention: which snapshots stay, and the careful removal of the rest.

PRIVATE to the collection. A manifest goes first; the objects follow in a later run, after a grace longer than any
snapshot takes; if something came to refer to them meanwhile, or somebody to hold them, the manifest comes back.
"""
from __future__ import annotations

import datetime
import time
import typing as t

from .._errors import InvalidInput, MemoryOpsError, RepositoryUnavailable
from .._repository import Repository, holds
from .._repository.aside import REMOVED, bring_back, put_aside, read_aside
from .._repository.catalogue import choose_base, ids, listing
from .._repository.manifest import SnapshotInfo, folder
from .._repository.objects import check_name
from . import retention_lock as locking
from .commands import accept, counted

DAY = 86400.0
NEW_COPY = 7 * DAY  # for so long a copy does not decide what goes of the store that it was made of
COMING = ""  # the id of one that is not there yet
#: Of each period how it is told apart; the newest snapshot of a period stands for it (grandfather, father, son). UTC.
PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m", "yearly": "%Y"}


def apply(
    *,
    repository: Repository | t.Mapping[str, t.Any],
    keyring: t.Any,
    name: str,
    keep_last: int = 96,
    keep_within: float = 7 * DAY,
    keep_forensic: float = 90 * DAY,
    keep_suspect: float = 30 * DAY,
    grace: float = DAY,
    periods: t.Mapping[str, int] | None = None,
    expected: t.Sequence[str] = (),
    now: float | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Remove what is neither among the newest ``keep_last`` good ones, nor younger than ``keep_within`` seconds, nor
    the newest good one of one of the last ``periods`` (hourly, daily, weekly, monthly, yearly: how many; those count
    in which there is one).

    Never: the last good one of any namespace, a base that something refers to, one that is held, a forensic one younger
    than ``keep_forensic``, a suspect one younger than ``keep_suspect``, one that cannot be read, and for a week those
    of the store that the one saved last is a copy of. While the newest snapshot is suspect nothing goes.
    ``expected``, with ``check``: the namespaces of a good snapshot that is published before, and counts like others.
    Objects without a manifest go ``grace`` seconds after the manifest went, or after the last of them was written.

    Returns {changed, kept [{snapshot, reason}], removed [ids], collected [ids], waiting [ids], revived [ids], locked
    [ids whose object lock was extended], warnings}. Errors: InvalidInput, RepositoryUnavailable.
    """
    check_name("store", name)
    for what, value in (("keep_last", keep_last), ("keep_within", keep_within), ("grace", grace)):
        least = 1 if what == "keep_last" else 0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise InvalidInput(f"{what} is {value!r:.40}.", f"give a number of at least {least}")
    for what, value in (periods or {}).items():
        if what not in PERIODS or isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInput(f"Keeping {what:.20} is {value!r:.40}.", f"give numbers for {', '.join(PERIODS)}")
    place = repository if isinstance(repository, Repository) else Repository.open(repository)
    moment = time.time() if now is None else now
    snapshots = listing(place.objects, name, keyring)
    kept: list[dict[str, str]] = []
    removed: list[str] = []
    warnings: list[str] = []
    stopped = suspect(snapshots)
    if stopped:
        why = "; ".join(stopped.reasons)
        warnings.append(
            f"Snapshot {stopped.id} is suspect ({why}): nothing is removed until it is accepted. "
            f"Next: look why; where it is as it should be, {accept(stopped.id)}"
        )
    if check and expected:
        snapshots = [_coming(snapshots, name, expected, moment), *snapshots]
    good = [info for info in snapshots if info.good]
    standing = {info.id: f"the {period} one" for period, info in _standing(good, periods or {})}
    standing.update({info.id: "among the newest" for info in good[:keep_last]})
    standing.update({info.id: "the last good one" for info in _last_good(good)})
    born = _born(snapshots, moment)
    referenced = {base for info in snapshots for base in info.references}
    former = _of_former_copies(snapshots, born, moment)
    for info in snapshots:
        age = moment - born.get(info.id, moment)
        reason = _reason(info, age, standing, referenced, keep_within, keep_forensic, keep_suspect)
        if stopped and reason is None:
            reason = "the newest snapshot is suspect"
        if reason is None and info.id in former:
            reason = "a copy of its store is saved here since, and not for long"
        if info.id == COMING:
            continue
        if reason is None:
            reason = _held(place, name, info.id, keyring) or locking.locked(place, name, info.id)
        if reason is None:
            removed.append(info.id)
        else:
            kept.append({"snapshot": info.id, "reason": reason})
        if info.problem:
            warnings.append(f"Snapshot {info.id} cannot be read: {info.problem}")
    for snapshot_id in [] if check else list(removed):
        put_aside(place.objects, name, snapshot_id, moment)
        reason = _held(place, name, snapshot_id, keyring)  # by somebody who came while it went
        if reason is not None:
            bring_back(place.objects, name, snapshot_id, keyring)
            removed.remove(snapshot_id)
            kept.append({"snapshot": snapshot_id, "reason": reason})
    lasting = {one["snapshot"] for one in kept if locking.lasting(one["reason"])}
    locked = locking.extend(place, name, [info for info in snapshots if info.id in lasting], check)
    collection = _Collection(place, name, keyring, referenced, moment, grace, check)
    collection.run({info.id for info in snapshots} | set(removed))
    collected, waiting, revived = collection.collected, collection.waiting, collection.revived
    warnings += collection.warnings
    return {
        "changed": bool(removed or collected or revived or locked),
        "check": check,
        "kept": kept,
        "removed": removed,
        "collected": collected,
        "waiting": waiting,
        "revived": revived,
        "locked": locked,
        "warnings": warnings,
    }


def suspect(snapshots: t.Sequence[SnapshotInfo]) -> SnapshotInfo | None:
    """The newest one, when it is suspect and nobody accepted it: corruption must not rotate the good copies out."""
    newest = next((info for info in snapshots if not info.problem and info.purpose != "forensic"), None)
    return newest if newest is not None and newest.suspect and not newest.accepted else None


def _coming(snapshots: t.Sequence[SnapshotInfo], name: str, namespaces: t.Sequence[str], moment: float) -> SnapshotInfo:
    """A good one that is not there yet, with the base that it would have."""
    at = int(moment * 1e6)
    last = snapshots[0] if snapshots else None
    base = choose_base(snapshots, last.lineage, moment) if last is not None else None
    return SnapshotInfo(
        id=COMING, name=name, purpose="scheduled", at=at, epoch=0, sequence=0, lineage="", suspect=False, reasons=[],
        accepted=False, good=True, incident=None, references=[base] if base else [],
        namespaces={one: {} for one in namespaces}, bytes=0, authenticated=True, manifest={"created": at},
    )  # fmt: skip


def _born(snapshots: t.Sequence[SnapshotInfo], moment: float) -> dict[str, float]:
    """When each was taken (seconds since 1970): by its own clock, and not before what the store was saved in earlier,
    as far as that is not in the future: a clock may have been behind."""
    found: dict[str, float] = {}
    latest = 0.0
    sound = [one for one in snapshots if not one.problem and one.id != COMING]
    for info in sorted(sound, key=lambda one: one.order[:2]):
        at = info.manifest["created"] / 1e6
        latest = max(latest, at) if at <= moment else latest
        found[info.id] = max(at, latest)
    return found


def _of_former_copies(snapshots: t.Sequence[SnapshotInfo], born: t.Mapping[str, float], moment: float) -> set[str]:
    """What another copy took before the one that is saved now, while nobody can tell whether that took its place or is
    an inventory that was copied, with another retention."""
    found = [info for info in snapshots if info.id in born]
    mine = [born[info.id] for info in found if info.copy == found[0].copy]
    if not mine or moment - min(mine) >= NEW_COPY:
        return set()
    return {info.id for info in found if info.epoch == found[0].epoch and info.store_id not in ("", found[0].store_id)}


def _last_good(good: t.Sequence[SnapshotInfo]) -> t.Iterator[SnapshotInfo]:
    """The newest good one, and of each namespace the newest good one that holds it: a snapshot may hold only some."""
    seen: set[str] = set()
    for number, info in enumerate(good):
        if not number or not seen >= set(info.namespaces):
            yield info
        seen.update(info.namespaces)


def _standing(good: t.Sequence[SnapshotInfo], periods: t.Mapping[str, int]) -> t.Iterator[tuple[str, SnapshotInfo]]:
    for period, count in periods.items():
        seen: set[str] = set()
        for info in good:
            at = datetime.datetime.fromtimestamp(info.at / 1e6, datetime.timezone.utc).strftime(PERIODS[period])
            if at not in seen and len(seen) < count:
                yield period, info
            seen.add(at)


def _reason(
    info: SnapshotInfo,
    age: float,
    standing: t.Mapping[str, str],
    referenced: set[str],
    keep_within: float,
    keep_forensic: float,
    keep_suspect: float,
) -> str | None:
    """Why it stays; None: it goes."""
    if info.problem:
        return "it cannot be read"
    if standing.get(info.id) == "the last good one":
        return standing[info.id]
    if info.id in referenced:
        return "others refer to it"
    if info.purpose == "forensic":
        return "evidence" if age < keep_forensic else None
    if info.suspect and not info.accepted:
        return "suspect" if age < keep_suspect else None
    if info.id in standing:
        return standing[info.id]
    if age < keep_within:
        return "young"
    return None


def _held(place: Repository, name: str, snapshot_id: str, keyring: t.Any) -> str | None:
    standing = holds.standing(place.objects, name, snapshot_id, keyring)
    return f"held: {', '.join(one['hold'] for one in standing)}" if standing else None


class _Collection:
    """Deletes the objects of what has no manifest, once it is old enough, and brings back what is wanted after all."""

    def __init__(
        self,
        place: Repository,
        name: str,
        keyring: t.Any,
        referenced: set[str],
        moment: float,
        grace: float,
        check: bool,
    ) -> None:
        self.place, self.name, self.keyring, self.referenced = place, name, keyring, referenced
        self.moment, self.grace, self.check = moment, grace, check
        self.collected: list[str] = []
        self.waiting: list[str] = []
        self.revived: list[str] = []
        self.warnings: list[str] = []

    def run(self, others: set[str]) -> None:
        """``others``: what has a manifest, or had one a moment ago."""
        for snapshot_id in ids(self.place.objects, self.name):
            if snapshot_id not in others:
                self._one(snapshot_id, folder(self.name, snapshot_id))

    def _one(self, snapshot_id: str, where: str) -> None:
        objects = self.place.objects
        if not self.check:
            objects.sweep(where, self.moment - self.grace)
        found = list(objects.list(where))
        if not found or any(info.key == where + "manifest.json" for info in found):
            return  # an empty directory that some endpoints list, or published while we looked
        aside = read_aside(objects, self.name, snapshot_id)  # None: an interrupted run, which had no manifest yet
        held = aside is not None and _held(self.place, self.name, snapshot_id, self.keyring) is not None
        if snapshot_id in self.referenced or held:
            if aside is not None:
                self._revive(snapshot_id)
            return
        since = max(info.modified for info in found) if aside is None else aside.at
        if self.moment - since < self.grace:
            self.waiting.append(snapshot_id)
            return
        left = 0 if self.check else objects.purge(where, where + REMOVED)
        if left:
            self.waiting.append(snapshot_id)
            self.warnings.append(f"Of the removed snapshot {snapshot_id} a lock still keeps {counted(left, 'object')}.")
        else:
            self.collected.append(snapshot_id)

    def _revive(self, snapshot_id: str) -> None:
        try:
            self.revived += [snapshot_id] if self.check else bring_back(
                self.place.objects, self.name, snapshot_id, self.keyring
            )  # fmt: skip
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            self.warnings.append(str(exc))
