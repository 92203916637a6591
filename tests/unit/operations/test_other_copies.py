# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of a store, restored elsewhere and saved to the same place, as by an inventory that was copied: what
is written there never comes to the store itself."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore_step, retention
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, STEPS, Site, attempt
from tests.unit.tables.sqlite_help import TablesSite

VALUES = {f"k{n}": {"v": n} for n in range(10)}


def filled(site, **options):
    return restore_step.bring_back(
        store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(), name=NAME,
        run=attempt(), namespaces=[NS], create=True, **options,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path):
    site = Site(tmp_path / "home")
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
    site.backup()
    return site


@pytest.fixture
def copy(home, tmp_path):
    """Filled from the home's snapshot, with the same repository; it goes on by itself."""
    site = Site(tmp_path / "copy")
    for name in ("master.key", "keyring.json"):
        shutil.copy(f"{home.folder}/{name}", f"{site.folder}/{name}")
    site.repository = home.repository
    filled(site)
    with site.memory() as memory:
        memory.write_many(NS, {key: {"of": "the copy"} for key in ("k0", "k1", "k2", "k3", "k4")})
        memory.write(NS, "only there", 1)
        memory.delete(NS, "k9")
    return site


def damaged(site):
    for key in ("k1", "k2"):
        site.raw.set(NS, key, payload=bytes(40))
    site.raw.remove(NS, ["k3", "k9"])


def test_a_copy_does_not_decide_what_stays_of_its_original(home, copy):
    taken = [one.id for one in Repository.open(home.repository).snapshots(NAME)]
    copy.backup()

    def removed(days):
        return retention.apply(
            repository=Repository.open(copy.repository), keyring=copy.ring(), name=NAME, keep_last=1, keep_within=0,
            now=time.time() + days * 86400, check=True,
        )["removed"]  # fmt: skip

    assert (removed(0), removed(8)) == ([], taken)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_rebuild_takes_nothing_from_a_copy_that_never_came_home(home, copy, strategy):
    newest = copy.backup()["snapshot"]
    damaged(home)
    done = home.rebuild(strategy)
    assert home.served() == VALUES
    assert [line for line in done["diagnose"]["passed_over"] if line.startswith(newest) and "another copy" in line]


def test_a_copy_is_suspect_once_its_original_is_saved_again_and_the_original_is_the_newest(home, copy, tmp_path):
    first = copy.backup()
    assert not first["suspect"]  # it may have taken the home's place
    assert "another memory_cluster name" in first["warnings"][0]
    with home.memory() as memory:
        memory.write(NS, "k5", "new")
    kept = home.backup()
    assert not kept["suspect"] and not kept["warnings"]
    again = copy.backup()
    assert again["suspect"] and kept["snapshot"] in again["reasons"][0]
    place = Repository.open(home.repository)
    assert place.newest_good(NAME, home.ring(), NS).id == kept["snapshot"]
    assert not home.backup()["suspect"]
    third = Site(tmp_path / "third")
    for name in ("master.key", "keyring.json"):
        shutil.copy(f"{home.folder}/{name}", f"{third.folder}/{name}")
    third.repository = home.repository
    filled(third, as_secondary=True)
    assert third.value_of(third.rows()["k5"]) == "new" and "only there" not in third.rows()


def test_a_copy_that_took_its_originals_place_is_rebuilt_from_both(home, copy):
    assert not copy.backup()["suspect"]
    with copy.memory() as memory:
        memory.write(NS, "later", 1)
        expected = {key: memory.read(NS, key) for key in memory.list_keys(NS)}
    assert not copy.backup()["suspect"]
    damaged(copy)
    copy.raw.set(NS, "k7", payload=bytes(40))
    assert copy.rebuild("soft")["diagnose"]["passed_over"] == []
    assert copy.served() == expected


class Application:
    """Its tables keep no log."""

    def open(self, path):
        with contextlib.closing(sqlite3.connect(path)) as con:
            con.execute("CREATE TABLE notes (who TEXT, name TEXT, v TEXT, PRIMARY KEY (who, name))")


class Notes(TablesSite):
    layout = "custom"

    def __init__(self, folder):
        super().__init__(folder, Application())
        self.store["tables"] = [{"name": "notes", "namespace": {"columns": ["who"]}, "key": ["name"], "payload": ["v"]}]


def test_tables_that_took_their_originals_place_are_rebuilt_from_its_snapshots(tmp_path):
    first, second = Notes(tmp_path / "first"), Notes(tmp_path / "second")
    first.sql("INSERT INTO notes VALUES (?, 'a', '1'), (?, 'b', '2')", NS, NS)
    first.backup()
    second.repository, second.keyring = first.repository, first.keyring
    filled(second)
    before = second.sql("SELECT * FROM notes ORDER BY name")
    second.sql("DELETE FROM notes WHERE name = 'a'")
    run = attempt()
    for step in STEPS:
        second.step(step, run, **{"plan": {"absent": "restore"}, "release": {"force": True}}.get(step, {}))
    assert second.sql("SELECT * FROM notes ORDER BY name") == before != []
