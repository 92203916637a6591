# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on LangGraph's SqliteStore: the framework itself has the file open, writes and reads all the while."""
from __future__ import annotations

import json
import os
import struct
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, CapabilityMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    drill,
    export,
    monitor,
    preflight,
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
from tests.unit.operations.decoded import decoded
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt
from tests.unit.tables.sqlite_help import LanggraphSite

TABLES = ("store", "store_vectors")


@pytest.fixture
def site(tmp_path, app):
    one = LanggraphSite(tmp_path, app)
    one.fill()
    return one


def rebuild(site, window=None, strategy="auto", absent="auto", until="release"):
    run, done = attempt(), {}
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[name] = site.step(name, run, **options.get(name, {}))
        if name == until:
            break
    return done


def damage(site):
    """Through the framework: two values are garbage, one is gone, and one came that nobody knows."""
    site.app.put([NS], "k00001", {"text": "garbage"})
    site.app.delete([NS], "k00002")
    site.app.put([NS, "below"], "one", {"text": "garbage"})
    site.app.put([NS], "made", {"by": "the damage"})


def test_the_fence_refuses_what_an_open_connection_writes_and_release_brings_back_exactly_what_was_there(site):
    site.fill(OTHER)
    before, schema = site.dump(TABLES), site.schema()
    found = site.app.everything([NS])
    run = attempt()
    done = site.step("isolate", run)
    assert done["proof"]["writes_refused"] and done["proof"]["reads_refused"]
    assert site.app.get([NS], "k00001") is None and site.app.everything([NS]) == []
    for refused in (
        lambda: site.app.put([NS], "k00001", {"new": 1}), lambda: site.app.put([NS, "below"], "two", {"new": 1}),
        lambda: site.app.put([NS], "new", {"new": 1}, 5),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="IntegrityError: memops fence"):
            refused()
    site.app.put([NS + "0"], "k", {"sibling": 1})
    site.app.put([OTHER], "k00001", {"changed": 1})
    assert site.app.get([OTHER], "k00001") == {"changed": 1} and site.app.get([NS + "0"], "k") == {"sibling": 1}
    assert not any(one[0] == NS for one in site.app.namespaces())
    assert site.step("release", run)["changed"]
    site.app.delete([NS + "0"], "k")
    after = site.dump(TABLES)
    for table in TABLES:
        mine = [row for row in after[table] if row[2].startswith(NS) and row[2] != NS + "0"]
        assert mine == [row for row in before[table] if row[2].startswith(NS)]
    assert site.app.everything([NS]) == found and site.schema() == schema
    assert not site.sql("SELECT 1 FROM sqlite_master WHERE type = 'trigger'")
    assert site.sql("PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_was_damaged_inside_the_window_is_as_before_and_the_rest_is_not_touched(site, strategy):
    site.fill(OTHER)
    before, sibling = site.records(), site.dump(TABLES, f"prefix LIKE '{OTHER}%'")
    found = sorted(map(json.dumps, site.app.everything([NS])))
    site.backup()
    started = now_us()
    damage(site)
    done = rebuild(site, Window(onset=started), strategy)
    assert site.records() == before
    assert sorted(map(json.dumps, site.app.everything([NS]))) == found
    assert site.dump(TABLES, f"prefix LIKE '{OTHER}%'") == sibling
    assert done["plan"]["suspect_keys"] == ["made"]
    assert (done["plan"]["records"]["repair"], done["plan"]["records"]["damaged"]) == (3, 4)
    assert done["validate"]["verdict"] == "pass" and done["validate"]["probes"]["checked"] >= 30
    assert site.app.get([NS], "k00003")["n"] == 3  # the application reads again
    if strategy == "soft":
        assert {"made", "k00001", "below/one"} == set(site.aside())
    site.close_incident()
    site.forget_incidents(3 if strategy == "soft" else 0)
    assert site.records() == before and site.dump(TABLES, f"prefix LIKE '{OTHER}%'") == sibling


def test_without_a_window_what_changed_is_kept_and_what_is_absent_is_listed(site):
    site.backup()
    damage(site)
    now = site.dump(TABLES)
    done = rebuild(site)
    assert site.dump(TABLES) == now
    assert done["plan"]["absent_keys"] == ["k00002"] and done["plan"]["records"]["absent"] == 1
    assert not done["apply"]["changed"]
    said = "2 keys other than in the last good snapshot, nobody knows since when, and kept: 'below/one', 'k00001'. "
    assert done["plan"]["warnings"][1].startswith(said + "In this rebuild")
    assert done["plan"]["warnings"][1].endswith("""-e '{"memory_keys": ["below/one", "k00001"]}'""")


def test_a_window_that_is_given_after_the_diagnosis_is_heeded_until_repairs_have_begun(site):
    site.backup()
    onset = now_us()
    damage(site)
    run, window = attempt(), Window(onset=onset)
    for name in ("isolate", "forensic", "diagnose", "plan"):
        done = site.step(name, run)
    assert done["records"]["repair"] == 0
    with pytest.raises(CannotProceed, match="another window"):
        site.step("plan", run, window=window)
    assert site.step("plan", run, window=window, check=True)["records"]["repair"] == 3
    assert site.step("diagnose", run, window=window)["changed"]
    assert not site.step("diagnose", run, window=window)["changed"]
    assert not site.step("diagnose", run)["changed"]
    done = site.step("plan", run, window=window)["records"]
    assert (done["repair"], done["suspect"]) == (3, 1)
    site.step("apply", run)
    with pytest.raises(CannotProceed, match="repairs have begun"):
        site.step("diagnose", run, window=Window(onset=onset - 1))
    assert not site.step("diagnose", run, window=window)["changed"]


def test_memory_absent_decides_about_what_is_missing(site):
    before = site.records()
    site.backup()
    site.app.delete([NS], "k00002")
    site.app.delete([NS, "below"], "one")
    done = rebuild(site, absent="restore")
    assert site.records() == before and done["plan"]["records"]["repair"] == 2


def test_memory_absent_keep_holds_inside_the_window_too(site):
    site.backup()
    site.app.delete([NS], "k00002")
    site.app.put([NS], "k00001", {"text": "wrong"})
    done = rebuild(site, Window(keys=frozenset(("k00001", "k00002"))), absent="keep")
    assert done["plan"]["records"]["repair"] == 1 and done["plan"]["records"]["absent"] == 1
    assert site.app.get([NS], "k00002") is None and site.app.get([NS], "k00001")["n"] == 1


def test_what_had_expired_does_not_come_back(site):
    site.app.put([NS], "over", {"text": "soon over"}, 0.01)
    site.backup()
    while not site.app.sweep():
        time.sleep(0.1)
    done = rebuild(site, Window(onset=now_us()), absent="restore")
    assert site.app.get([NS], "over") is None and not done["plan"]["records"]["absent"]


def test_an_undamaged_namespace_is_the_same_to_the_byte_after_a_hard_rebuild(site):
    site.fill(OTHER)
    before, found = site.dump(TABLES), site.app.everything([NS])
    site.backup()
    done = rebuild(site, strategy="hard")
    assert site.dump(TABLES) == before and site.app.everything([NS]) == found
    assert done["apply"]["generation"]["to"] != done["apply"]["generation"]["from"]


def test_undo_brings_back_what_a_hard_rebuild_replaced(site):
    site.backup()
    started = now_us()
    damage(site)
    damaged = site.dump(TABLES)
    rebuild(site, Window(onset=started), "hard", until="apply")
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=attempt(takeover=site.last_attempt()))["changed"]
    site.step("release", attempt(takeover=site.last_attempt()), force=True)
    assert site.dump(TABLES) == damaged


def test_after_its_release_nothing_is_undone(site):
    site.backup()
    rebuild(site, strategy="hard")
    for _quarantined in (False, True):  # nobody is sent to isolate it first, in vain
        with site.open() as store, pytest.raises(CannotProceed, match="no access log"):
            apply.undo(store=store, namespace=NS, run=attempt(takeover=site.last_attempt()))
        site.step("isolate", attempt(takeover=site.last_attempt()))


def test_applications_that_go_on_meet_the_fence_and_siblings_never_notice(site):
    site.fill(OTHER)
    site.backup()
    for namespace in (NS, OTHER):
        site.app.begin([namespace, "live"])
    while min(len(site.app.tell([namespace, "live"])["written"]) for namespace in (NS, OTHER)) < 20:
        time.sleep(0.01)
    run = attempt()
    site.step("isolate", run)
    counted = site.app.tell([OTHER, "live"])["written"]
    for name in ("forensic", "diagnose", "plan", "apply", "validate"):
        site.step(name, run)
    while not site.app.tell([NS, "live"])["refused"]:
        time.sleep(0.01)
    site.step("release", run)
    last = site.app.tell([NS, "live"])["written"]
    while site.app.tell([NS, "live"])["written"] == last:
        time.sleep(0.01)  # it writes again by itself
    mine, sibling = site.app.stop([NS, "live"]), site.app.stop([OTHER, "live"])
    assert mine["refused"] and not mine["wrong"] and not mine["other"]
    assert not sibling["refused"] and not sibling["wrong"] and not sibling["other"]
    assert max(sibling["written"].values()) > max(counted.values())
    for namespace, told in ((NS, mine), (OTHER, sibling)):
        assert {key: site.app.get([namespace, "live"], key)["number"] for key in told["written"]} == told["written"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_snapshot_is_of_one_point_while_the_application_writes(site, mode):
    site.app.fill([NS], {f"many {number:05}": {"n": number} for number in range(3000)})
    site.sql(f"PRAGMA journal_mode = {mode}")
    site.app.begin([NS, "live"])
    done = site.backup()
    told = site.app.stop([NS, "live"])
    assert not told["other"] and not told["wrong"] and told["written"]
    place = Repository.open(site.repository)
    assert place.snapshot(NAME, done["snapshot"], site.ring()).manifest["consistency"] == "point-in-time"
    assert not [name for name in os.listdir(site.folder) if "memops-copy" in name]
    assert site.sql("PRAGMA journal_mode") == [(mode,)]


def test_single_records_go_out_of_service_and_come_back_as_they_were(site):
    before = site.records()
    site.backup()
    more = {"store_params": site.store, "namespace": NS}
    with site.open() as store:
        gone = isolate_records(
            store=store, choice=choose(keys=["big", "ends"], pattern="k0000*"), open_keyring=site.ring, run=attempt(),
            **more,
        )  # fmt: skip
        assert gone["isolated"] == 12 and site.app.get([NS], "big") is None
        again = isolate_records(
            store=store, choice=choose(pattern="k0000*"), open_keyring=site.ring, run=attempt(), **more
        )
        assert (again["changed"], again["isolated"], again["already"]) == (False, 0, 10)
        rebuild(site, Window(onset=now_us()), absent="restore")  # a rebuild does not bring them back
        assert site.app.get([NS], "big") is None
        site.app.put([NS], "k00001", {"written": "anew"})
        back = release_records(store=store, choice=None, run=attempt(takeover=site.last_attempt()), **more)
        assert back["released"] == 11 and back["conflict_keys"] == ["k00001"]
    after = site.records()
    assert {key: row for key, row in after.items() if key != "k00001"} == {
        key: row for key, row in before.items() if key != "k00001"
    }


def _restore(site, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS, **options
    )


def test_a_whole_restore_needs_the_fence_and_is_exact(site):
    before = site.records()
    site.backup()
    damage(site)
    with pytest.raises(CapabilityMissing, match="write-lock"):
        _restore(site)
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        done = _restore(site, claim=claim(store, NS, run))
    assert done["restored"] == len(before)
    site.step("release", run)
    assert site.records() == before


def test_a_lost_file_gets_everything_back_once_the_application_made_its_tables(site):
    before, found = site.records(), sorted(map(json.dumps, site.app.everything([NS])))
    site.backup()
    site.app.close()
    os.unlink(site.path)
    again = LanggraphSite(site.folder, site.app)
    assert _restore(again, create=True)["restored"] == len(before)
    assert again.records() == before and sorted(map(json.dumps, again.app.everything([NS]))) == found
    assert not _restore(again)["changed"]
    again.app.put([NS], "new", {"written": "again"})


def test_some_keys_come_back_in_place_while_the_application_goes_on(site):
    site.backup()
    damage(site)
    with pytest.raises(CannotProceed, match=r"1 of the 3 keys .*'nobody'"):
        _restore(site, keys=["k00001", "k00002", "nobody"])
    done = _restore(site, keys=["k00001", "k00002"])
    assert (done["restored"], done["newer_keys"]) == (1, ["k00001"])
    kept = f"Kept in {NS}: 'k00001'. What is there is other than in snapshot {done['snapshot']}, and was written after"
    assert done["warnings"][0].startswith(kept) and "-e memory_force=true" in done["warnings"][0]
    assert _restore(site, keys=["k00001", "below/one"], overwrite=True)["restored"] == 2
    assert site.app.get([NS], "k00001")["n"] == 1 and site.app.get([NS, "below"], "one") == {"deep": True}
    assert len(site.sql("SELECT 1 FROM store_vectors WHERE prefix = ? AND key = 'k00002'", NS)) == 1


def test_what_was_changed_without_its_update_time_comes_back_by_its_key(site):
    site.sql("UPDATE store SET updated_at = datetime(updated_at, '-1 hour')")
    before = site.records()
    site.backup()
    site.sql("UPDATE store SET value = '{}' WHERE key = 'k00001' AND prefix = ?", NS)
    site.sql("DELETE FROM store_vectors WHERE key = 'k00002'")
    site.sql("UPDATE store SET value = '{}', updated_at = datetime('now', '+1 hour') WHERE key = 'k00003'")
    keys = ["k00001", "k00002", "k00003", "k00004"]
    for check in (True, False):
        done = _restore(site, keys=keys, check=check)
        assert (done["restored"], done["newer_keys"], done["unchanged"]) == (2, ["k00003"], 1)
    assert {key for key, row in site.records().items() if row != before[key]} == {"k00003"}
    assert set(site.aside()) == {"k00001", "k00002"}


def test_a_snapshot_verifies_rehearses_and_is_exported(site, tmp_path):
    snapshot = site.backup()["snapshot"]
    place = Repository.open(site.repository)
    found = verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened")
    assert found["verdict"] == "pass"
    found = drill.drill(repository=place, keyring_params=site.keyring, name=NAME)
    assert found["verdict"] == "pass" and found["namespaces"][NS]["records"] == len(site.records())
    said = decoded(site)
    assert said["agrees"]
    export.export(repository=place, keyring=site.ring(), name=NAME, directory=str(tmp_path / "out"))
    with open(tmp_path / "out" / "records.jsonl", encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    assert {row["status"] for row in rows} == {"intact"}
    one = next(row for row in rows if row["namespace"] == NS and row["key"] == "below/one")["tables"]
    assert one["store"][0]["prefix"] == "agent-7.below" and len(one["store_vectors"]) == 1


def test_what_such_tables_lack_is_named(site):
    site.backup()
    with pytest.raises(CapabilityMissing, match="encryption"):
        rotate.rotate(store_params=site.store, keyring=site.ring(), namespace=NS)
    with site.open() as store:
        said = store_info.store_info(store)
        fence = ["fence-raw-reads", "fence-reads", "fence-writes"]
        assert said["capabilities"] == ["expiry", *fence, "generations", "search"]
        assert {one["name"]: one["records"] for one in said["namespaces"]}[NS] == len(site.records())
        calls = (lambda: store.writing(NS, 1), lambda: store.reserve(None, 1), lambda: store.set_ttl(NS, 1))
        for lacking in calls:
            with pytest.raises(CapabilityMissing, match="The layout langgraph_store has no"):
                lacking()


def test_a_rehearsal_writes_nothing(site):
    site.backup()
    window = Window(onset=now_us())
    damage(site)

    def everything():
        names = [name for (name,) in site.sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return site.sql("SELECT name, sql FROM sqlite_master"), site.dump(names)

    before = everything()
    with site.open() as store:
        found = preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=attempt(), **site.places()
        )  # fmt: skip
        assert found["can_resolve"]
    site.step("isolate", attempt(), check=True)
    site.step("diagnose", attempt(), check=True, window=window)
    plan = site.step("plan", attempt(), check=True, window=window)
    assert plan["records"]["repair"] == 3 and plan["records"]["suspect"] == 1
    assert everything() == before


def test_looking_at_a_file_that_no_operator_changed_leaves_it_as_it_is(site):
    with open(site.path, "rb") as stream:
        before = stream.read()
    with site.open() as store:
        store_info.store_info(store)
    site.records()
    with site.open() as store:
        preflight.preflight(store=store, store_params=site.store, namespace=NS, run=attempt(), **site.places())
    with open(site.path, "rb") as stream:
        assert stream.read() == before


@pytest.mark.parametrize("gone", [False, True])
def test_the_watch_asks_the_probes_and_puts_the_fence_back_when_memories_vanish(site, gone):
    more = [f"more {number}" for number in range(150)]  # one look asks as many as a hit rate needs
    site.app.fill([NS], {key: {"text": key} for key in more})
    site.backup()
    rebuild(site)
    if gone:
        site.app.delete([NS], *more)
    with site.open() as store:
        found = monitor.monitor(
            store_params=site.store, keyring=site.ring(), claim=claim(store, NS, attempt(takeover=site.last_attempt())),
            namespace=NS, deadline=now_us() + 200_000, interval=0.02,
        )  # fmt: skip
    if gone:
        assert found["verdict"] == "fail" and found["fenced"] and site.state() == "quarantined"
    else:
        assert found["verdict"] == "pass" and found["hit_rate"]["value"] == 1.0
        assert found["hit_rate"]["source"] == "probes"


def test_damaged_rows_are_found_and_repaired(site):
    before = site.records()
    site.backup()
    site.sql("UPDATE store SET value = CAST('{\"cut' AS BLOB) WHERE prefix = ? AND key = 'k00001'", NS)
    site.sql("UPDATE store SET value = CAST('NaN' AS BLOB) WHERE prefix = ? AND key = 'k00002'", NS)
    site.sql("UPDATE store SET expires_at = 'soon' WHERE prefix = ? AND key = 'ends'", NS)
    blob = struct.pack("8f", *[float("nan")] * 8)
    site.sql("UPDATE store_vectors SET embedding = ? WHERE prefix = ? AND key = 'k00003'", blob, NS)
    site.sql("UPDATE store_vectors SET embedding = x'0102' WHERE prefix = ? AND key = 'k00004'", NS)
    done = rebuild(site)
    assert done["plan"]["records"]["repair"] == 5 and done["plan"]["records"]["damaged"] == 5
    assert site.records() == before
