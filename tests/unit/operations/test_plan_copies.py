# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records that no log entry explains, or that are other than it says: a backup that was taken since proves neither."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec, encode_value
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_copies import REWRITTEN
from tests.unit.operations.runbook import NS, Site, attempt

VALUES = {f"k{n:02d}": n for n in range(30)}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
    site.backup()
    return site


def test_what_was_written_past_the_log_is_not_proven_by_backups_taken_since(site):
    site.unlocked({"k01": "forged", "new": "forged"}, logged=False)
    run = attempt()
    assert not site.backup()["suspect"]
    site.step("isolate", run)
    assert not site.backup()["suspect"]
    done = site.rebuild(run=run)
    assert done["plan"]["suspect_keys"] == ["k01", "new"]
    assert site.served() == VALUES


def test_backups_prove_what_was_logged_when_they_were_taken(site):
    """The log's entries were pruned since, or all of a table was lost and counts again from an older state."""
    with site.memory() as memory:
        memory.write_many(NS, {f"later{n}": n for n in range(5)})
        memory.write(NS, "k02", "rewritten")
    site.backup()
    served = site.served()
    with site.sql() as con:
        con.execute("DELETE FROM memory_access_log WHERE key LIKE 'later%' OR (key = 'k02' AND sequence > 5)")
        con.execute("DELETE FROM memops_given")
        con.execute("INSERT INTO memops_given SELECT 1, min(sequence), max(sequence) FROM memory_access_log")
    with site.open() as store, store.reader() as reader:
        assert reader.log_health()["intact"]
    done = site.rebuild()
    assert not done["plan"]["suspect_keys"] and done["plan"]["records"]["good_before"] == len(served) + 1
    assert site.served() == served


def rewrite(site, key, value):
    """By a program that has the keys: under its own version, with all that makes a record sound."""
    codec, row = RecordCodec(NS), site.rows()[key]
    payload = site.ring().seal(encode_value(value), codec.head(row), row[7])
    site.raw.put(NS, [(*row[:8], payload, codec.checksum((*row[:8], payload)))])


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_was_rewritten_under_its_own_version_is_not_proven_by_backups_taken_since(site, strategy):
    rewrite(site, "k01", "forged")
    rewrite(site, "k02", "forged")
    site.backup()
    site.backup()
    site.raw.remove(NS, ["k02"])  # the log knows which copy is the right one
    done = site.rebuild(strategy)
    assert done["plan"]["listed"]["repair"] == {"k01": REWRITTEN, "k02": "absent"}
    assert site.served() == VALUES and done["validate"]["integrity"]["verdict"] == "pass"
    if strategy == "soft":
        assert [site.value_of(row) for row in site.aside()["k01"]] == ["forged"]


def test_without_a_copy_from_before_it_is_lost_and_lies_aside(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
    rewrite(site, "k01", "forged")
    site.backup()
    assert site.rebuild("soft")["plan"]["lost_keys"] == ["k01"]
    assert "k01" not in site.served() and [site.value_of(row) for row in site.aside()["k01"]] == ["forged"]


def test_a_rotation_explains_another_checksum_of_what_was_written_before_it(site):
    rotate.rotate(store_params=site.store, keyring=site.ring(), namespace=NS, force=True)
    with site.memory() as memory:
        memory.write(NS, "k02", "since")
    site.backup()
    assert site.rebuild()["plan"]["records"]["good_before"] == len(VALUES) + 1  # the canary
    site.close_incident()
    site.backup()
    rewrite(site, "k02", "forged")
    site.backup()
    assert site.rebuild()["plan"]["listed"]["repair"] == {"k02": REWRITTEN}
    assert site.served() == {**VALUES, "k02": "since"}


def test_what_nobody_logged_does_not_come_back_from_a_backup_that_has_it(site):
    site.unlocked({"k01": "forged", "k02": "forged", "new": "forged"}, logged=False)
    site.backup()
    site.raw.remove(NS, ["k01", "new"])
    site.raw.flip(NS, "k02")
    plan = site.rebuild()["plan"]
    assert plan["listed"]["repair"] == {"k01": "absent", "k02": "checksum"} and plan["absent_keys"] == ["new"]
    assert plan["could_not_verify"] == ["1 record without a log entry"]
    assert site.served() == VALUES


def test_a_backup_whose_own_log_has_the_entry_proves_its_copies(site):
    """The whole file was put back as it had been before."""
    former = os.path.join(site.folder, "former.db")
    shutil.copy(site.path, former)
    with site.memory() as memory:
        memory.write_many(NS, {"k01": "rewritten", "new": "later"})
        memory.delete(NS, "k02")
    served = site.served()
    site.backup()
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(site.path + suffix)
    shutil.copy(former, site.path)
    plan = site.rebuild()["plan"]
    assert not plan["absent_keys"] and not plan["could_not_verify"]
    assert site.served() == served
