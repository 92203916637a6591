# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Tombstones go once no snapshot is left that could bring their records back, and nothing deleted comes back then."""

from __future__ import annotations

import os
import pathlib
import signal
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    holds,
    incident,
    isolate_records,
    release_records,
    restore,
    retention,
    snapshot,
    tombstone_retention,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt

VALUES = {f"user/{n:03d}": {"n": n} for n in range(40)}
GONE = [f"user/{n:03d}" for n in range(30, 35)]
DAY = 86400.0


#: For what no engine has a part in.
EMBEDDED = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)


@pytest.fixture
def site(bench, tmp_path):
    made = Site(tmp_path / "site", bench=bench)
    with made.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {"calm": 1})
        assert memory.read(NS, "user/000") == VALUES["user/000"]
    return made


def forget(site, keys=GONE, namespace=NS):
    with site.memory() as memory:
        for number, key in enumerate(keys):
            assert memory.delete(namespace, key, soft=bool(number % 2))


def take(site, purpose="scheduled", **options):
    """A full snapshot, to which no other one refers."""
    return snapshot.create(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, purpose=purpose, base=None,
        **options,
    )["snapshot"]  # fmt: skip


def keep_newest(site, days=0, grace=DAY, **options):
    """Retention of snapshots, as if so many days had passed."""
    return retention.apply(
        repository=site.repository, keyring=site.ring(), name=NAME, keep_last=1, keep_within=0, grace=grace,
        now=incident.now_us() / 1e6 + days * DAY, **options,
    )  # fmt: skip


def retain(site, keep=0.0, check=False):
    with site.open() as store:
        return tombstone_retention.apply(
            store=store, store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(),
            name=NAME, keep_tombstones=keep, check=check,
        )  # fmt: skip


def graves(site, namespace=NS):
    return sorted(key for key, row in site.rows(namespace).items() if row[6] is not None)


def bring(site, snapshot_id, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, snapshot_id=snapshot_id,
        namespace=NS, **options,
    )  # fmt: skip


def test_a_tombstone_outlives_every_snapshot_that_has_its_record(site):
    first = take(site)
    forget(site)
    assert retain(site) == {"changed": False, "tombstones": 0, "reason": ""}  # in no snapshot yet
    take(site)
    assert not retain(site)["changed"]
    assert keep_newest(site)["removed"] == [first]
    assert not retain(site)["changed"]  # it can be undeleted
    common = {"repository": Repository.open(site.repository), "keyring": site.ring(), "name": NAME, "by": "me"}
    assert holds.undelete(**common, reason="a doubt")["snapshots"] == [first]
    assert not retain(site)["changed"] and graves(site) == GONE
    assert holds.hold(**common, label=holds.UNDELETED, present=False)["changed"]
    keep_newest(site)
    assert keep_newest(site, days=2)["collected"] == [first]
    left = site.rows()
    assert retain(site, keep=DAY) == {"changed": False, "tombstones": 0, "reason": ""}
    assert retain(site, check=True) == {"changed": True, "tombstones": 5, "reason": ""} and site.rows() == left
    assert retain(site) == {"changed": True, "tombstones": 5, "reason": ""}
    assert site.rows() == {key: row for key, row in left.items() if key not in GONE}
    assert retain(site) == {"changed": False, "tombstones": 0, "reason": ""}
    # the newest snapshot has tombstones that are not there any more
    for key in ("user/003", "user/004"):
        site.raw.flip(NS, key)
    done = site.rebuild()
    assert not done["plan"]["lost_keys"] and done["plan"]["records"]["repair"] == 2
    assert done["validate"]["verdict"] == "pass"
    assert site.served() == {key: value for key, value in VALUES.items() if key not in GONE}


def settled(site):
    """Deletions that the one snapshot there is has."""
    forget(site)
    return take(site)


def manifest_of(site, snapshot_id):
    return next(pathlib.Path(site.repository["url"][len("file://") :]).glob(f"**/{snapshot_id}/manifest.json"))


@EMBEDDED
def test_nothing_goes_while_anything_is_in_doubt(site):
    with site.open() as store:
        given = {"store_params": site.store, "repository": None, "keyring": site.ring(), "name": NAME}
        found = tombstone_retention.apply(store=store, keep_tombstones=0.0, **given)
        assert found["reason"] == "there is no snapshot yet"
        assert tombstone_retention.apply(store=store, keep_tombstones=None, **given)["reason"] == ""
    newest = settled(site)
    with site.memory() as memory:
        memory.write_many("new", {"kept": 1, "gone": 1})
        memory.delete("new", "gone")
    run = attempt()
    site.step("isolate", run)
    assert retain(site)["reason"] == f"namespace {NS!r} is quarantined"
    site.step("release", run, force=True)
    with site.open() as store:
        claim = incident.claim(store, OTHER, attempt())
    assert retain(site)["reason"] == f"incident {claim.incident} is open"
    site.close_incident(OTHER)
    line = manifest_of(site, newest).read_bytes()
    manifest_of(site, newest).write_bytes(line.replace(b'"sequence":', b'"sequence":9'))
    assert f"snapshot {newest} cannot be read, so nobody knows what it holds" in retain(site)["reason"]
    manifest_of(site, newest).write_bytes(line)
    assert graves(site) == GONE
    # of the namespace that no snapshot holds nothing goes; of the others it does
    assert retain(site) == {"changed": True, "tombstones": 5, "reason": "no good snapshot holds namespace 'new'"}
    assert graves(site, "new") == ["gone"] and not graves(site)


def test_a_sharp_drop_and_what_damage_made_a_deletion_stay(site):
    settled(site)
    forged = "user/001"
    row, codec = site.rows()[forged], RecordCodec(NS)
    row = (*row[:6], row[4], *row[7:9])
    site.raw.set(NS, forged, deleted=row[6], checksum=codec.checksum((*row, b"")))
    site.raw.set(NS, GONE[0], deleted=1)
    assert retain(site) == {"changed": True, "tombstones": 4, "reason": ""}
    assert graves(site) == [forged, GONE[0]]
    forget(site, [f"user/{n:03d}" for n in range(10, 29)])
    doubted = take(site)
    assert retain(site)["reason"] == f"snapshot {doubted} is suspect"
    Repository.open(site.repository).accept(NAME, doubted, site.ring(), "me")
    keep_newest(site)
    keep_newest(site, days=2)
    assert retain(site)["tombstones"] == 19


@EMBEDDED
def test_another_copy_of_the_store_may_bring_the_record_home(site, bench):
    """A snapshot that was taken where the namespace was served meanwhile, and the copy that served it."""
    filled = take(site)
    copy = Site(site.folder, bench=bench, name="copy")
    copy.keyring, copy.repository = site.keyring, site.repository
    bring(copy, filled, create=True)
    there = take(copy)
    settled(site)
    assert retain(site)["reason"] == f"snapshot {there} is of another copy of this store"
    for one in (filled, there):
        remove(site, one)
    with copy.open() as store:
        claim = incident.claim(store, NS, attempt())
        store.note(claim, promoted_epoch=2)
        store.close_incident(claim)
    assert retain(site)["tombstones"] == 5
    forget(copy)
    for info in Repository.open(site.repository).snapshots(NAME):
        remove(site, info.id)
    take(copy)
    assert retain(copy)["reason"] == f"namespace {NS!r} served here in its home's place"
    assert graves(copy) == GONE


@EMBEDDED
def test_a_restore_that_took_the_deletion_back_counts_for_the_snapshots_after_it(site):
    before = take(site)
    forget(site)
    after = take(site)
    bring(site, before)
    between = take(site)  # has the records, and is newer than their deletion
    bring(site, after)
    take(site)
    rows = site.rows()
    remove(site, before)
    assert retain(site) == {"changed": False, "tombstones": 0, "reason": ""} and site.rows() == rows
    remove(site, between)
    assert retain(site)["tombstones"] == 5


def remove(site, snapshot_id):
    """For good."""
    folder = manifest_of(site, snapshot_id).parent
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_isolated_records_stay_and_do_not_come_back_over_a_deletion(site):
    chosen = ["user/010", "user/011", "user/012"]

    def step(work, **options):
        with site.open() as store:
            return work(store=store, store_params=site.store, namespace=NS, run=attempt(), **options)

    step(isolate_records.isolate_records, choice=choose(keys=chosen), open_keyring=site.ring)
    with site.memory() as memory:
        memory.write(NS, chosen[0], "anew")
        memory.delete(NS, chosen[0])
    settled(site)
    assert retain(site)["tombstones"] == 5
    assert graves(site) == chosen
    found = step(release_records.release_records, choice=None)
    assert (found["released"], found["conflict_keys"]) == (2, chosen[:1])
    assert graves(site) == chosen[:1]
    take(site)
    keep_newest(site)
    keep_newest(site, days=2)
    assert retain(site)["tombstones"] == 1  # nothing lies aside for it any more
    assert site.served() == {k: v for k, v in VALUES.items() if k not in GONE and k != chosen[0]}


def test_a_look_a_day_is_enough_and_a_kill_in_the_middle_costs_nothing(site, monkeypatch):
    settled(site)
    monkeypatch.setattr(tombstone_retention, "BATCH", 2)
    child = os.fork()
    if not child:
        try:
            store = open_store(site.store)
            drop, done = store.drop_tombstones, []

            def dying(*given):
                if done:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(drop(*given))
                return done[-1]

            store.drop_tombstones = dying
            tombstone_retention.apply(
                store=store, store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(),
                name=NAME, keep_tombstones=1e-6,
            )  # fmt: skip
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert graves(site) == GONE[2:]
    assert retain(site)["tombstones"] == 3
    with site.memory() as memory:
        memory.delete(NS, "user/000")
    take(site)
    keep_newest(site)
    keep_newest(site, days=2)
    note = os.path.join(incident.base(site.store), "backup", f"{NAME}.tombstone_retention.json")
    assert os.path.exists(note)
    with site.open() as store:
        identity = store.identity().store_id
    tombstone_retention.Note(site.store, NAME, None, identity, "tombstone_retention").keep(incident.now_us() / 1e6)
    assert retain(site, keep=30 * DAY)["tombstones"] == 0 and graves(site) == ["user/000"]
    os.truncate(note, 5)
    assert retain(site)["tombstones"] == 1


@EMBEDDED
def test_a_copy_that_backups_fill_follows(site, bench):
    copy = Site(site.folder, bench=bench, name="copy")
    copy.keyring, copy.repository = site.keyring, site.repository

    def follow():
        return bring(copy, take(site), as_secondary=True, create=True)

    follow()
    forget(site)
    follow()
    assert graves(copy) == GONE
    keep_newest(site)
    keep_newest(site, days=2)
    assert retain(copy) == {"changed": False, "tombstones": 0, "reason": ""}  # its home decides
    assert retain(site)["tombstones"] == 5
    assert follow()["changed"] and copy.rows() == site.rows() and not graves(copy)
