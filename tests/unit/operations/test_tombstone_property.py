# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Random histories of writes, deletions, backups and every retention: no snapshot outlives a tombstone that still has
its record, and after damage and a rebuild is served what a model says.

MEMOPS_TOMBSTONE_SEEDS sets the number of histories on each engine (default: as many as take some seconds).
"""

from __future__ import annotations

import os
import random

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import holds, log_retention
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.engines import ENGINES
from tests.unit.operations.runbook import NAME, NS, Site
from tests.unit.operations.test_tombstone_retention import bring, keep_newest, manifest_of, retain, take

SEEDS = int(os.environ.get("MEMOPS_TOMBSTONE_SEEDS", "1"))
KEYS = [f"k{n:02d}" for n in range(14)]


class History:
    """What happened to one store. ``pruning``: the log's old entries go too. ``restoring``: restores take part, after
    which the newest logged write of a key is not what it holds, so that no rebuild is expected to agree."""

    def __init__(self, site, seed):
        self.site, self.random = site, random.Random(seed)
        self.pruning, self.restoring = seed % 2 == 0, seed % 5 == 4
        self.values = {}  # what applications must get
        self.saved = {}  # of each snapshot that is there, or can be again: (its rows, values)
        self.buried = 0
        self.days = 0

    def write(self):
        some = {key: self.random.random() for key in self.random.sample(KEYS, self.random.randint(1, 5))}
        with self.site.memory() as memory:
            memory.write_many(NS, some)
        self.values.update(some)

    def delete(self):
        with self.site.memory() as memory:
            for key in self.random.sample(KEYS, 4):
                assert memory.delete(NS, key, soft=self.random.random() < 0.5) == (key in self.values)
                self.values.pop(key, None)

    def back_up(self):
        if self.random.random() < 0.5:
            taken = take(self.site)
        else:
            taken = self.site.backup()["snapshot"]  # it may refer to another one
        place = Repository.open(self.site.repository)
        place.accept(NAME, taken, self.site.ring(), "the model")
        self.saved[taken] = self.site.rows(), dict(self.values)

    def forget_snapshots(self):
        self.days += self.random.choice((0, 0.5, 2))
        more = {"periods": {"daily": 2}} if self.random.random() < 0.5 else {}
        result = keep_newest(self.site, days=self.days, **more)
        for one in result["collected"]:
            del self.saved[one]

    def undelete(self):
        common = {"repository": Repository.open(self.site.repository), "keyring": self.site.ring(), "name": NAME}
        holds.undelete(**common, by="the model", reason="a doubt")
        holds.hold(**common, by="the model", label=holds.UNDELETED, present=False)

    def restore(self):
        good = [info.id for info in Repository.open(self.site.repository).snapshots(NAME)]
        if self.restoring and good:
            chosen = self.random.choice(good)
            bring(self.site, chosen)
            self.values = dict(self.saved[chosen][1])

    def forget_log(self):
        if self.pruning:
            with self.site.open() as store:
                log_retention.apply(
                    store=store, store_params=self.site.store, repository=Repository.open(self.site.repository),
                    keyring=self.site.ring(), name=NAME, keep_reads=0.0, keep_writes=0.0,
                )  # fmt: skip

    def bury(self):
        before = self.site.rows()
        found = retain(self.site)
        after = self.site.rows()
        gone = set(before) - set(after)
        assert (found["tombstones"], found["changed"]) == (len(gone), bool(gone))
        assert after == {key: row for key, row in before.items() if key not in gone}
        assert all(before[key][6] is not None for key in gone)
        self.buried += len(gone)
        for taken, (rows, _values) in self.saved.items():
            back = [key for key in gone if key in rows and rows[key][6] is None]
            assert not back, f"snapshot {taken} can bring {back} back"

    STEPS = (
        write, write, write, delete, delete, delete, back_up, back_up, back_up, forget_snapshots, forget_snapshots,
        undelete, restore, restore, forget_log, bury, bury,
    )  # fmt: skip

    def run(self, length):
        Repository.open(self.site.repository, create=True)
        self.write()
        self.back_up()
        for step in self.random.choices(self.STEPS, k=length):
            step(self)
        self.back_up()
        keep_newest(self.site, days=self.days)
        result = keep_newest(self.site, days=self.days + 2)
        for one in result["collected"]:
            del self.saved[one]
        self.forget_log()
        self.bury()
        assert self.site.served() == self.values

    def damage(self):
        """Some records that the snapshot to plan from has; where the log proves all writes, that is an older one."""
        place = Repository.open(self.site.repository)
        good = [info.id for info in place.snapshots(NAME)]
        if not self.pruning:
            self.write()
            self.delete()
            self.back_up()
            good = [info.id for info in place.snapshots(NAME)]
            line = manifest_of(self.site, good[0]).read_bytes()
            manifest_of(self.site, good[0]).write_bytes(line[:-9])
            del good[0]
        rows, copies = self.site.rows(), self.saved[good[0]][0]
        same = [key for key in sorted(self.values) if copies.get(key) == rows[key]]
        chosen = self.random.sample(same, min(len(same), 4))
        for key in chosen[:2]:
            self.site.raw.flip(NS, key)
        self.site.raw.remove(NS, chosen[2:])
        return len(chosen)


@pytest.mark.parametrize("number", range(SEEDS))
def test_nothing_that_was_deleted_comes_back_and_nothing_is_called_lost(bench, tmp_path, number):
    seed = ENGINES.index(bench.engine) + len(ENGINES) * number  # each engine has others
    history = History(Site(tmp_path / "site", bench=bench), seed)
    history.run(20)
    if history.restoring:
        return
    damaged = history.damage()
    done = history.site.rebuild(("soft", "hard")[seed // 2 % 2])
    assert done["plan"]["records"]["repair"] == damaged
    assert not done["plan"]["lost_keys"] and not done["plan"]["suspect_keys"]
    assert history.site.served() == history.values
