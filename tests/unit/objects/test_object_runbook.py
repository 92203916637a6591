# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on an application's own memory object that has a fence: the same class in other processes meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, CapabilityMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    collect_metrics,
    drill,
    export,
    monitor_step,
    restore,
    rotate,
    store_info,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.objects.objects_help import ROOT, ObjectSite
from tests.unit.operations.decoded import decoded
from tests.unit.operations.runbook import NAME, NS, OTHER, STEPS, attempt


@pytest.fixture
def site(tmp_path):
    one = ObjectSite(tmp_path)
    one.fill()
    return one


def damage(site):
    """One value that the class cannot read, one that is gone, one that is wrong, and one that nobody knows."""
    started = now_us()
    site.garble("note 003")
    site.app.delete(NS, "note 004", soft=False)
    site.app.write(NS, "note 005", "wrong")
    site.app.write(NS, "made", "by the damage")
    return Window(onset=started)


def rebuild(site, window=None, strategy="auto", until="release", **isolating):
    run, done = attempt(), {}
    options = {"isolate": isolating, "diagnose": {"window": window}, "plan": {"strategy": strategy}}
    for name in STEPS:
        done[name] = site.step(name, run, **options.get(name, {}))
        if name == until:
            break
    return done


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_was_damaged_is_as_before_and_a_sibling_never_notices(site, strategy):
    site.fill(OTHER, 5)
    before, sibling = site.values(), site.everything(OTHER)
    with site.open() as store, store.reader() as reader:
        assert [state.name for state in reader.namespaces()] == [NS, OTHER]
    assert not os.path.exists(site.path)  # nothing was changed, so nothing was made
    assert site.backup()["records"] == 71
    done = rebuild(site, damage(site), strategy)
    assert site.values() == before and site.everything(OTHER) == sibling
    assert done["diagnose"]["findings"] == {"unreadable": 1, "absent": 1, "changed": 2}
    assert "read raised JSONDecodeError" in done["diagnose"]["examples"][0]["evidence"]
    assert done["plan"]["records"]["repair"] == 3 and done["plan"]["suspect_keys"] == ["made"]
    assert done["validate"]["verdict"] == "pass" and done["validate"]["probes"]["checked"] > 50
    told = {"value": 1.0, "source": "evaluate_benchmark", "threshold": 0.8, "verdict": "pass"}
    assert told.items() <= done["validate"]["hit_rate"].items()
    if strategy == "soft":  # made and the one without a value are kept, and those that were not touched are not
        assert set(site.aside()) == {"made", "note 003", "note 005"}
    site.close_incident()
    site.forget_incidents(3 if strategy == "soft" else 0)
    assert site.values() == before and site.everything(OTHER) == sibling


def test_a_watch_goes_by_the_objects_own_benchmark(site):
    site.backup()
    rebuild(site)
    with site.open() as store:
        found = monitor_step.watch(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None,
            run=site.takeover(), seconds=0.1, interval=0.1, name=NAME,
        )  # fmt: skip
    assert (found["verdict"], found["hit_rate"]["source"]) == ("pass", "evaluate_benchmark")
    assert found["hit_rate"]["value"] == 1.0


def test_an_undamaged_namespace_is_not_touched_by_a_hard_rebuild(site):
    before = site.everything()
    site.backup()
    done = rebuild(site, strategy="hard", until="apply")
    assert done["apply"]["generation"]["to"] != done["apply"]["generation"]["from"]
    assert site.everything() == before  # the time of writing too: what is the same is left alone


def test_the_fence_binds_the_application_in_other_processes_and_is_proven(site):
    site.backup()
    done = rebuild(site, until="isolate")["isolate"]
    assert done["proof"]["reads_refused"] and done["proof"]["writes_refused"] and not done["warnings"]
    assert site.elsewhere("memory.read('agent-7', 'note 001')") == "Quarantined"
    assert site.elsewhere("memory.write('agent-7', 'note 001', 1)") == "Quarantined"
    assert site.elsewhere("list(memory.list_keys('agent-8'))") == []
    assert len(site.rows()) == 63  # an operator reads on, and no probe is left
    fenced = site.step("forensic", site.takeover())
    assert fenced["records"] == 63 and not [one for one in fenced["warnings"] if "fuzzy" in one]
    site.step("release", site.takeover())
    assert site.elsewhere("memory.read('agent-7', 'note 001')")["n"] == 1


def test_a_fence_that_does_not_hold_is_no_fence(site):
    site.backup()
    rebuild(site, until="isolate")
    site.app.release(NS)  # somebody lowers it from below
    with site.open() as store:
        with store.reader() as reader:
            assert [line for line in reader.structure() if "fence" in line] == [
                "the fence around 'agent-7' is down: the application reads it"
            ]
        proof = store.prove(NS)
        assert not proof["reads_refused"] and proof["reads_accepted"] and not proof["writes_refused"]
        assert site.app.read(NS, "note 001") and len(site.values()) == 63  # what was tried is gone again
        assert store.repair_structure() == ["raised the fence around 'agent-7' again"]
        assert store.prove(NS)["writes_refused"]


def test_undo_brings_back_what_a_hard_rebuild_replaced(site):
    site.backup()
    window = damage(site)
    damaged = site.everything()
    rebuild(site, window, "hard", until="apply")
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=site.takeover())["changed"]
    texts = {row[1]: row[2] for row in damaged}
    # what nobody could read nobody can write: its repair stays
    assert {row[1]: row[2] for row in site.everything()} == {**texts, "note 003": site.text(3)}


def test_every_kill_in_a_switch_leaves_a_state_that_the_same_command_finishes(site):
    before = site.values()
    site.backup()
    window = damage(site)
    rebuild(site, window, "hard", until="plan")
    turns = killed = 0
    while True:
        code = (
            "import sys, json\nfrom tests.unit.objects.objects_help import ObjectSite\n"
            "from ansible_collections.memops.agent_memory.plugins.module_utils._engines import python_remote\n"
            "site = ObjectSite(sys.argv[1]); left = [int(sys.argv[2])]; ask = python_remote.Remote.ask\n"
            "def counted(self, view, command, *more, **options):\n"
            "    if command in ('write', 'delete'):\n"
            "        left[0] -= 1\n"
            "        if left[0] < 0: import os; os._exit(9)\n"
            "    return ask(self, view, command, *more, **options)\n"
            "python_remote.Remote.ask = counted\n"
            "site.step('apply', site.takeover())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, site.folder, str(turns)], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode != 9:
            assert done.returncode == 0, done.stderr
            break
        killed, turns = killed + 1, turns + 1
        with pytest.raises(CannotProceed, match=r"in the middle of being replaced|not finished"):
            site.step("release", site.takeover())
    assert killed == 2  # at the deletion of what nobody can read, and at the writing; then the rest is done
    for name in ("validate", "release"):
        site.step(name, site.takeover())
    assert site.values() == before


def test_a_whole_restore_needs_the_fence_and_single_keys_do_not(site):
    before = site.values()
    site.backup()
    damage(site)
    more = {"store_params": site.store, "repository": site.repository, "keyring": site.ring(), "name": NAME}
    assert restore.restore(**more, namespace=NS, keys=["note 004"])["restored"] == 1
    assert site.app.read(NS, "note 004") == before["note 004"]
    with pytest.raises(CapabilityMissing, match="write-lock"):
        restore.restore(**more, namespace=NS)
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        done = restore.restore(**more, namespace=NS, claim=claim(store, NS, run))
    assert done["restored"] == 63
    site.step("release", run)
    assert site.values() == before


def test_a_lost_object_comes_back_from_the_repository_alone(site, tmp_path):
    before = site.values()
    site.backup()
    (tmp_path / "new").mkdir()
    other = ObjectSite(tmp_path / "new")
    run = attempt()
    done = restore.restore(
        store_params=other.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS,
        create=True, attempt=run.attempt,
    )  # fmt: skip
    assert done["restored"] == 63 and other.values() == before


def test_single_records_go_out_of_service_and_come_back(site):
    before = site.values()
    site.garble("note 009")
    more = {"store_params": site.store, "namespace": NS}
    with site.open() as store:
        gone = isolate_records(
            store=store, choice=choose(keys=["list"], pattern="note 00*"), open_keyring=site.ring, run=attempt(), **more
        )
        assert gone["isolated"] == 10 and "list" not in list(site.app.list_keys(NS))
        again = isolate_records(
            store=store, choice=choose(keys=["list"]), open_keyring=site.ring, run=attempt(), **more
        )
        assert (again["changed"], again["isolated"], again["already"]) == (False, 0, 1)
        assert "note 009" in set(site.app.list_keys(NS))  # what nobody can read would not come back
        back = release_records(store=store, choice=None, run=site.takeover(), **more)
    assert back["released"] == 10
    site.garble("note 009", json.dumps(before["note 009"]))
    assert site.values() == before


def test_verify_drill_export_and_information(site, tmp_path):
    site.backup()
    more = {"repository": site.repository, "keyring": site.ring(), "name": NAME}
    assert verify.verify(**more, depth="restored")["verdict"] == "pass"
    drilled = drill.drill(repository=Repository.open(site.repository), keyring_params=site.keyring, name=NAME)
    assert drilled["verdict"] == "pass", drilled
    said = decoded(site)
    assert said["agrees"] and not said["namespaces"][NS]["unopenable"]
    export.export(**more, directory=str(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert {one["key"]: one["data"] for one in lines} == site.values()
    with site.open() as store:
        told = store_info.store_info(store)
    assert {"fence-reads", "outside-fence"} <= set(told["capabilities"])


def test_rotation_is_the_objects_own_and_every_record_is_read_before_and_after(site):
    more = {"store_params": site.store, "keyring": site.ring()}
    assert rotate.rotate(**more, check=True)["changed"]
    done = rotate.rotate(**more, namespace=NS)
    assert done["changed"] and done["complete"] and done["records"]["rotated"] == 63
    assert not rotate.rotate(**more, namespace=NS)["changed"]  # once an hour
    with site.app._file() as con:
        assert con.execute("SELECT count(*) FROM secrets").fetchone() == (1,)


def test_check_writes_nothing(site):
    site.backup()
    window = damage(site)
    noted = {name: os.stat(os.path.join(site.folder, name)).st_mtime_ns for name in ("memops.db", "notes.db")}
    rows = site.everything()
    run = attempt()
    assert site.step("isolate", run, check=True)["changed"]
    found = site.step("diagnose", run, window=window, check=True)
    assert found["draft"]["records"]["repair"] == 3
    assert site.step("plan", run, window=window, check=True)["records"]["repair"] == 3
    assert noted == {name: os.stat(os.path.join(site.folder, name)).st_mtime_ns for name in noted}
    assert site.everything() == rows


def test_its_metrics_do_not_warn_of_a_replica_that_it_cannot_have(site):
    found = collect_metrics.gather(store_params=site.store, cluster="c", host="h")
    assert not found.warnings
    assert [sample.value for sample in found.samples if sample.name == "memops_records"] == [63.0]
