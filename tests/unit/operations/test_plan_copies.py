# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records that no log entry explains: a backup that was taken since does not prove them."""

from __future__ import annotations

import pytest

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
