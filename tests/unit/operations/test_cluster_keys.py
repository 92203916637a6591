# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Two hosts with a keyring file each, a rotation on one and a failover before any backup: no record is left without
its key, and where nobody has it the step refuses and nothing is lost."""

from __future__ import annotations

import functools
import os
import shutil

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    cluster_keys,
    restore_step,
    rotate,
    snapshot,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.unit.operations.runbook import NAME, NS, attempt
from tests.unit.operations.test_rebuild_failover import Pair

ENGINES = pytest.mark.parametrize("bench", ["sqlite", "valkey"], indirect=True)


class TwoRings(Pair):
    """The secondary's host has a keyring of its own, which its first fill completed."""

    def __init__(self, folder, bench):
        super().__init__(folder, bench)
        self.away.keyring = {**self.home.keyring, "path": os.path.join(self.home.folder, "secondary.json")}
        with self.home.memory() as memory:
            memory.write_many(NS, {f"k{n}": n for n in range(9)})
        self.home.backup()
        Keyring.open(self.away.keyring, create=True)
        restore_step.bring_back(
            store_params=self.away.store, repository=self.place(), keyring=self.away.ring(), name=NAME, run=attempt(),
            namespaces=[NS], create=True, as_secondary=True,
        )  # fmt: skip
        self.incident = attempt()

    def place(self):
        return Repository.open(self.home.repository)

    def rotate(self, **options):
        def tell(ring):
            cluster_keys.tell(self.place, ring, NAME)

        ring = self.home.ring()
        done = rotate.rotate(store_params=self.home.store, keyring=ring, force=True, **{"tell": tell, **options})
        assert done["complete"]
        return done["key"]

    def fail_over(self):
        ring = functools.partial(cluster_keys.opened, self.away.ring, self.place, NAME, False)
        self.home.step("isolate", self.incident)
        self.away.ring, former = ring, self.away.ring
        try:
            return super().fail_over()
        finally:
            self.away.ring = former

    def write_away(self, keyring):
        with Memory(store=self.away.application, keyring=keyring, actor="the agent") as memory:
            memory.write_many(NS, {"k1": "away", "new": "away"})

    def delta(self, purpose="failback"):
        return snapshot.create(
            store_params=self.away.store, repository=self.home.repository, keyring=self.away.ring(), name=NAME,
            purpose=purpose, namespaces=[NS],
        )  # fmt: skip


@pytest.fixture
def pair(tmp_path, bench):
    return TwoRings(tmp_path / "site", bench)


@ENGINES
def test_a_key_that_was_made_before_the_failover_is_known_there_without_a_backup(pair):
    key = pair.rotate()
    assert key not in pair.away.ring().ids()
    promoted = pair.fail_over()
    assert key in pair.away.ring().ids()
    pair.write_away(pair.home.keyring)  # as the application that read its keyring file on the home's host
    taken = pair.delta("scheduled")
    assert not taken["suspect"], taken["reasons"]
    pair.take_over("standby")
    delta = pair.delta()
    assert delta["warnings"] == []
    assert pair.come_home(delta["snapshot"], promoted["epoch"], pair.incident)["merged"] == 2
    pair.home.step("release", pair.incident, force=True)
    assert pair.home.served() == {**{f"k{n}": n for n in range(9)}, "k1": "away", "new": "away"}


@ENGINES
def test_what_was_written_under_a_key_that_neither_host_has_is_not_left_behind(pair):
    other = {**pair.home.keyring, "path": os.path.join(pair.home.folder, "application.json")}
    shutil.copy(pair.home.keyring["path"], other["path"])
    promoted = pair.fail_over()
    ring = Keyring.open(other)
    ring.activate(ring.create_key())
    pair.write_away(other)
    pair.take_over("standby")
    before = pair.home.rows()
    delta = pair.delta()["snapshot"]
    with pytest.raises(CannotProceed, match="2 records of agent-7, written on the secondary, are under the record key"):
        pair.come_home(delta, promoted["epoch"], pair.incident)
    assert pair.home.rows() == before and pair.home.state() == "quarantined"
    pair.away.keyring = other
    assert pair.come_home(pair.delta()["snapshot"], promoted["epoch"], pair.incident)["merged"] == 2


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_no_record_gets_a_key_that_only_this_host_has(pair):
    rows = pair.home.rows()
    folder = pair.home.repository["url"][len("file://") :]
    with open(os.path.join(folder, "incidents"), "w", encoding="ascii"):
        pass  # a file where a folder has to be: nothing can be put there
    with pytest.raises(CannotProceed, match="in this host's keyring alone"):
        pair.rotate()
    assert pair.home.rows() == rows
    os.unlink(os.path.join(folder, "incidents"))
    key = pair.rotate()
    assert len(pair.home.ring().ids()) == 2  # it went on with the key that it had made
    assert cluster_keys.share(pair.place(), pair.away.ring(), NAME, check=True) == [key]
    assert cluster_keys.share(pair.place(), pair.away.ring(), NAME) == [key]
    assert cluster_keys.share(pair.place(), pair.home.ring(), NAME) != []  # and the secondary's own came here
    assert cluster_keys.share(pair.place(), pair.home.ring(), NAME) == []
