# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor: a sound set-up passes, and of every check a set-up in which it fails; nothing is changed by looking."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    drill,
    export,
    holds,
    restore,
    scrub,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor import doctor
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor_base import Limits
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor_clock import settle
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.engines import Bench
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt

DAY = 86400.0


def filled(one):
    with one.memory() as memory:
        memory.write_many(NS, {f"key-{n:03}": {"n": n} for n in range(20)})
    return one


@pytest.fixture
def site(tmp_path):
    return filled(Site(tmp_path))


@pytest.fixture
def any_site(bench, tmp_path):
    """On every engine in turn."""
    return filled(Site(tmp_path / "site", bench=bench))


def sound(site):
    """Everything that the schedules do, done once."""
    site.backup()
    place = Repository.open(site.repository)
    newest = place.newest_good(NAME, site.ring()).id
    verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=newest, depth="opened")
    drill.drill(repository=place, keyring_params=site.keyring, name=NAME, scratch=site.folder)
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)


def examined(site, **more):
    opened = []

    def opener():
        opened.append(open_store(site.store))
        return opened[-1]

    arguments = {
        "open_store": opener, "store_params": site.store, "keyring_params": site.keyring, "name": NAME,
        "repository_params": site.repository, "open_keyring": site.ring, "limits": Limits(free=0.0),
        "open_repository": lambda: Repository.open(site.repository), **more,
    }  # fmt: skip
    sent = time.time()
    try:
        found = doctor(**arguments)
        if "now" not in more:
            settle(found, sent, time.time())
        return found
    finally:
        for store in opened:
            store.close()


def of(found, check):
    (one,) = [one for one in found["checks"] if one["check"] == check]
    return one


def failed(found, check, *words):
    one = of(found, check)
    assert one["verdict"] == "fail" and found["verdict"] == "fail" and check in found["faults"], one
    assert one["next"]
    for word in words:
        assert word in one["says"] + one["next"], one


def tree(folder):
    return {str(path): path.read_bytes() for path in pathlib.Path(folder).rglob("*") if path.is_file()}


def test_a_sound_set_up_passes_and_looking_changes_nothing(any_site):
    site = any_site
    sound(site)
    before, rows = tree(os.path.join(site.folder, "repository")), site.untouched(NS)
    found = examined(site)
    odd = {"object_lock": "not-applicable"}  # not on a disk
    if site.store["engine"] == "valkey":
        failed(found, "fence", "no ACL file", "set aclfile")  # the tests' server has none
        odd["fence"] = "fail"
    assert {one["check"]: one["verdict"] for one in found["checks"] if one["verdict"] != "pass"} == odd
    assert found["changed"] is False
    assert tree(os.path.join(site.folder, "repository")) == before and site.untouched(NS) == rows


def test_nothing_was_ever_done(site):
    found = examined(site)
    failed(found, "repository", "run a backup")
    asked = ("backup", "verified", "drill", "retention", "object_lock", "conditional_put")
    assert {of(found, one)["verdict"] for one in asked} == {"could-not-verify"}
    failed(found, "integrity", "never scrubbed", "memops.agent_memory.scrub")
    Repository.open(site.repository, create=True)
    found = examined(site)
    failed(found, "backup", "memops.agent_memory.backup")
    failed(found, "verified", "memops.agent_memory.verify")
    failed(found, "drill", "memops.agent_memory.drill")
    site.backup()
    failed(examined(site, only=["verified"]), "verified", "The one good snapshot was never verified.")


def test_all_that_grows_old(site):
    sound(site)
    found = examined(site, now=time.time() + 100 * DAY)
    mending = {"backup": "backup", "drill": "drill", "integrity": "scrub", "key_age": "rotate_keys"}
    for check, playbook in mending.items():
        failed(found, check, "memops.agent_memory." + playbook)
    assert of(found, "clock")["verdict"] == "could-not-verify"  # the controller puts its own in


def test_the_way_to_the_host_and_back_is_no_difference_of_clocks(site):
    found = examined(site, only=["clock"], repository_params=None, copy=True)
    at, took = found["clock"]["at"], found["clock"]["took"]
    for sent, answered, seconds in ((-80, 1, 0), (-1, 80, 0), (-100, -60, 60), (60, 100, 60), (0, 0, 0)):
        told = {**found, "checks": [*found["checks"], {"check": "space", "verdict": "pass", "says": "", "next": ""}]}
        settle(told, at + sent, at + answered + took)
        one = of(told, "clock")
        assert one["verdict"] == told["verdict"] == ("fail" if seconds else "pass"), (sent, answered, one)
        assert f"the controller's differ by {'1 min' if seconds else '0 s'};" in one["says"]
        assert told["faults"] == (["clock"] if seconds else [])
    settle(refused := {"failed": True, "msg": "no such host"}, 0, 1)
    assert set(refused) == {"failed", "msg"}


def test_what_failed_is_told(site):
    sound(site)
    place = Repository.open(site.repository)
    pack = next(pathlib.Path(site.folder, "repository", "snapshots").rglob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    newest = place.newest_good(NAME, site.ring()).id
    verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=newest, depth="opened")
    drill.drill(repository=place, keyring_params=site.keyring, name=NAME, scratch=site.folder)
    site.raw.flip(NS, "key-007")
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)
    found = examined(site)
    failed(found, "verified", newest)
    failed(found, "drill", "ended as fail")
    failed(found, "integrity", f"memory_namespace={NS}")
    assert found["faults"][0] == "integrity", "memories that are damaged now come before what is not rehearsed"


def test_of_many_it_says_how_many_and_which_first(site):
    names = [f"tenant-{n:02}" for n in range(12)]
    with site.memory() as memory:
        for name in names:
            memory.write(name, "key", 1)
    few = [NS, *names[:9]]
    failed(examined(site, only=["integrity"]), "integrity", f"13 namespaces ({', '.join(few)} …) were never scrubbed")

    def scrubbed(namespaces=None):
        with site.open() as store:
            scrub.scrub(
                store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME,
                namespaces=namespaces,
            )  # fmt: skip

    scrubbed()
    late = {"only": ["integrity"], "now": time.time() + 3 * DAY}
    scrubbed(names[3:])
    failed(examined(site, **late), "integrity", "13 namespaces (", "were last scrubbed up to 3 d ago; the limit is 2 d")
    with site.memory() as memory:
        memory.write("zoe", "key", 1)
    failed(examined(site, **late), "integrity", "zoe was never scrubbed; 13 namespaces (", "were last scrubbed up to")
    for name in (names[3], names[1]):
        with site.sql() as con:
            con.execute("UPDATE memory_records SET payload = x'00' WHERE generation = "
                        "(SELECT generation FROM memops_namespace WHERE name = ?)", (name,))  # fmt: skip
    scrubbed()
    both = """-e '{"memory_namespace": ["tenant-01", "tenant-03"]}'"""
    failed(examined(site), "integrity", "damage in 2 namespaces (tenant-01, tenant-03)", f"agent_memory.rebuild {both}")
    for name in (names[3], names[1]):
        site.step("isolate", attempt(), namespace=name)
    found = examined(site, now=time.time() + 600)
    failed(found, "quarantine", "Quarantined: 2 namespaces (tenant-01, tenant-03)", f"agent_memory.rebuild {both}")
    failed(found, "lease", "2 incidents were left so: 2 namespaces (")
    with contextlib.closing(sqlite3.connect(site.path)) as con:
        con.execute("DROP TRIGGER memops_fence_update")
        con.execute("DROP TRIGGER memops_fence_insert")
    failed(examined(site, only=["fence"]), "fence", "The fence is not whole", "such remarks in all)")


def test_after_a_rebuild_that_passed_a_scrub_is_next_and_not_another_rebuild(site):
    site.backup()
    with site.memory() as memory:
        memory.read_many(NS, [f"key-{n:03}" for n in range(20)])  # for the probes
    site.raw.flip(NS, "key-007")
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)
    failed(examined(site, only=["integrity"]), "integrity", "agent_memory.rebuild")
    assert site.rebuild(force=False)["release"]["changed"]
    one = of(examined(site, only=["integrity"]), "integrity")
    assert one["verdict"] == "could-not-verify" and one["next"].endswith("agent_memory.scrub"), one
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)
    assert of(examined(site, only=["integrity"]), "integrity")["verdict"] == "pass"


def test_what_cannot_be_opened(site):
    sound(site)
    os.rename(site.path, site.path + ".away")
    found = examined(site)
    failed(found, "store")
    assert of(found, "fence")["verdict"] == of(found, "quarantine")["verdict"] == "could-not-verify"
    os.rename(site.path + ".away", site.path)
    os.rename(site.keyring["path"], site.keyring["path"] + ".away")
    found = examined(site)
    failed(found, "keyring")
    assert of(found, "key_age")["verdict"] == of(found, "backup")["verdict"] == "could-not-verify"


def test_a_quarantine_and_a_lease_that_were_left(any_site):
    site = any_site
    sound(site)
    site.step("isolate", attempt())
    found = examined(site, now=time.time() + 600)
    failed(found, "quarantine", NS, f"memops.agent_memory.rebuild -e memory_namespace={NS}")
    failed(found, "lease", "left incident", "the test")
    assert "does not hold" not in of(found, "fence")["says"]


@pytest.mark.parametrize("isolate", [False, True])
def test_a_fence_that_can_be_bypassed(site, isolate):
    sound(site)
    if isolate:
        site.step("isolate", attempt())
    with contextlib.closing(sqlite3.connect(site.path)) as con:
        con.execute("DROP TRIGGER memops_fence_update")
    failed(examined(site), "fence", "fence")


def test_who_may_read_what_he_need_not_is_a_fault_of_the_set_up(postgresql_server, tmp_path):
    bench = Bench("postgresql", tmp_path, postgresql_server)
    site = filled(Site(tmp_path / "site", bench=bench))
    role = f"reader_{os.getpid()}"
    with postgresql_server.connect() as con:
        con.execute(f"CREATE ROLE {role} LOGIN BYPASSRLS")
    try:
        failed(examined(site), "fence", f"{role} (BYPASSRLS)", "application_user")
    finally:
        with postgresql_server.connect() as con:
            con.execute(f"DROP ROLE {role}")
    assert of(examined(site), "fence")["verdict"] == "pass"
    bench.close()


def test_the_baseline_of_one_namespace_is_neither_the_backup_nor_the_drill(site):
    """What came after the last snapshot of everything holds one namespace alone: a rebuild ends with it."""
    with site.memory() as memory:
        memory.write_many(OTHER, {"key": {"n": 1}})
    sound(site)
    whole = site.backup()
    site.step("baseline", attempt())
    place = Repository.open(site.repository)
    found = drill.drill(repository=place, keyring_params=site.keyring, name=NAME, scratch=site.folder, rotation=False)
    assert (found["snapshot"], found["left_out"], set(found["namespaces"])) == (whole["snapshot"], [], {NS, OTHER})
    common = {"repository": place, "keyring": site.ring(), "name": NAME}
    assert export.export(directory=os.path.join(site.folder, "export"), **common)["snapshot"] == whole["snapshot"]
    brought = restore.restore_whole(store_params={**site.store, "path": f"{site.path}.new"}, create=True, **common)
    assert (brought["snapshot"], set(brought["namespaces"])) == (whole["snapshot"], {NS, OTHER})
    taken = place.snapshot(NAME, whole["snapshot"], site.ring()).info.at / 1e6
    for limit, verdict in ((0.0, "fail"), (900.0, "pass")):  # the limit itself, not twice it
        at = taken + limit * 0.9 + 1
        one = of(examined(site, now=at, limits=Limits(free=0.0, rpo=limit), only=["backup"]), "backup")
        assert one["verdict"] == verdict and f"that holds {OTHER}" in one["says"], one
    late = examined(site, now=taken + 1000, limits=Limits(free=0.0, rpo=900.0), only=["backup"])
    failed(late, "backup", "16.7 min", "15 min")


def test_a_drill_of_a_part_does_not_count_as_the_drill(site):
    with site.memory() as memory:
        memory.write_many(OTHER, {"key": {"n": 1}})
    site.backup()
    part = site.step("baseline", attempt())["snapshot"]
    given = {
        "repository": Repository.open(site.repository), "keyring_params": site.keyring, "name": NAME,
        "scratch": site.folder, "rotation": False,
    }  # fmt: skip
    found = drill.drill(snapshot_id=part, **given)
    assert found["verdict"] == "pass" and found["left_out"] == [OTHER]
    assert found["not_rehearsed"] == [f"what this drill left out: {OTHER}"]
    failed(examined(site, only=["drill"]), "drill", "No drill rehearsed everything", OTHER, "memops.agent_memory.drill")
    drill.drill(**given)
    drill.drill(snapshot_id=part, **given)
    assert of(examined(site, only=["drill"]), "drill")["verdict"] == "pass"


def test_no_room_and_a_layout_without_keys(site):
    sound(site)
    failed(examined(site, limits=Limits(free=1.1)), "space", "df -h")
    other = examined(site, store_params={**site.store, "layout": "keyspace"})
    assert of(other, "key_age")["verdict"] == "not-applicable"


def test_an_endpoint_that_ignores_conditional_puts(site):
    sound(site)
    place = Repository.open(site.repository)
    place.seen["conditional_put"] = False
    failed(examined(site, open_repository=lambda: place), "conditional_put", "two writers")


def test_only_what_is_asked_for_and_what_it_needs(site):
    sound(site)
    assert [one["check"] for one in examined(site, only=["key_age"])["checks"]] == ["key_age"]
    old = examined(site, only=["key_age"], now=time.time() + 100 * DAY)
    assert old["faults"] == ["key_age"]
    os.rename(site.keyring["path"], site.keyring["path"] + ".away")
    assert examined(site, only=["key_age"])["faults"] == ["keyring"]
    with pytest.raises(InvalidInput, match="no check 'key'"):
        examined(site, only=["key"])


def test_what_retention_does_not_remove(site):
    sound(site)
    place = Repository.open(site.repository)
    one = place.newest_good(NAME, site.ring()).id
    given = {"repository": place, "keyring": site.ring(), "name": NAME, "by": "ann", "reason": "a dispute"}
    holds.hold(label="case-17", present=True, snapshots=[one], **given)
    assert "holds: case-17 on 1" in of(examined(site), "retention")["says"]
    site.raw.remove(NS, [f"key-{n:03}" for n in range(15)])
    suspect = site.backup()
    accept = f"agent_memory.accept -e memory_snapshot={suspect['snapshot']} -e '"
    accept += """{"memory_accept_reason": "<why it is right>"}'"""
    failed(examined(site), "retention", suspect["snapshot"], "is suspect", accept)
    late = examined(site, now=time.time() + DAY)
    failed(late, "backup", f"decide about {suspect['snapshot']} first")  # another backup would be as suspect
    place.accept(NAME, suspect["snapshot"], site.ring(), "ann")
    assert of(examined(site), "retention")["verdict"] == "pass"
    manifest = pathlib.Path(site.folder, "repository", "snapshots", NAME, one, "manifest.json")
    manifest.write_bytes(manifest.read_bytes()[:-9])
    failed(examined(site), "retention", one, "cannot be read")


def test_the_endpoint_is_tried_anew_when_that_is_asked_for(site):
    sound(site)
    place = Repository.open(site.repository)
    place.seen["conditional_put"] = False
    found = examined(site, open_repository=lambda: place, probe=True)
    assert "just now" in of(found, "conditional_put")["says"] and found["verdict"] == "pass"
    assert not any("/probe/" in path for path in tree(os.path.join(site.folder, "repository")))


def test_a_copy_that_is_behind(site):
    sound(site)
    failed(examined(site, copy=True), "lag", "never filled", "memops.agent_memory.backup")
