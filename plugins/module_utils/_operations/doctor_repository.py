# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the doctor asks a repository: backups and their proofs, retention, and what its endpoint enforces.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .._errors import MemoryOpsError, RepositoryRefused
from .._inputs import moment
from .._repository import holds
from .._repository.manifest import folder
from .._store import Store
from . import evidence
from .commands import accept, ago, counted, run
from .coverage import oldest_saved
from .doctor_base import FAIL, NONE, PASS, UNKNOWN, Examination
from .holds import marked
from .retention import suspect
from .snapshot_info import verified

LOOKED_AT = 5  # good snapshots, newest first, that are asked whether they were verified
OF_SNAPSHOTS = ("backup", "verified", "drill", "retention", "object_lock")


class RepositoryChecks(Examination):
    """``probe``: try anew what the endpoint enforces, which writes and removes small objects below probe/."""

    probe = False
    seen: dict[str, t.Any] | None = None

    def repository_checks(self, repository: t.Any, ring: t.Any, store: Store | None) -> None:
        asked = [one for one in OF_SNAPSHOTS if self.wanted(one)]
        if repository is None or ring is None:
            for one in asked:
                self.without(one, None, "the repository and the keyring")
        elif asked:
            try:
                found = repository.snapshots(self.name, ring)
            except MemoryOpsError as exc:
                for one in asked:
                    self.add(one, UNKNOWN, exc.message, exc.next_step)
            else:
                good = [info for info in found if info.good and not info.problem]
                self.check("backup", self.backup, good, suspect(found), store)
                self.check("verified", self.verified, repository, ring, good)
                self.check("drill", self.drill, repository, ring)
                self.check("retention", self.retention, repository, ring, found)
                self.check("object_lock", self.object_lock, repository, good)
        self.check("conditional_put", self.conditional_put, repository)

    def backup(self, good: list[t.Any], doubted: t.Any, store: Store | None) -> None:
        """Of the namespace whose newest good snapshot is the oldest: an incident's baseline holds one alone."""
        present = None
        if store is not None:
            with store.reader() as reader:
                present = [state.name for state in reader.namespaces()]
        # another backup of the same state would be as suspect
        again = run("backup") if doubted is None else f"decide about {doubted.id} first, as the check retention says"
        oldest = oldest_saved(good, present)
        if oldest is None:
            self.add("backup", FAIL, "There is no good snapshot.", again)
            return
        namespace, info = oldest
        age = self.now - info.at / 1e6
        verdict = PASS if age <= self.limits.rpo else FAIL
        newest = all(one.at <= info.at for one in good)
        what = "The newest good snapshot" if newest else f"The newest good snapshot that holds {namespace}"
        says = f"{what} is {ago(age)} old; the RPO is {ago(self.limits.rpo)}."
        self.add("backup", verdict, says, "" if verdict == PASS else again)

    def verified(self, repository: t.Any, ring: t.Any, good: list[t.Any]) -> None:
        seen = [(info.id, verified(repository, self.name, ring, info.id)) for info in good[:LOOKED_AT]]
        bad = [name for name, one in seen if one is not None and one["verdict"] == "fail"]
        passed = [(name, one) for name, one in seen if one is not None and one["verdict"] == "pass"]
        if bad:
            others = f" ({len(bad)} of the newest {len(seen)})" if len(bad) > 1 else ""
            says = f"The last verification of snapshot {bad[0]} failed{others}."
            self.add("verified", FAIL, says, run("backup"))
        elif not passed:
            says = f"None of the newest {len(seen)} good snapshots was ever verified."
            if len(seen) == 1:
                says = "The one good snapshot was never verified."
            self.add("verified", FAIL, says, run("verify", memory_depth="opened"))
        else:
            name, one = passed[0]
            self.add("verified", PASS, f"Snapshot {name} was verified ({one['depth']}) at {one['at']}.")

    def drill(self, repository: t.Any, ring: t.Any) -> None:
        last = evidence.newest(repository, ring, self.name)
        if last is None:
            self.add("drill", FAIL, "No drill was ever run: no restore is proven.", run("drill"))
            return
        left_out = last.get("left_out")
        if left_out and last.get("verdict") == PASS:  # of a part: it is not the rehearsal of the whole
            last = evidence.newest_whole(repository, ring, self.name)
            if last is None:
                says = f"No drill rehearsed everything; the last one left out {', '.join(left_out[:10])}."
                self.add("drill", FAIL, says, run("drill"))
                return
        age = self.now - moment(last.get("at")) / 1e6
        if last.get("verdict") != PASS:
            why = "; ".join(map(str, last.get("reasons") or [])) or "no reason was given"
            verdict = UNKNOWN if last.get("verdict") == UNKNOWN else FAIL
            says = f"The last drill, {ago(age)} ago, ended as {last.get('verdict')}: {why[:200].rstrip('.')}."
            self.add("drill", verdict, says, run("drill"))
        elif age > self.limits.drill:
            says = f"The last drill was {ago(age)} ago; the limit is {ago(self.limits.drill)}."
            self.add("drill", FAIL, says, run("drill"))
        else:
            self.add("drill", PASS, f"A drill passed {ago(age)} ago.")

    def retention(self, repository: t.Any, ring: t.Any, found: list[t.Any]) -> None:
        """Whether it can do its work, and what it does not remove or has not yet."""
        broken = [info for info in found if info.problem]
        doubted = suspect(found)
        if doubted is not None:
            why = "; ".join(doubted.reasons)[:200]
            says = f"Snapshot {doubted.id} is suspect ({why}), so retention removes nothing."
            self.add("retention", FAIL, says, f"look why; where it is as it should be, {accept(doubted.id)}")
            return
        if broken:
            says = f"Snapshot {broken[0].id} cannot be read, and is kept ({len(broken)} in all): {broken[0].problem}"
            self.add("retention", FAIL, says[:300], run("verify", memory_snapshot=broken[0].id))
            return

        def standing(info: t.Any) -> list[dict[str, t.Any]]:
            return holds.standing(repository.objects, self.name, info.id, ring)

        with ThreadPoolExecutor(8) as pool:
            names = Counter(hold["hold"] for held in pool.map(standing, found) for hold in held)
        held = ", ".join(f"{name} on {count}" for name, count in sorted(names.items())[:5]) or "none"
        waiting = len(marked(repository, self.name))
        says = f"{counted(len(found), 'snapshot')}; holds: {held}; removed ones that undelete brings back: {waiting}."
        self.add("retention", PASS, says)

    def object_lock(self, repository: t.Any, good: list[t.Any]) -> None:
        locks = repository.objects.locks
        if locks is None:
            says = "Nothing is locked: whoever may delete in the repository removes every snapshot."
            self.add("object_lock", NONE, says, "set memory_repository.object_lock where the bucket has one")
            return
        try:
            locks.check()
        except RepositoryRefused as exc:
            self.add("object_lock", FAIL, exc.message, exc.next_step)
            return
        proven = self.probed("object_lock", repository)
        until = locks.until([f"{folder(self.name, good[0].id)}manifest.json"])[0] if good else self.now
        if proven is False:
            says = f"{repository.location} takes locks of objects and does not heed them."
            self.add("object_lock", FAIL, says, "use a bucket of an endpoint that does")
        elif until < self.now:
            says = f"Snapshot {good[0].id}, the newest good one, is not locked."
            self.add("object_lock", FAIL, says, run("backup"))
        elif proven is None:
            says = "Nobody has tried whether the endpoint heeds locks."
            self.add("object_lock", UNKNOWN, says, run("doctor", memory_doctor_probe="true"))
        else:
            self.add("object_lock", PASS, "The newest good snapshot is locked, and a locked object was not deleted.")

    def probed(self, what: str, repository: t.Any) -> bool | None:
        """What the endpoint was seen to enforce: just now, where that was asked for, or when it was made."""
        if self.probe and self.seen is None:
            self.seen = repository.probe()
        return (self.seen or repository.seen).get(what)

    def conditional_put(self, repository: t.Any) -> None:
        if self.without("conditional_put", repository, "the repository"):
            return
        seen, place = self.probed("conditional_put", repository), repository.location
        when = "just now" if self.seen is not None else "when it was made"
        if seen is True:
            self.add("conditional_put", PASS, f"{place} refused to overwrite {when}.")
        elif seen is False:
            says = f"{place} ignores conditional puts: two writers of one journal would not notice each other."
            following = "point memory_repository at an endpoint that refuses them, then " + run("backup")
            self.add("conditional_put", FAIL, says, following)
        else:
            following = "point memory_repository.url at a new prefix, then " + run("backup")
            self.add("conditional_put", UNKNOWN, f"Nobody noted whether {place} heeds conditional puts.", following)
