# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The write log was pruned and the snapshots that hold what went are lost, so that only an older one is left: nothing
that was deleted in between comes back, nothing that was changed goes back, and the plan says what nobody can prove.

MEMOPS_GAP_SEEDS sets the number of random histories (default: as many as take a second).
"""

from __future__ import annotations

import os
import pathlib
import random

import pytest

from tests.support.engines import Bench
from tests.unit.operations.runbook import NS, Site, attempt
from tests.unit.operations.test_log_retention import retain
from tests.unit.operations.test_tombstone_retention import manifest_of, take

SEEDS = int(os.environ.get("MEMOPS_GAP_SEEDS", "2"))
KEYS = [f"k{n:02d}" for n in range(16)]


def lose(site, snapshot, how):
    """What happens to a snapshot that a rebuild needs."""
    manifest = manifest_of(site, snapshot)
    if how == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    elif how == "index":
        (manifest.parent / "index").unlink()
    else:
        for pack in pathlib.Path(manifest.parent).glob("packs/*"):
            pack.write_bytes(pack.read_bytes()[:40])


def test_an_older_snapshot_brings_nothing_back_that_nobody_can_prove(bench, tmp_path):
    strategy, how = ("hard", "packs") if bench.engine == "postgresql" else ("soft", "manifest")
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": f"first {n}" for n in range(9)})
    older = take(site)
    with site.memory() as memory:
        memory.write_many(NS, {"k1": "second", "k2": "second", "new": "second"})
        memory.delete(NS, "k3")
        memory.delete(NS, "k4")
    newer = take(site)
    assert retain(site, writes=0.0)["writes"] == 15  # the canary too
    lose(site, newer, how)
    site.raw.flip(NS, "k2")  # changed since
    site.raw.flip(NS, "k4")  # a tombstone
    site.raw.flip(NS, "k5")  # as in the older snapshot
    site.raw.remove(NS, ["k6"])
    done = site.rebuild(strategy)
    served = site.served()
    assert {key: served[key] for key in ("k1", "new", "k5")} == {"k1": "second", "new": "second", "k5": "first 5"}
    assert not {"k3", "k4", "k6"} & set(served)  # k6 may have been deleted, for all that anybody knows
    plan = done["plan"]
    assert plan["lost_keys"] == ["k2"] and served["k2"] == "first 2"
    assert plan["absent_keys"] == ["k6"] and "memory_absent=restore" in plan["warnings"][0]
    (doubt,) = plan["could_not_verify"]
    assert f"the write log begins after snapshot {older} was taken" in doubt
    assert "records of that time kept as found, unproven: 'k1', 'k3', 'new'" in doubt


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_what_is_absent_comes_back_when_a_person_says_so(bench, tmp_path):
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, {"k1": 1, "k2": 1})
    take(site)
    with site.memory() as memory:
        memory.write_many(NS, {"k1": 2})
    newer = take(site)
    retain(site, writes=0.0)
    lose(site, newer, "index")
    site.raw.remove(NS, ["k2"])
    run = attempt()
    site.rebuild(until="diagnose", run=run)
    assert site.step("plan", run, absent="restore")["records"]["repair"] == 1
    site.step("apply", run)
    site.step("release", run, force=True)
    assert site.served() == {"k1": 2, "k2": 1}


class History:
    """Writes, deletions, backups and pruning at random; then the newest snapshots are lost and records damaged."""

    def __init__(self, site, seed):
        self.site, self.random = site, random.Random(seed)
        self.values = {}  # what applications must get
        self.past = {key: set() for key in KEYS}  # every value that a key had and has no more
        self.taken = []

    def write(self):
        some = {key: self.random.random() for key in self.random.sample(KEYS, self.random.randint(1, 5))}
        with self.site.memory() as memory:
            memory.write_many(NS, some)
        for key in some:
            self.past[key].add(self.values.get(key))
        self.values.update(some)

    def delete(self):
        with self.site.memory() as memory:
            for key in self.random.sample(KEYS, 3):
                if memory.delete(NS, key, soft=self.random.random() < 0.5):
                    self.past[key].add(self.values.pop(key))

    def back_up(self):
        self.taken.append(take(self.site))

    def prune(self):
        retain(self.site, writes=0.0)

    def run(self, length):
        self.write()
        self.back_up()
        for step in self.random.choices((self.write, self.write, self.delete, self.back_up, self.prune), k=length):
            step()
        for snapshot in self.random.sample(self.taken, self.random.randint(1, len(self.taken))):
            lose(self.site, snapshot, self.random.choice(("manifest", "index", "packs")))
        rows = self.site.rows()
        hurt = [key for key in self.random.sample(KEYS, 6) if key in rows]
        for key in hurt[:3]:
            self.site.raw.flip(NS, key)
        self.site.raw.remove(NS, hurt[3:])
        return hurt


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_lost_no_old_value_is_served_in_silence(tmp_path, seed):
    site = Site(tmp_path / "site", bench=Bench("sqlite", str(tmp_path)))
    history = History(site, seed)
    hurt = set(history.run(12))
    plan = site.rebuild(("soft", "hard")[seed % 2])["plan"]
    served = site.served()
    named = {*plan["lost_keys"], *plan["suspect_keys"]}
    for key in KEYS:
        if key not in hurt:
            assert served.get(key) == history.values.get(key), f"{key} is sound"
        elif key in served and served[key] != history.values.get(key):
            assert key in named and key in history.values, f"{key} is other than it was, or was deleted"
        elif key in history.values and key not in served:
            # of what was first written in the gap nothing is left anywhere
            said = key in named or key in plan["absent_keys"] or plan["could_not_verify"]
            assert said, f"{key} is gone, and nobody says so"
