# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What cannot be done is said in one sentence with the next step; nothing is changed and the quarantine stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import sqlite3
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from tests.unit.operations.runbook import NAME, NS, STEPS, Site, attempt, chained, refused
from tests.unit.operations.test_rebuild_kills import EXPECTED, check, copy, damaged, options


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return damaged(tmp_path_factory.mktemp("inputs") / "template")


@pytest.fixture
def site(template, tmp_path):
    return copy(template, tmp_path / "site")


# --- names and keys -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", STEPS)
def test_an_unknown_namespace(site, step):
    rows = site.rows()
    with refused("nobody"):
        site.step(step, attempt(), namespace="nobody", **options(step, "soft"))
    assert site.rows() == rows and site.state() == "serving"


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("isolate", "validate", "release")])
def test_a_step_before_its_turn(site, step):
    """Nothing is isolated yet. What is told is a whole command."""
    with refused(f"ansible-playbook memops.agent_memory.isolate -e memory_namespace={NS}"):
        site.step(step, attempt(), **options(step, "soft"))
    assert site.state() == "serving"


@pytest.mark.parametrize("step", ["plan", "apply", "release"])
def test_a_step_that_left_out_the_one_before(site, step):
    run = attempt()
    site.rebuild(until="diagnose" if step != "plan" else "forensic", run=run)
    if step == "release":
        site.step("plan", run, accept_loss=True)
    rows = site.rows()
    before = {"plan": "diagnose", "apply": "plan", "release": "rebuild"}[step]
    with refused(f"ansible-playbook memops.agent_memory.{before} -e memory_namespace={NS}"):
        site.step(step, run)
    assert site.rows() == rows and site.state() == "quarantined"


def test_a_plan_file_that_is_cut_is_made_anew_by_the_command_that_is_named(site):
    run = attempt()
    site.rebuild(until="plan", run=run)
    (plan,) = pathlib.Path(site.folder).rglob("plan.db")
    plan.write_bytes(plan.read_bytes()[:5000])
    with refused(f"ansible-playbook memops.agent_memory.diagnose -e memory_namespace={NS} -e memory_again=true"):
        site.step("apply", run)
    assert site.state() == "quarantined"
    site.step("diagnose", run, again=True)
    site.rebuild(until="release", run=run)
    assert site.state() == "serving"


def test_strategies_and_limits_that_cannot_be_meant(site):
    site.rebuild(until="diagnose")
    run = attempt(takeover=_holder(site))
    with refused("strategy"):
        site.step("plan", run, strategy="firmly")
    with refused("max_loss"):
        site.step("plan", run, max_loss=7)


def test_an_escalated_plan_is_neither_carried_out_nor_released(site):
    with site.sql() as con:
        con.execute("DELETE FROM memory_records WHERE key LIKE 'late%'")
    run = attempt()
    site.rebuild(until="diagnose", run=run)
    plan = site.step("plan", run, max_loss=0.01)
    assert plan["escalate"] and "late" in str(plan["lost_keys"])
    rows = site.rows()
    with refused("escalated", "dr_plan"):
        site.step("apply", run)
    with refused("escalated"):
        site.step("release", run)
    assert site.rows() == rows and site.state() == "quarantined"


def _holder(site):
    with site.open() as store:
        return next(one.attempt for one in store.incidents(NS) if one.state == "open")


# --- the repository and the keys ------------------------------------------------------------------------------------
def prepared(site):
    run = attempt()
    site.rebuild(until="forensic", run=run)
    return run


def test_no_snapshot_at_all_escalates(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(9)})
    with site.sql() as con:
        con.execute("UPDATE memory_records SET payload = zeroblob(40) WHERE key < 'k3'")
    run = attempt()
    steps = site.rebuild(until="diagnose", run=run)
    plan = site.step("plan", run)
    assert plan["escalate"] and plan["lost_keys"] == ["k0", "k1", "k2"] and steps["diagnose"]["findings"]
    with refused("escalated"):
        site.step("apply", run)
    assert site.state() == "quarantined"


def snapshots_of(site):
    """The folders of the snapshots, oldest first (ids of one second have no order)."""
    found = Repository.open(site.repository).snapshots(NAME)
    return [os.path.join(site.folder, "repository", "snapshots", NAME, info.id) for info in reversed(found)]


@pytest.mark.parametrize("what", ["manifest.json", "index", "packs"])
def test_snapshots_none_of_which_verifies_are_passed_over_and_the_loss_escalates(site, what):
    for folder in snapshots_of(site):
        path = os.path.join(folder, what)
        if what == "packs":
            shutil.rmtree(path)
            continue
        with open(path, "r+b") as stream:
            data = bytearray(stream.read())
            data[len(data) // 2] ^= 1
            stream.seek(0)
            stream.write(data)
    run = prepared(site)
    diagnosis = site.step("diagnose", run)
    assert diagnosis["passed_over"], diagnosis["doubts"]
    plan = site.step("plan", run)
    assert plan["escalate"] and not plan["sources"]
    assert site.state() == "quarantined"


@pytest.mark.parametrize("broken", ["newest", "oldest"])
def test_one_damaged_snapshot_costs_only_what_it_alone_has(site, broken):
    folder = snapshots_of(site)[-1 if broken == "newest" else 0]
    shutil.rmtree(os.path.join(folder, "packs"))
    run = prepared(site)
    site.step("diagnose", run)
    plan = site.step("plan", run, accept_loss=True)
    if broken == "newest":  # k033's newest version is in the newest snapshot alone
        assert plan["lost_keys"] == ["k033", "late1", "late2"]
    else:  # the newest refers to the oldest for what did not change, or has all of it
        assert set(plan["lost_keys"]) >= {"late1", "late2"} and "k033" not in plan["lost_keys"]
    for name in ("apply", "validate", "release"):
        site.step(name, run, **options(name, "soft"))
    served = site.served()
    assert all(served[key] == value for key, value in EXPECTED.items() if key not in plan["lost_keys"])


def test_a_wrong_master_key(site):
    run = prepared(site)
    rows = site.rows()
    with open(site.keyring["master_key_file"], "w", encoding="ascii") as stream:
        stream.write("00" * 32)
    for name in ("diagnose", "plan"):
        with refused("key" if name == "diagnose" else ""):
            site.step(name, run)
    assert site.rows() == rows and site.state() == "quarantined"
    with pytest.raises(MemoryOpsError):
        site.backup()


def test_another_stores_repository(site, tmp_path):
    other = Site(tmp_path / "other")
    with other.memory() as memory:
        memory.write_many(NS, {f"k{n:03d}": "of another store" for n in range(40)})
    other.backup()
    site.repository = other.repository
    shutil.copyfile(other.keyring["path"], site.keyring["path"] + ".other")
    run = attempt()
    site.step("isolate", run)
    with refused("another store"):
        site.step("forensic", run)
    with contextlib.suppress(MemoryOpsError):
        site.step("diagnose", run)
        site.step("plan", run, accept_loss=True)
        site.step("apply", run)
    assert site.state() == "quarantined"
    assert not any(site.value_of(row) == "of another store" for row in site.rows().values() if _opens(site, row))


def _opens(site, row):
    try:
        site.value_of(row)
        return True
    except (AssertionError, MemoryOpsError, ValueError):
        return False


def test_a_repository_that_cannot_be_written(site, monkeypatch):
    run = attempt()
    site.step("isolate", run)

    def denied(self, key, data, *, if_absent=False, sha256=None):
        raise self._failed("write", key, PermissionError(13, "Permission denied"))

    monkeypatch.setattr(DirectoryObjects, "put", denied)
    with refused("repository", "Permission denied"):
        site.step("forensic", run)
    assert site.state() == "quarantined" and not site.facts().get("forensic")
    site.step("diagnose", run)
    site.step("plan", run, accept_loss=True)
    rows = site.rows()
    with refused("no published snapshot"):
        site.step("apply", run)
    assert site.rows() == rows
    monkeypatch.undo()
    for name in ("forensic", "apply", "validate", "release"):
        site.step(name, run, **options(name, "soft"))
    assert site.served() == EXPECTED


# --- the store --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "other database", "directory"])
@pytest.mark.parametrize("step", ["isolate", "forensic", "diagnose"])
def test_a_store_that_is_none(site, kind, step):
    with site.sql() as con:
        con.execute("SELECT 1")
    for name in (site.path + "-wal", site.path + "-shm"):
        if os.path.exists(name):
            os.unlink(name)
    if kind == "truncated":
        with open(site.path, "r+b") as stream:
            stream.truncate(3000)
    else:
        os.unlink(site.path)
        if kind == "directory":
            os.mkdir(site.path)
        elif kind == "other database":
            with contextlib.closing(sqlite3.connect(site.path)) as con:
                con.execute("CREATE TABLE letters (text)")
        elif kind != "missing":
            with open(site.path, "w", encoding="ascii") as stream:
                stream.write("" if kind == "empty" else "Dear store,\n" * 999)
    before = content(site.path)
    with refused(site.path):
        site.step(step, attempt())
    assert content(site.path) == before


def content(path):
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return stream.read()


def test_a_store_with_its_end_cut_off_is_isolated_or_refused_but_never_a_traceback(site):
    with site.memory() as memory:
        memory.write_many(NS, {f"bulk{n:04d}": "x" * 300 for n in range(3000)})
    with contextlib.closing(sqlite3.connect(site.path)) as con:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(site.path, "r+b") as stream:
        stream.truncate(os.path.getsize(site.path) * 2 // 3 // 4096 * 4096)
    run = attempt()
    with refused():  # some step says that it cannot go on; the last would refuse what was escalated
        for name in ("isolate", "forensic", "diagnose", "plan", "apply"):
            site.step(name, run, **({} if name == "plan" else options(name, "soft")))


# --- sizes and clocks ---------------------------------------------------------------------------------------------
ODD_KEYS = ("a/b/../c", "line\nbreak\r\n", "nul\0nul", "\U0001f9e0" * 250_000, "\ud7ff\ue000", " ", "'\";--")


@pytest.mark.parametrize(("strategy", "megabytes"), [("soft", 64), ("hard", 9)])
def test_big_and_empty_values_and_odd_keys(tmp_path, strategy, megabytes):
    site = Site(tmp_path / "site")
    big = os.urandom(1 << 20) * megabytes
    values = {**{key: {"key": key[:20]} for key in ODD_KEYS}, "big": big, "empty": b"", "nothing": ""}
    with site.memory() as memory:
        for key, value in values.items():
            memory.write(NS, key, value)
    site.backup()
    with site.sql() as con:
        con.executemany("UPDATE memory_records SET payload = x'00' WHERE key = ?", [(key,) for key in values])
    plan = site.rebuild(strategy)["plan"]
    assert plan["records"]["repair"] == len(values) and not plan["lost_keys"]
    assert site.served() == values


@pytest.mark.parametrize("jumps", [(-3600, 7200, -86400), (86400, -86400, 3600)], ids=("back", "forward"))
def test_a_clock_that_jumps_between_the_steps(site, monkeypatch, jumps):
    elsewhere, run, offset = site.untouched(), attempt(), 0
    real = time.time_ns
    for number, name in enumerate(STEPS):
        offset += jumps[number % len(jumps)]
        monkeypatch.setattr(time, "time_ns", lambda offset=offset: real() + offset * 10**9)
        monkeypatch.setattr(time, "time", lambda offset=offset: real() / 1e9 + offset)
        site.step(name, run, **options(name, "soft"))
    check(site, elsewhere)


def test_a_dead_attempts_lease_from_the_future_does_not_lock_for_ever(site, monkeypatch):
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10 * 365 * 86400 * 10**9)
    site.step("isolate", attempt())
    monkeypatch.undo()
    with refused("lease"):
        site.step("forensic", attempt())
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
    site.step("forensic", attempt())


# --- the journal ----------------------------------------------------------------------------------------------------
def test_the_journal_of_a_killed_attempt_with_a_torn_line_goes_on(tmp_path):
    journal, run = incident.Journal(str(tmp_path)), attempt()
    with journal.step("one", run):
        pass
    with open(journal.path, "ab") as stream:
        stream.write(b'{"torn')
    with pytest.raises(ZeroDivisionError), journal.step("two", run):
        raise ZeroDivisionError("for the test")
    lines = journal.lines()
    assert len(lines) == 4 and chained(lines) and b"failed" in lines[-1]
    assert not chained([*lines[:1], *lines[2:]])


def test_a_process_that_hangs_with_the_journal_does_not_hang_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(incident, "LOCK_SECONDS", 0.2)
    journal, run = incident.Journal(str(tmp_path)), attempt()
    journal.append("one", "result", run)
    with open(journal.path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="does not go on"):
            journal.append("two", "intent", run)
    journal.append("two", "intent", run)
    assert len(journal.lines()) == 2
