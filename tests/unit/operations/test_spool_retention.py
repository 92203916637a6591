# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Evidence in the spool goes when the time of its incident is over, and nothing that anybody needs goes with it."""

from __future__ import annotations

import os
import signal

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import spool_retention
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.holds import hold
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, Site, attempt


def away(site):
    """A repository that answers with an error, at once."""
    folder = os.path.join(site.folder, "away")
    os.makedirs(os.path.join(folder, "repository.json"), exist_ok=True)
    return {"url": "file://" + folder}


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "site")
    with made.memory() as memory:
        memory.write(NS, "key", 1)
    made.backup()
    made.spool = os.path.join(made.folder, "spool")
    return made


def spooled(site, close=True):
    """(incident, snapshot) of one whose evidence lies in the spool."""
    run, there = attempt(), site.repository
    site.step("isolate", run)
    site.repository = away(site)
    taken = site.step("forensic", run, spool=site.spool)
    site.repository = there
    assert taken["spooled"]
    if close:
        site.step("release", run, force=True)
        with site.open() as store:
            opened = [one for one in store.incidents(NS) if one.state == "open"]
        if opened:
            site.close_incident()
    return taken["incident"], taken["snapshot"]


def retain(site, keep=0.0, repository=True, check=False, **options):
    with site.open() as store:
        return spool_retention.apply(
            store=store, store_params=site.store, spool=site.spool, keyring=site.ring(), name=NAME, keep=keep,
            repository=Repository.open(site.repository) if repository else None, check=check, **options,
        )  # fmt: skip


def lying(site):
    place = Repository.open({"url": "file://" + site.spool})
    return [info.id for info in place.snapshots(NAME, site.ring()) if not info.problem]


def test_the_only_evidence_goes_with_a_warning_once_its_incident_is_over(site):
    assert retain(site) == {"changed": False, "spooled": [], "spooled_kept": {}, "warnings": []}
    incident, snapshot = spooled(site)
    assert retain(site, keep=3600.0)["changed"] is False and lying(site) == [snapshot]
    would = retain(site, check=True)
    assert would["spooled"] == [snapshot] and "would be removed, the only evidence" in would["warnings"][0]
    assert lying(site) == [snapshot]
    done = retain(site)
    assert done["spooled"] == [snapshot] and f"incident {incident}" in done["warnings"][0]
    assert lying(site) == [] and not os.path.exists(os.path.join(site.spool, "snapshots", NAME))
    assert retain(site) == {"changed": False, "spooled": [], "spooled_kept": {}, "warnings": []}


def test_what_is_open_held_or_unclear_stays_and_says_why(site):
    _incident, first = spooled(site)
    assert list(retain(site, repository=False)["spooled_kept"]) == [first]  # nobody can say whether it is held
    hold(
        repository=Repository.open({"url": "file://" + site.spool}), keyring=site.ring(), name=NAME, by="me",
        label="case-1", present=True, snapshots=[first], reason="a dispute",
    )  # fmt: skip
    assert retain(site)["spooled_kept"] == {first: "it is held by case-1"}
    _other, second = spooled(site, close=False)
    busy = "its namespace is quarantined or has an open incident"
    assert retain(site)["spooled_kept"] == {first: busy, second: busy}
    manifest = os.path.join(site.spool, "snapshots", NAME, second, "manifest.json")
    with open(manifest, "r+b") as file:
        file.truncate(20)
    assert "cannot be read" in retain(site)["spooled_kept"][second] and first in lying(site)


def test_a_copy_in_the_repository_is_evidence_enough_and_a_killed_run_is_finished(site):
    run, there = attempt(), site.repository
    site.step("isolate", run)
    site.repository = away(site)
    snapshot = site.step("forensic", run, spool=site.spool)["snapshot"]
    site.repository = there
    assert not site.step("forensic", run)["spooled"]
    site.step("release", run, force=True)
    unlinks = [0]

    def killed():
        unlink = os.unlink

        def third(path, *args, **kwargs):
            unlinks[0] += 1
            if unlinks[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            unlink(path, *args, **kwargs)

        os.unlink = third
        retain(site)

    child = os.fork()
    if child == 0:
        try:
            killed()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    done = retain(site)
    assert done == {"changed": True, "spooled": [snapshot], "spooled_kept": {}, "warnings": []}
    assert not os.path.exists(os.path.join(site.spool, "snapshots", NAME, snapshot))
