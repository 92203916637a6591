# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on another application's keys: what is repaired and what is kept where nobody logged anything."""

from __future__ import annotations

import base64
import json
import os
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    drill,
    export,
    monitor,
    monitor_step,
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
from tests.unit.operations.keyspace_help import Agent, KeyspaceSite, rebuild
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt


@pytest.fixture
def site(tmp_path, valkey_server):
    one = KeyspaceSite(tmp_path, valkey_server)
    one.fill()
    yield one
    one.wipe()


def damage(site):
    """Two values are garbage, one is gone, one is of another type, and one came that nobody knows."""
    site.app.set(site.key("s00001"), "garbage")
    site.app.delete(site.key("s00002"))
    site.app.set(site.key("list"), "no list")
    site.app.set(site.key("bytes"), b"")
    site.app.set(site.key("made"), "by the damage")


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_was_damaged_inside_the_window_is_as_before_and_the_rest_is_not_touched(site, strategy):
    site.fill(OTHER)
    before, sibling = site.dumps(), site.dumps(OTHER)
    site.backup()
    assert site.dumps() == before
    started = now_us()
    damage(site)
    done = rebuild(site, Window(onset=started), strategy)
    assert site.dumps() == before
    assert site.dumps(OTHER) == sibling
    assert done["plan"]["suspect_keys"] == ["made"]
    assert done["plan"]["records"] == {
        "expected": len(before) + 1, "good_before": len(before) - 4, "damaged": 5, "repair": 4, "suspect": 1,
        "conflicted": 0, "lost": 0, "expired": 0, "absent": 0,
    }  # fmt: skip
    assert done["validate"]["verdict"] == "pass" and done["validate"]["probes"]["checked"] >= 30
    assert site.app.get(site.key("s00003")).startswith(b"value 3")  # the application reads again
    if strategy == "soft":
        assert {"made", "list", "bytes", "s00001"} == set(site.aside())
    site.close_incident()
    site.forget_incidents(4 if strategy == "soft" else 0)
    assert site.dumps() == before and site.dumps(OTHER) == sibling


def test_without_a_window_what_changed_is_kept_and_what_is_absent_is_listed(site):
    site.backup()
    damage(site)
    now = site.dumps()
    done = rebuild(site)
    assert site.dumps() == now
    assert done["plan"]["absent_keys"] == ["s00002"] and done["plan"]["records"]["absent"] == 1
    assert done["plan"]["newer"] == 3 and len(done["plan"]["warnings"]) == 2
    assert not done["apply"]["changed"]


def test_memory_absent_decides_about_what_is_missing(site):
    before = site.values()
    site.backup()
    site.app.delete(site.key("set"), site.key("hash"))
    done = rebuild(site, absent="restore")
    assert site.values() == before and done["plan"]["records"]["repair"] == 2


def test_memory_absent_keep_holds_inside_the_window_too(site):
    site.backup()
    site.app.delete(site.key("set"))
    site.app.set(site.key("hash"), "wrong")
    done = rebuild(site, Window(keys=frozenset(("set", "hash"))), absent="keep")
    assert done["plan"]["records"]["repair"] == 1 and done["plan"]["records"]["absent"] == 1
    assert not site.app.exists(site.key("set")) and site.app.hgetall(site.key("hash"))


def test_only_the_keys_that_the_operator_names_are_inside(site):
    site.backup()
    damage(site)
    rebuild(site, Window(pattern="s0*"))
    assert site.app.get(site.key("s00001")).startswith(b"value 1 ") and site.app.exists(site.key("s00002"))
    assert site.app.get(site.key("list")) == b"no list" and site.app.exists(site.key("made"))


def test_repairs_come_from_the_last_good_snapshot_before_the_onset(site):
    before = site.dumps()
    site.backup()
    started = now_us()
    damage(site)
    site.backup()  # good as far as anybody knows, and later than the onset
    site.app.set(site.key("s00004"), "written after all that")
    rebuild(site, Window(onset=started))
    assert site.dumps() == before


def test_what_changed_after_the_window_is_kept(site):
    site.backup()
    started = now_us()
    site.app.set(site.key("s00001"), "garbage")
    ended = now_us()
    site.backup()
    site.app.set(site.key("s00004"), "written after the window")
    rebuild(site, Window(onset=started, until=ended))
    assert site.app.get(site.key("s00001")).startswith(b"value 1 ")
    assert site.app.get(site.key("s00004")) == b"written after the window"


def test_what_had_expired_does_not_come_back(site):
    milliseconds = 1500
    while not site.app.exists(site.key("short")):  # both are saved before their end
        for name in ("over", "short"):
            site.app.set(site.key(name), "soon over", px=milliseconds)
        site.backup()
        milliseconds *= 4
    site.app.set(site.key("over"), "garbage that stays")
    while site.app.exists(site.key("short")):
        time.sleep(0.05)
    done = rebuild(site, Window(onset=now_us()), absent="restore")
    assert not site.app.exists(site.key("short")) and not site.app.exists(site.key("over"))
    assert done["plan"]["records"]["expired"] == 1 and not done["plan"]["records"]["absent"]


def test_an_undamaged_namespace_is_the_same_to_the_byte_after_a_hard_rebuild(site):
    before = site.dumps()
    site.backup()
    done = rebuild(site, strategy="hard")
    assert site.dumps() == before
    assert done["apply"]["generation"]["to"] != done["apply"]["generation"]["from"]


def test_undo_brings_back_what_a_hard_rebuild_replaced(site):
    site.backup()
    started = now_us()
    damage(site)
    damaged = site.dumps()
    rebuild(site, Window(onset=started), "hard", until="apply")
    assert site.dumps() != damaged
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=attempt(takeover=_attempt(site)))["changed"]
    assert site.dumps() == damaged


def test_after_its_release_nothing_is_undone(site):
    site.backup()
    rebuild(site, strategy="hard")
    site.step("isolate", attempt(takeover=_attempt(site)))
    with site.open() as store, pytest.raises(CannotProceed, match="no access log"):
        apply.undo(store=store, namespace=NS, run=attempt(takeover=_attempt(site)))


def _attempt(site):
    with site.open() as store:
        return next(one.attempt for one in store.incidents(NS) if one.state == "open")


def test_an_application_that_goes_on_meets_the_fence_and_siblings_never_notice(site):
    site.fill(OTHER)
    site.backup()
    with Agent(site, NS) as own, Agent(site, OTHER) as sibling:
        while len(own.written) < 20 or len(sibling.written) < 20:
            time.sleep(0.01)
        run = attempt()
        site.step("isolate", run)
        last = dict(own.written)
        fenced = {key: site.root.get(key) for key in last}
        assert site.step("forensic", run)["records"] == len(site.dumps())
        for name in ("diagnose", "plan", "apply", "validate", "release"):
            site.step(name, run)
        count = len(sibling.written)
        assert (own.refused and fenced == {key: site.root.get(key) or fenced[key] for key in last}) or own.written
        while own.written == last or len(sibling.written) < count:
            time.sleep(0.01)  # it writes again by itself
    assert not own.wrong and not own.other
    assert not sibling.refused and not sibling.wrong and not sibling.other
    assert {key: site.app.get(key) for key in sibling.written} == sibling.written


def test_a_snapshot_under_the_fence_is_of_one_point_and_any_other_is_fuzzy(site):
    loose = site.backup()
    site.step("isolate", attempt())
    fenced = site.backup()
    place = Repository.open(site.repository)
    said = [place.snapshot(NAME, one["snapshot"], site.ring()).manifest["consistency"] for one in (loose, fenced)]
    assert said == ["fuzzy", "point-in-time"] and loose["warnings"] and not fenced["warnings"]


def test_single_records_go_out_of_service_and_come_back_as_they_were(site):
    before = site.values()
    site.backup()
    more = {"store_params": site.store, "namespace": NS}
    with site.open() as store:
        gone = isolate_records(
            store=store, choice=choose(keys=["set", "ends"], pattern="s0000*"), open_keyring=site.ring, run=attempt(),
            **more,
        )  # fmt: skip
        assert gone["isolated"] == 12 and not site.app.exists(site.key("set"))
        again = isolate_records(
            store=store, choice=choose(keys=["set", "ends"], pattern="s0000*"), open_keyring=site.ring, run=attempt(),
            **more,
        )  # fmt: skip
        assert (again["changed"], again["isolated"], again["already"]) == (False, 0, 12)
        with pytest.raises(InvalidInput, match="has no record"):
            isolate_records(
                store=store, choice=choose(keys=["set", "nobody"]), open_keyring=site.ring, run=attempt(), **more
            )
        done = rebuild(site, Window(onset=now_us()), absent="restore")  # a rebuild does not bring them back
        assert not done["plan"]["records"]["repair"] and not site.app.exists(site.key("set"))
        site.app.set(site.key("s00001"), "written anew meanwhile")
        back = release_records(store=store, choice=None, run=attempt(takeover=_attempt(site)), **more)
        assert back["released"] == 11 and back["conflict_keys"] == ["s00001"]
    site.app.set(site.key("s00001"), "value 1 of agent-7 " * 5)
    assert site.values() == before


def test_records_that_came_back_and_were_deleted_then_stay_away(site):
    more = {"store_params": site.store, "namespace": NS}
    with site.open() as store:
        isolate_records(
            store=store, choice=choose(keys=["set", "hash"]), open_keyring=site.ring, run=attempt(), **more
        )
        release_records(store=store, choice=choose(keys=["set"]), run=attempt(), **more)
        site.app.delete(site.key("set"))
        assert release_records(store=store, choice=None, run=attempt(), **more)["released"] == 1
    assert not site.app.exists(site.key("set")) and site.app.exists(site.key("hash"))


def test_records_cannot_be_chosen_by_a_time_that_nobody_noted(site):
    with site.open() as store, pytest.raises(CapabilityMissing, match="time of their last write"):
        isolate_records(
            store=store, store_params=site.store, namespace=NS, choice=choose(since="2026-01-01T00:00:00Z"),
            open_keyring=site.ring, run=attempt(),
        )  # fmt: skip


def _restore(site, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS, **options
    )


def test_a_whole_restore_needs_the_fence_and_is_exact(site):
    before = site.values()
    site.backup()
    damage(site)
    with pytest.raises(CapabilityMissing, match="write-lock"):
        _restore(site)
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        done = _restore(site, claim=claim(store, NS, run))
    assert done["restored"] == len(before) and site.values() == before
    site.step("release", run)


def test_an_emptied_server_gets_everything_back(site):
    before = site.values()
    site.backup()
    for pattern in (f"mem{site.token}:*", f"ops{site.token}:*"):
        site.root.delete(*site.root.scan_iter(pattern, count=1000))
    assert _restore(site, create=True)["restored"] == len(before)
    assert site.values() == before
    assert not _restore(site)["changed"]


def test_some_keys_come_back_in_place_while_the_application_goes_on(site):
    site.backup()
    damage(site)
    with pytest.raises(CannotProceed, match="'nobody'"):
        _restore(site, keys=["s00001", "s00002", "nobody"])
    done = _restore(site, keys=["s00001", "s00002"])
    assert (done["restored"], done["newer_keys"]) == (1, ["s00001"])
    assert _restore(site, keys=["s00001"], overwrite=True)["restored"] == 1
    assert site.app.get(site.key("s00001")).startswith(b"value 1 ") and site.app.exists(site.key("s00002"))


def test_a_snapshot_verifies_rehearses_and_is_exported(site, tmp_path):
    snapshot = site.backup()["snapshot"]
    place = Repository.open(site.repository)
    found = verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened")
    assert found["verdict"] == "pass"
    found = drill.drill(repository=place, keyring_params=site.keyring, name=NAME)
    assert found["verdict"] == "pass" and found["records"] == len(site.dumps()) and found["not_rehearsed"]
    assert "rotated" not in found
    said = decoded(site)
    assert said["agrees"]
    assert said["namespaces"][NS]["unopenable"] == 0
    export.export(repository=place, keyring=site.ring(), name=NAME, directory=str(tmp_path / "out"))
    with open(os.path.join(tmp_path, "out", "records.jsonl"), encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    assert {row["status"] for row in rows} == {"intact"}
    site.root.restore(f"ops{site.token}:x:g:1", 0, base64.b64decode({r["key"]: r for r in rows}["set"]["dump_base64"]))
    assert site.root.scard(f"ops{site.token}:x:g:1") == 400


def test_what_such_keys_lack_is_named(site):
    site.backup()
    with pytest.raises(CapabilityMissing, match="encryption"):
        rotate.rotate(store_params=site.store, keyring=site.ring(), namespace=NS)
    with site.open() as store:
        said = store_info.store_info(store)
        assert said["capabilities"] == ["expiry", "fence-raw-reads", "fence-reads", "fence-writes", "generations"]
        assert {one["name"]: one["records"] for one in said["namespaces"]} == {NS: len(site.dumps())}
        calls = (lambda: store.writing(NS, 1), lambda: store.reserve(None, 1), lambda: store.set_ttl(NS, 1))
        for lacking in calls:
            with pytest.raises(CapabilityMissing, match="The layout keyspace has no"):
                lacking()
    run = attempt()
    site.step("isolate", run)
    with pytest.raises(CapabilityMissing, match="benchmark"):
        site.step("diagnose", run, benchmark=[{"key": "a", "expect": 1}])
    with pytest.raises(CapabilityMissing, match="encryption"):
        site.step("plan", run, strategy="rotate")


def test_nothing_is_said_to_be_fenced_without_an_application_user(site):
    for user in (None, "memops"):
        store = {**site.store, "application_user": user}
        loose = KeyspaceSite.__new__(KeyspaceSite)
        loose.__dict__.update(site.__dict__, store=store)
        with pytest.raises(CapabilityMissing, match="fence-reads"):
            loose.step("isolate", attempt())
        with loose.open() as opened:
            assert "fence-writes" not in opened.capabilities()
            assert any("nothing can be fenced" in line for line in opened.warnings())
    assert not list(site.root.scan_iter(f"ops{site.token}:*"))


def test_a_rehearsal_writes_nothing(site):
    site.backup()
    damage(site)
    before = {key: site.root.dump(key) for key in site.root.scan_iter("*")}
    with site.open() as store:
        found = preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=attempt(), **site.places()
        )  # fmt: skip
        assert found["can_resolve"]
    site.step("isolate", attempt(), check=True)
    site.step("diagnose", attempt(), check=True, window=Window(onset=now_us()))
    plan = site.step("plan", attempt(), check=True, window=Window(onset=now_us()))
    assert plan["records"]["repair"] == 4 and plan["records"]["suspect"] == 1
    assert {key: site.root.dump(key) for key in site.root.scan_iter("*")} == before


def test_the_watch_asks_the_probes_where_no_log_tells_what_was_read(site):
    site.fill_more(150)  # one look asks as many as a hit rate needs
    site.backup()
    rebuild(site)

    def watch(run):
        with site.open() as store:
            return monitor.monitor(
                store_params=site.store, keyring=site.ring(), claim=claim(store, NS, run), namespace=NS,
                deadline=now_us() + 300_000, interval=0.05,
            )  # fmt: skip

    run = attempt(takeover=_attempt(site))
    found = watch(run)
    assert found["verdict"] == "pass" and found["hit_rate"]["source"] == "probes"
    assert found["hit_rate"]["value"] == 1.0 and found["hit_rate"]["reads"] >= 100


def test_the_watch_puts_the_fence_back_when_memories_vanish(site):
    site.fill_more(150)  # one look asks as many as a hit rate needs
    site.backup()
    rebuild(site)
    site.app.delete(*(site.key(f"more {number}") for number in range(150)))
    run = attempt(takeover=_attempt(site))
    with site.open() as store:
        found = monitor.monitor(
            store_params=site.store, keyring=site.ring(), claim=claim(store, NS, run), namespace=NS,
            deadline=now_us() + 300_000, interval=0.02,
        )  # fmt: skip
    assert found["verdict"] == "fail" and found["fenced"] and site.state() == "quarantined"


def test_when_the_watch_has_passed_the_former_keys_are_gone_and_what_was_replaced_lies_aside(site):
    site.fill_more(150)  # one look asks as many as a hit rate needs
    site.backup()
    started = now_us()
    damage(site)
    garbage = {key: row for key, row in site.rows().items() if key in ("s00001", "list", "bytes", "made")}
    rebuild(site, Window(onset=started), "hard")
    assert site.own()
    with site.open() as store:
        found = monitor_step.watch(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None,
            run=attempt(takeover=_attempt(site)), seconds=0.3, interval=0.05,
        )  # fmt: skip
        assert found["verdict"] == "pass" and len(store.generations(NS)) == 1
    assert not site.own()
    assert {key: rows[0] for key, rows in site.aside().items()} == garbage


def test_more_may_follow_the_name_of_a_record(site):
    site.store = {
        **site.store, "prefix": f"ops{site.token}:other", "pattern": f"mem{site.token}:{{namespace}}:m:*:data",
    }  # fmt: skip
    for name in ("a", "b:c"):
        site.app.set(site.key(f"m:{name}:data"), name)
    site.app.set(site.key("m:x:no data"), "not a memory")
    site.backup()
    assert list(site.rows()) == ["a", "b:c"]
    site.app.delete(site.key("m:a:data"))
    rebuild(site, absent="restore", strategy="hard")
    assert site.app.get(site.key("m:a:data")) == b"a" and site.app.exists(site.key("m:x:no data"))
