# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Scrub and drill: what is checked first, what makes them fail, and what evidence stays."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite_reader import SqliteReader
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    NamespaceUnknown,
    SnapshotUnusable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import drill, evidence, scratch, scrub
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, OTHER, Site


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    with one.memory() as memory:
        for namespace in (NS, OTHER):
            memory.write_many(namespace, {f"key-{n:03}": {"n": n} for n in range(60)})
    one.backup()
    return one


def scrubbed(site, **more):
    with site.open() as store:
        return scrub.scrub(
            store=store, store_params=site.store, keyring=site.ring(), name=NAME,
            repository=Repository.open(site.repository), **more,
        )  # fmt: skip


def drilled(site, **more):
    place = Repository.open(site.repository)
    more = {"keyring_params": site.keyring, "repository": place, **more}
    return drill.drill(name=NAME, scratch=site.folder, **more)


def packs(site):
    return sorted(pathlib.Path(site.folder, "repository", "snapshots").rglob("*.pack"))


def break_pack(site):
    data = bytearray(packs(site)[0].read_bytes())
    data[len(data) // 2] ^= 1
    packs(site)[0].write_bytes(data)


def test_scrub_takes_turns_and_always_does_something(site):
    told = scrubbed(site, check=True)
    note = os.path.join(site.store["path"] + ".memops", scrub.FILE)
    assert told["checked"] == [] and len(told["left"]) == 3 and not os.path.exists(note)
    turns = [scrubbed(site, seconds=0) for _turn in range(4)]
    assert [(len(one["checked"]), one["verdict"]) for one in turns] == [(1, "pass")] * 4
    names = [one["checked"][0]["name"] for one in turns]
    assert len(set(names[:3])) == 3 and names[3] == names[0]
    assert turns[3]["checked"][0]["last"] and not turns[0]["checked"][0]["last"]
    full = scrubbed(site)
    assert (full["namespaces"], full["snapshots"], full["left"]) == (2, 1, [])
    assert full["findings"] == {NS: 0, OTHER: 0}


def test_scrub_finds_damage_and_still_checks_the_rest(site):
    site.raw.flip(NS, "key-007")
    break_pack(site)
    found = scrubbed(site)
    assert found["verdict"] == "fail" and found["findings"] == {NS: 1, OTHER: 0}
    assert {one["name"]: one["verdict"] for one in found["checked"] if one["kind"] == "namespace"} == {
        NS: "fail", OTHER: "pass",
    }  # fmt: skip
    assert [one["verdict"] for one in found["checked"] if one["kind"] == "snapshot"] == ["fail"]
    assert any(NS in why for why in found["reasons"])
    with pytest.raises(NamespaceUnknown):
        scrubbed(site, namespaces=["nobody"])


def test_a_note_that_is_damaged_means_only_that_all_is_checked_again(site):
    scrubbed(site)
    note = pathlib.Path(site.store["path"] + ".memops", scrub.FILE)
    assert set(json.loads(note.read_text())["namespaces"]) == {NS, OTHER}
    note.write_text('{"namespaces": {"agent-7": 3}}')
    assert scrubbed(site)["namespaces"] == 2


def test_drill_passes_measures_and_keeps_the_evidence(site, tmp_path):
    before = site.untouched(NS)
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"namespace": "agent-7", "key": "key-001", "expect": {"n": 1}}\n')
    found = drilled(site, benchmark=str(cases), rto=600.0, owner="the test")
    assert found["verdict"] == "pass" and found["reasons"] == [] and found["rotated"] == found["records"] > 120
    assert set(found["phases"]) == {"restore", "scan", "benchmark", "rotate"}
    assert site.untouched(NS) == before and not list(tmp_path.glob("**/memops-scratch-*"))
    kept = evidence.newest(Repository.open(site.repository), site.ring(), NAME)
    assert kept["verdict"] == "pass" and kept["snapshot"] == found["snapshot"] and kept["owner"] == "the test"
    assert pathlib.Path(site.folder, "repository", found["evidence"]).is_file()


def test_drill_fails_and_the_failure_is_kept(site, tmp_path):
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"key": "key-001", "expect": {"n": 2}}\n')
    low = drilled(site, benchmark=str(cases))
    assert low["verdict"] == "fail" and "accuracy" in low["reasons"][0]
    slow = drilled(site, rto=0.0)
    assert slow["verdict"] == "fail" and "RTO" in slow["reasons"][0]
    break_pack(site)
    broken = drilled(site)
    assert broken["verdict"] == "fail" and broken["reasons"]
    kept = evidence.newest(Repository.open(site.repository), site.ring(), NAME)
    assert (kept["number"], kept["verdict"], kept["reasons"]) == (2, "fail", broken["reasons"])
    shutil.rmtree(pathlib.Path(site.folder, "repository", "snapshots"))
    assert drilled(site)["verdict"] == "fail"  # there is no snapshot at all


def test_what_a_killed_drill_left_goes_with_the_next_one_and_what_is_in_use_stays(site, tmp_path):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), pytest.MonkeyPatch.context() as patch:
            patch.setattr(drill.rotate, "rotate", lambda **given: os.kill(os.getpid(), signal.SIGKILL))
            drilled(site)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (left,) = pathlib.Path(site.folder).glob("memops-scratch-*")
    assert list(left.glob("*.db"))
    with scratch.folder(site.folder) as mine:
        assert not left.exists()  # whoever needs such a folder looks
        theirs = pathlib.Path(site.folder, "memops-scratch-of-an-older-program")
        theirs.mkdir()
        assert drilled(site)["verdict"] == "pass"
        assert sorted(pathlib.Path(site.folder).glob("memops-scratch-*")) == sorted([pathlib.Path(mine), theirs])
    assert not os.path.exists(mine)


def test_who_is_killed_while_it_removes_its_scratch_folder_leaves_what_the_next_one_removes(tmp_path):
    def removed(at):
        """Killed after so many files were removed; whether it was."""
        unlink, done = os.unlink, []

        def cut(*given, **more):
            unlink(*given, **more)
            done.append(given)
            if len(done) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        with scratch.folder(str(tmp_path)) as path:
            lock = os.path.join(path, scratch.LOCK)
            for name in ("store.db", "store.db-wal", "packs/one"):
                file = pathlib.Path(path, name)
                file.parent.mkdir(exist_ok=True)
                file.write_text("memories")
            os.rename(lock, lock + "-")  # a file system may list the newest name first
            os.rename(lock + "-", lock)
            os.unlink = cut

    for at in (1, 2, 3, 4):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                removed(at)
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        with scratch.folder(str(tmp_path)) as mine:
            assert not [one for one in tmp_path.rglob("*") if one.is_file() and not one.is_relative_to(mine)]


def test_a_slip_of_the_pen_is_no_drill_that_failed(site):
    with pytest.raises(InvalidInput, match="There is no snapshot '20260101T000000Z-00000000'"):
        drilled(site, snapshot_id="20260101T000000Z-00000000")
    assert evidence.newest(Repository.open(site.repository), site.ring(), NAME) is None


def test_a_drill_that_cannot_tell_is_no_pass(site, tmp_path):
    nowhere = drill.drill(
        name=NAME, scratch=str(tmp_path / "none"), keyring_params=site.keyring,
        repository=Repository.open(site.repository),
    )  # fmt: skip
    assert nowhere["verdict"] == "could-not-verify" and "cannot be written: No such file" in nowhere["reasons"][0]
    other = tmp_path / "other.key"
    other.write_text("22" * 32)
    other.chmod(0o600)
    found = drilled(site, keyring_params={**site.keyring, "path": None, "master_key_file": str(other)})
    assert found["verdict"] == "could-not-verify"
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"namespace": "nobody", "key": "k", "expect": 1}\n')
    assert drilled(site, benchmark=str(cases))["verdict"] == "could-not-verify"


def test_evidence_that_was_changed_is_met(site):
    first = drilled(site, rotation=False)
    path = pathlib.Path(site.folder, "repository", first["evidence"])
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotUnusable):
        evidence.newest(Repository.open(site.repository), site.ring(), NAME)


def test_what_the_engine_checks_itself_is_asked_once_however_many_namespaces_there_are(site, monkeypatch):
    with site.memory() as memory:
        for number in range(4):
            memory.write(f"tenant-{number}", "k", number)
    asked = []
    structure = SqliteReader.structure
    monkeypatch.setattr(SqliteReader, "structure", lambda self: asked.append(1) or structure(self))
    assert scrubbed(site)["verdict"] == "pass" and len(asked) == 1
    monkeypatch.setattr(SqliteReader, "structure", lambda self: ["row 7 missing from index x"])
    found = scrubbed(site)
    assert found["verdict"] == "fail" and len(found["reasons"]) == 1 and "1 × index" in found["reasons"][0]
