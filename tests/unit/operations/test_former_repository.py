# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A mistyped address of the repository, or a disk that is not mounted, begins no other one without a word."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import RepositoryGone, RepositoryRefused
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot_step
from tests.unit.operations.runbook import NAME, NS, Site, attempt


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write(NS, "k", 1)
    return site


def backup(site, check=False, **options):
    with site.open() as store:
        return snapshot_step.publish(
            store=store, store_params=site.store, keyring=site.ring(), repository=site.repository, name=NAME,
            purpose="scheduled", namespaces=None, run=attempt(**options.pop("run", {})), check=check, **options,
        )  # fmt: skip


def elsewhere(site):
    """(the former place, the one that is set now)"""
    former = site.repository["url"]
    site.repository = {"url": former + "2"}
    return former, pathlib.Path(site.repository["url"].removeprefix("file://"))


def test_the_first_repository_is_made_and_told_of_once(site):
    for check, made in ((True, True), (False, True), (True, False), (False, False)):
        done = backup(site, check=check)
        assert (done["repository_made"], done["warnings"]) == (made, [])


def test_a_forensic_snapshot_in_no_repository_warns(site):
    run = attempt()
    site.step("isolate", run)
    made = f"Made a new repository in {site.repository['url']}. If that was not meant, correct memory_repository.url."
    assert made in site.step("forensic", run)["warnings"]


def test_a_store_that_was_saved_elsewhere_gets_another_repository_only_when_told_so(site):
    backup(site)
    former, place = elsewhere(site)
    for check in (True, False):
        with pytest.raises(RepositoryRefused, match=f", and {NAME} was saved to {former} before. Next: correct"):
            backup(site, check=check)
    assert not place.exists()
    (told,) = backup(site, new_repository=True, check=True)["warnings"]
    assert "would be made" in told and not place.exists()
    (told,) = backup(site, new_repository=True)["warnings"]
    assert told.startswith(f"Made a new repository in file://{place}. {NAME} was saved to {former} before.")
    assert backup(site)["warnings"] == []


def test_a_repository_that_is_gone_is_not_made_anew(site):
    backup(site)
    shutil.rmtree(site.repository["url"].removeprefix("file://"))
    with pytest.raises(RepositoryRefused, match=f"is gone: {NAME} was saved there before. Next: mount or mend"):
        backup(site)


def test_evidence_goes_to_the_spool_while_the_repository_is_not_mounted(site, tmp_path):
    """The mount point is there, and empty."""
    backup(site)
    place = pathlib.Path(site.repository["url"].removeprefix("file://"))
    disk, spool, run = tmp_path / "disk", tmp_path / "spool", attempt()
    place.rename(disk)
    place.mkdir()
    with pytest.raises(RepositoryGone):
        backup(site, spool=str(spool))
    site.step("isolate", run)
    with pytest.raises(RepositoryGone):
        site.step("forensic", run)
    taken = site.step("forensic", run, spool=str(spool))
    assert (taken["spooled"], taken["location"]) == (True, f"file://{spool}")
    assert f"is gone: {NAME} was saved there before. The snapshot lies in file://{spool} until" in taken["warnings"][-1]
    assert list(place.iterdir()) == []
    place.rmdir()
    disk.rename(place)
    again = site.step("forensic", run, spool=str(spool))
    assert (again["spooled"], again["changed"], again["location"]) == (False, True, site.repository["url"])


def test_another_repository_that_is_there_is_told_of(site, tmp_path):
    other = Site(tmp_path / "other")
    with other.memory() as memory:
        memory.write(NS, "k", 1)
    backup(site)
    former = site.repository["url"]
    site.repository, other.store["name"] = other.repository, "other"
    with other.open() as store:
        snapshot_step.publish(
            store=store, store_params=other.store, keyring=other.ring(), repository=other.repository, name="other",
            purpose="scheduled", namespaces=None, run=attempt(),
        )  # fmt: skip
    for check in (True, False):
        (told,) = backup(site, check=check)["warnings"]
        assert "is another repository than the one before: main was saved to " + former in told
    assert backup(site)["warnings"] == []


def test_where_nothing_can_be_noted_a_backup_goes_on(site, tmp_path):
    """A file stands where the folder would be."""
    (tmp_path / "file").write_text("")
    for work_dir in (str(tmp_path / "file"), os.devnull):
        assert backup(site, run={"work_dir": work_dir})["snapshot"]
