# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What incidents left goes when its time is over, and nothing that serves, is isolated, is held or is under way."""

from __future__ import annotations

import itertools
import os
import pathlib
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._engines import (
    postgresql_incidents,
    sqlite_incidents,
    valkey_incidents,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import AsideRows
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    held_records,
    incident_retention,
    isolate_records,
    monitor_step,
    release_records,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident as incidents
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.holds import hold
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_file import PlanFile
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import WHOLE
from tests.support.engines import Bench
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt

VALUES = {f"user/{n:03d}": {"n": n} for n in range(40)}


@pytest.fixture
def site(bench, tmp_path):
    return filled(Site(tmp_path / "site", bench=bench))


@pytest.fixture
def embedded(tmp_path):
    """Where the engine makes no difference."""
    return filled(Site(tmp_path / "site"))


def filled(site):
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {"calm": 1})
        memory.read_many(NS, list(VALUES))
    site.backup()
    return site


def rebuilt(site, strategy="soft", keys=("user/003", "user/004"), close=True):
    """A rebuild that is over; its incident."""
    for key in keys:
        site.raw.flip(NS, key)
    done = site.rebuild(strategy)
    if close:
        site.close_incident()
    return done["isolate"]["incident"]


def files(site, incident):
    folder = pathlib.Path(incidents.base(site.store), incident)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def known(site, namespace=NS):
    with site.open() as store:
        return {one.incident: one for one in store.incidents(namespace)}


def isolated(site, keys):
    with site.open() as store:
        return isolate_records.isolate_records(
            store=store, store_params=site.store, namespace=NS, choice=choose(list(keys)), open_keyring=site.ring,
            run=attempt(),
        )["incident"]  # fmt: skip


def released(site):
    with site.open() as store:
        return release_records.release_records(
            store=store, store_params=site.store, namespace=NS, choice=None, run=attempt()
        )


NOTHING = {"changed": False, "incidents": [], "set_aside": 0, "incidents_kept": {}}


def test_rows_and_files_go_and_nothing_that_serves(site):
    incident = rebuilt(site)
    served, rows, other = site.served(), site.rows(), site.untouched()
    assert len(site.aside()) == 2 and {"journal.jsonl", "plan.db", "damage.db"} <= set(files(site, incident))
    assert site.retain_incidents(keep=3600.0) == NOTHING == site.retain_incidents(keep=None)
    would = site.retain_incidents(check=True)
    assert would == {"changed": True, "incidents": [incident], "set_aside": 2, "incidents_kept": {}}
    assert len(site.aside()) == 2 and files(site, incident)
    facts = site.facts()
    assert "probes" in facts and facts["told"] == {}
    assert site.retain_incidents() == would
    assert site.aside() == {} and files(site, incident) == []
    assert (site.served(), site.rows(), site.untouched()) == (served, rows, other)
    left = known(site)[incident]
    assert left.facts["fenced_sequence"] == facts["fenced_sequence"] and "probes" not in left.facts
    assert "user/" not in str(left.facts) and left.facts["validated"] == {"verdict": "pass"}
    assert site.retain_incidents(check=True) == NOTHING == site.retain_incidents()


def test_the_way_back_is_refused_in_one_sentence(embedded):
    incident = rebuilt(embedded)
    embedded.retain_incidents()
    embedded.step("isolate", attempt())
    before = embedded.rows()
    for check in (True, False):
        for name in (None, incident):
            with embedded.open() as store, pytest.raises(errors.CannotProceed) as caught:
                apply.undo(
                    store=store, store_params=embedded.store, namespace=NS, run=attempt(incident=name), check=check
                )
            assert f"before the rebuild of incident {incident} is gone since" in caught.value.message
            assert "memory_keep_incidents" in caught.value.message and "restore" in caught.value.next_step
    assert embedded.rows() == before


def test_what_is_open_quarantined_or_isolated_stays(site):
    past = isolated(site, ["user/005"])
    stays = {past: "records that were isolated in it are not back"}
    assert site.retain_incidents() == {**NOTHING, "incidents_kept": stays}
    old = rebuilt(site)  # its plan knows of the isolated record, and leaves it aside
    assert site.retain_incidents()["incidents"] == [old] and list(site.aside()) == ["user/005"]
    run = attempt()
    site.rebuild(until="isolate", run=run)
    under_way = site.step("isolate", run)["incident"]
    found = site.retain_incidents()
    assert not found["changed"] and found["incidents_kept"] == stays
    with site.open() as store:
        with pytest.raises(errors.CannotProceed, match=f"{under_way} .* is open"):
            store.drop_aside(AsideRows(NS, [past, under_way], 1 << 60))
        with pytest.raises(errors.CannotProceed, match=f"{under_way} .* is open"):
            store.keep_facts(NS, under_way, {})
    site.rebuild(run=run)
    found = site.retain_incidents()
    assert not found["changed"] and under_way not in found["incidents_kept"]
    assert list(site.aside()) == ["user/005"] and files(site, under_way)
    site.close_incident()
    assert released(site)["released"] == 1
    assert site.served()["user/005"] == VALUES["user/005"]
    found = site.retain_incidents()
    assert set(found["incidents"]) >= {past, under_way} and found["set_aside"] == 1
    assert site.aside() == {} and site.served()["user/005"] == VALUES["user/005"]
    with site.open() as store:
        assert held_records.outstanding(store, NS) == frozenset()
    assert set(known(site)) == {old, under_way}  # of those for records alone nobody needs to know


def test_a_conflict_that_stayed_aside_goes_and_the_newer_record_stays(embedded):
    isolated(embedded, ["user/005"])
    with embedded.memory() as memory:
        memory.write(NS, "user/005", "newer")
    assert released(embedded)["conflicts"] == 1 and list(embedded.aside()) == ["user/005"]
    assert embedded.retain_incidents()["set_aside"] == 1
    assert embedded.aside() == {} and embedded.served()["user/005"] == "newer"


def test_what_is_held_or_cannot_be_asked_stays(embedded):
    incident = rebuilt(embedded)
    assert embedded.retain_incidents(repository=False)["incidents_kept"] == {
        incident: "there is no repository that could say whether it is held"
    }
    common = {
        "repository": Repository.open(embedded.repository), "keyring": embedded.ring(), "name": NAME,
        "label": "case-17", "by": "the test", "reason": "a dispute", "of_incident": incident,
    }  # fmt: skip
    hold(present=True, **common)
    for check in (True, False):
        found = embedded.retain_incidents(check=check)
        assert not found["changed"] and "is held by case-17" in found["incidents_kept"][incident]
    assert len(embedded.aside()) == 2 and files(embedded, incident)
    hold(present=False, **common)
    assert embedded.retain_incidents()["incidents"] == [incident] and embedded.aside() == {}


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_later_rebuild_plans_exactly_as_without(embedded, strategy):
    """It judges no write again that the first incident judged: lost records, and a bulk write without the lock."""
    site = embedded
    with site.memory() as memory:
        memory.write_many(NS, {"older": 1})
        site.backup()
        memory.write_many(NS, {"older": 2, "user/031": "newer"})
    site.unlocked({f"user/{n:03d}": "forged" for n in range(10, 20)})
    site.raw.remove(NS, ["older"])
    run = attempt()
    first = site.rebuild(strategy, run=run)
    assert first["plan"]["lost_keys"] == ["older"] and len(first["plan"]["suspect_keys"]) == 10
    site.step("baseline", run)
    site.close_incident()
    kept = isolated(site, ["user/006"])
    plans = []
    for forget in (False, True):
        if forget:
            assert set(site.retain_incidents()["incidents_kept"]) == {kept}
            assert list(site.aside()) == ["user/006"]
        for key in ("user/007", "user/031"):
            site.raw.flip(NS, key)
        run = attempt()
        folder = incidents.folder(site.store, site.rebuild(until="plan", run=run)["isolate"]["incident"])
        with PlanFile.open(os.path.join(folder, "plan.db")) as planned:
            plans.append([entry for entries in planned.entries() for entry in entries])
        for key in ("user/007", "user/031"):
            site.raw.flip(NS, key)
        site.step("release", run, force=True)
        site.close_incident()
    assert plans[0] == plans[1] and [entry.key for entry in plans[0]] == ["user/007", "user/031"]


def test_killed_between_two_rows_the_same_command_ends_it(site, monkeypatch):
    for engine in (sqlite_incidents, postgresql_incidents):
        monkeypatch.setattr(engine, "DROP_ROWS", 1)
    monkeypatch.setattr(valkey_incidents, "PAGE", 1)
    incident, turn = rebuilt(site), itertools.count(1)
    with site.open() as store:
        real = store._transaction

        def dying(*args, **more):
            if next(turn) == 2:
                raise KeyboardInterrupt
            return real(*args, **more)

        monkeypatch.setattr(store, "_transaction", dying)
        with pytest.raises(KeyboardInterrupt):
            store.drop_aside(AsideRows(NS, [incident], 1 << 60))
    assert len(site.rows_aside()) == 1 and files(site, incident)
    site.forget_incidents(1)


def test_killed_in_the_middle_the_same_command_ends_it(site, monkeypatch):
    incident = rebuilt(site, "hard")
    former = [n for n in site_generations(site) if n != site.generation()]
    assert len(former) == 1  # nobody watched it
    rows = site.rows()
    for place in ("drop_generation", "close_incident", "keep_facts"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            with site.open() as store:

                def die(*_args, **_more):
                    raise KeyboardInterrupt

                patch.setattr(store, place, die)
                patch.setattr(store, "end_lease", die)
                incident_retention.apply(
                    store=store, store_params=site.store, repository=Repository.open(site.repository),
                    keyring=site.ring(), name=NAME, keep=0.0, run=attempt(),
                )  # fmt: skip
        ended(site)
    assert site.retain_incidents()["incidents"] == [incident]
    assert site_generations(site) == [site.generation()] and site.rows() == rows
    assert files(site, incident) == [] and list(known(site)) == [incident]
    assert site.retain_incidents() == NOTHING


def site_generations(site):
    with site.open() as store:
        return store.generations(NS)


def ended(site):
    """The lease of an attempt that was killed has run out."""
    with site.open() as store:
        for one in store.incidents(NS):
            if one.state == "open":
                claim = store.claim(NS, one.attempt, one.owner, new_incident=one.incident)
                store.renew(claim, -1.0)


def test_a_look_a_day_is_enough(embedded):
    rebuilt(embedded)
    assert not embedded.retain_incidents(keep=3600.0)["changed"]
    with embedded.open() as store:
        identity = store.identity()

    def noted():
        return incident_retention.Note(embedded.store, NAME, None, identity.store_id, "incident_retention").at

    at = noted()
    assert at > 0
    embedded.retain_incidents(keep=3600.0)
    assert noted() == at
    assert embedded.retain_incidents()["changed"] and noted() > at


def test_rows_of_no_incident_and_other_peoples_folders(embedded):
    """What a repair of the structure set aside, and an incident with the name of another folder."""
    site = embedded
    with site.sql() as con:
        con.execute("UPDATE memory_records SET key = CAST(x'ff00' AS TEXT) WHERE key = 'user/007'")
    with site.open() as store:
        store.repair_structure()
        store._con.execute(  # of a generation that there is not
            "INSERT INTO memops_aside (namespace, incident, reason, at) VALUES ('', 'structure', 'no text', 1)"
        )
    assert len(site.aside()) == len(site.aside("")) == 1
    run = attempt(incident="backup")
    site.step("isolate", run)
    site.step("release", run)
    found = site.retain_incidents()
    assert found["set_aside"] == 2 and found["incidents"] == ["backup"]
    assert site.aside() == site.aside("") == {}
    assert f"{NAME}.json" in files(site, "backup")
    incident = rebuilt(site)
    assert site.retain_incidents()["incidents"] == [incident]
    elsewhere = incidents.folder(site.store, incident)  # on another host, where the same store was worked on
    pathlib.Path(elsewhere, "plan.db").write_text("a plan", encoding="ascii")
    assert site.retain_incidents() == {**NOTHING, "changed": True, "incidents": [incident]}
    assert not os.path.exists(elsewhere) and site.retain_incidents() == NOTHING


def test_a_value_that_was_set_aside_is_in_no_live_page(tmp_path):
    site = filled(Site(tmp_path / "site"))
    secret = b"a planted secret " * 300
    site.raw.set(NS, "user/009", payload=secret)
    incident = rebuilt(site, keys=())
    path = pathlib.Path(site.path)
    assert [row[8] for rows in site.aside().values() for row in rows] == [secret]
    assert site.retain_incidents()["incidents"] == [incident]
    with site.open() as store:
        store.settle()
    with sqlite3.connect(path) as con:
        dump = "\n".join(con.iterdump())
        assert secret.hex().upper() not in dump.upper()
        con.execute("VACUUM INTO ?", (str(tmp_path / "live.db"),))
    assert secret[:100] not in (tmp_path / "live.db").read_bytes()
    assert incidents.base(site.store) and files(site, incident) == []


def test_a_watch_that_failed_leaves_a_generation_which_goes(embedded):
    incident = rebuilt(embedded, "hard", close=False)
    embedded.raw.flip(NS, "user/001")
    run = incidents.Run(known(embedded)[incident].attempt, "the test")
    with embedded.open() as store:
        found = monitor_step.watch(
            store=store, store_params=embedded.store, namespace=NS, keyring=embedded.ring(), repository=None, run=run,
            seconds=0.05, interval=0.05,
        )  # fmt: skip
    assert found["verdict"] == "fail" and len(site_generations(embedded)) == 2
    assert embedded.retain_incidents()["incidents_kept"] == {incident: f"namespace {NS!r} is quarantined"}
    rebuilt(embedded, keys=())
    assert incident in embedded.retain_incidents()["incidents"]
    assert site_generations(embedded) == [embedded.generation()]


def test_of_the_whole_store_the_last_switch_stays_and_of_others_the_facts(tmp_path, valkey_server):
    bench = Bench("valkey", tmp_path, valkey_server)
    site = filled(Site(tmp_path / "site", bench=bench))
    named, facts = [], {"kind": "failover", "to": "b", "lag_seconds": 0.1}
    incident = rebuilt(site)
    with site.open() as store:
        for _turn in range(2):
            claim = incidents.claim(store, WHOLE, attempt())
            incidents.folder(site.store, claim.incident)
            store.note(claim, **facts)
            named.append(claim.incident)
            found = site.retain_incidents()
            assert not found["changed"] and "the whole store has the open incident" in found["incidents_kept"][incident]
            store.close_incident(claim)
    found = site.retain_incidents()
    assert (set(found["incidents"]), found["set_aside"]) == ({named[0], incident}, 2)
    left = known(site, WHOLE)
    assert set(left[named[0]].facts) == {*facts, incident_retention.DROPPED} and left[named[1]].facts == facts
    folders = os.listdir(incidents.base(site.store))
    assert named[1] in folders and named[0] not in folders
    bench.close()
