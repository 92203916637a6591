# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at every note of the journal and at other instants of every step; the same call again finishes the work.

A child is forked, runs one step, and kills itself at the n-th instant: a line of the journal before or after it is
written, a transaction of the store, an object put. The parent runs the step again as a new attempt that takes over.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    incident,
    restore_step,
    restore_work,
    rotate,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from tests.unit.operations.decoded import agrees
from tests.unit.operations.runbook import NAME, NS, OTHER, STEPS, Site, attempt, chained

POINTS = int(os.environ.get("MEMOPS_KILL_POINTS", "4"))  # instants per step, beside every note of the journal


def damaged(folder, bench=None):
    """A store with two namespaces, two snapshots and damage of several kinds."""
    site = Site(folder, bench=bench)
    with site.memory() as memory:
        memory.write_many(OTHER, {f"o{n}": n for n in range(5)})
        memory.write_many(NS, {f"k{n:03d}": {"v": n} for n in range(40)})
    site.backup()
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n:03d}": {"v": n, "new": True} for n in range(30, 40)})
        memory.delete(NS, "k005")
    site.backup()
    with site.memory() as memory:
        memory.write_many(NS, {f"late{n}": n for n in range(5)})
    site.unlocked({"k001": "forged", "k002": "forged", "foreign": "forged"})
    for key in ("k010", "k033", "late1"):
        site.raw.set(NS, key, payload=bytes(40))
    site.raw.remove(NS, ["k011", "late2"])
    return site


EXPECTED = {
    **{f"k{n:03d}": {"v": n} for n in range(30) if n != 5},
    **{f"k{n:03d}": {"v": n, "new": True} for n in range(30, 40)},
    **{f"late{n}": n for n in (0, 3, 4)},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return damaged(tmp_path_factory.mktemp("kills") / "template")


@pytest.fixture
def site(template, tmp_path):
    return copy(template, tmp_path / "site")


def copy(site, folder):
    shutil.copytree(site.folder, folder)
    return Site(folder)


class Instants:
    """Counts the instants of a step and kills the process at one of them."""

    def __init__(self, patch, at=None):
        self.seen, self.at, self.kinds = 0, at, []
        for owner, name in (
            (incident.Journal, "append"),
            (DirectoryObjects, "put"),
            (os, "replace"),
        ):
            patch.setattr(owner, name, self.around(getattr(owner, name), name))
        transaction = sqlite_connect.Connected._transaction

        instants = self

        class Counted:
            """A transaction with an instant before it, before its commit and after that."""

            def __init__(self, connected):
                self.inner = transaction(connected)

            def __enter__(self):
                instants.pass_by("begin")
                return self.inner.__enter__()

            def __exit__(self, *exc):
                instants.pass_by("commit")
                result = self.inner.__exit__(*exc)
                instants.pass_by("committed")
                return result

        def counted(connected):
            return Counted(connected)

        patch.setattr(sqlite_connect.Connected, "_transaction", counted)

    def around(self, function, name):
        def wrapped(*args, **kwargs):
            self.pass_by(f"before {name}")
            result = function(*args, **kwargs)
            self.pass_by(f"after {name}")
            return result

        return wrapped

    def pass_by(self, kind):
        self.kinds.append(kind)
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(at, work):
    """Run ``work`` in a child that kills itself at the ``at``-th instant: whether it did."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                Instants(patch, at)
                work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the step failed"
    return os.WIFSIGNALED(status)


def instants_of(work):
    with pytest.MonkeyPatch.context() as patch:
        instants = Instants(patch)
        work()
        return instants.kinds


def chosen(kinds):
    """Every note of the journal, the end of every transaction, and some at random."""
    noted = [n for n, kind in enumerate(kinds, 1) if kind.endswith("append") or kind == "committed"]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    others = random.Random(seed).sample(range(1, len(kinds) + 1), min(POINTS, len(kinds)))
    return sorted({*noted, *others})


def options(step, strategy):
    return {"plan": {"strategy": strategy, "accept_loss": True}, "release": {"force": True}}.get(step, {})


def check(site, elsewhere):
    assert site.untouched() == elsewhere
    assert site.served() == EXPECTED
    codec, rows = RecordCodec(NS), site.rows()
    assert all(codec.intact(row) for row in rows.values())
    with site.open() as store:
        others = [number for number in store.generations(NS) if number != site.generation()]
    kept = [row for found in site.aside().values() for row in found]
    kept += [row for number in others for row in site.rows(generation=number).values()]
    forged = {row[0] for row in kept if codec.intact(row) and row[6] is None and site.value_of(row) == "forged"}
    assert forged == {"k001", "k002", "foreign"}, "suspect versions must stay restorable"
    with site.open() as store, store.reader() as reader:
        assert reader.log_health()["intact"]
        logged = {write.key: (write.epoch, write.sequence) for batch in reader.last_writes(NS) for write in batch}
    assert all(logged[key] == row[1:3] for key, row in rows.items() if row[6] is not None), "a deletion was not logged"
    facts = site.facts()
    folder = incident.folder(site.store, last_incident(site))
    with open(os.path.join(folder, "journal.jsonl"), "rb") as stream:
        assert chained([line[:-1] for line in stream])
    assert facts["plan"]["records"]["lost"] == 2
    agrees(site, EXPECTED, os.path.join(folder, "lost_keys.jsonl"))


def last_incident(site):
    with site.open() as store:
        return store.incidents(NS)[0].incident


CASES = [(step, "soft") for step in STEPS] + [("apply", "hard"), ("apply", "rotate")]


@pytest.mark.parametrize(("step", "strategy"), CASES)
def test_a_step_that_was_killed_is_finished_by_the_same_call(site, tmp_path, step, strategy):
    elsewhere = site.untouched()
    before = attempt()
    for name in STEPS[: STEPS.index(step)]:
        site.step(name, before, **options(name, strategy))
    rehearsal = copy(site, tmp_path / "rehearsal")
    kinds = instants_of(lambda: rehearsal.step(step, attempt(takeover=before.attempt), **options(step, strategy)))
    for number in chosen(kinds):
        here = copy(site, tmp_path / f"at{number}")
        victim = attempt(takeover=before.attempt)
        assert killed(number, lambda here=here, victim=victim: here.step(step, victim, **options(step, strategy)))
        if step != "isolate" and step != "release":
            assert here.state() == "quarantined"
        last = before.attempt
        with here.open() as store:
            open_ones = [one.attempt for one in store.incidents(NS) if one.state == "open"]
            last = open_ones[0] if open_ones else last
        again = attempt(takeover=last)
        for name in STEPS[STEPS.index(step) :]:
            here.step(name, again, **options(name, strategy))
        check(here, elsewhere)
        if strategy == "hard":
            assert here.facts()["switched_from"] == site.generation(), "the former generation cannot be found for undo"
            assert here.rows(generation=site.generation()) == site.rows()
        shutil.rmtree(here.folder)


def restored(site, **run):
    return restore_step.bring_back(
        store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(), name=NAME,
        run=incident.Run(run["attempt"], "the test") if "attempt" in run else attempt(**run), namespaces=[NS],
        overwrite=True,
    )  # fmt: skip


def test_a_restore_that_was_killed_is_finished_by_the_same_call(template, tmp_path, monkeypatch):
    monkeypatch.setattr(restore_work, "LEASE_SECONDS", 2.0)  # what a killed restore holds is waited for
    site = copy(template, tmp_path / "site")
    site.rebuild("soft")
    site.close_incident()
    elsewhere = site.untouched()
    rehearsal = copy(site, tmp_path / "rehearsal")
    kinds = instants_of(lambda: restored(rehearsal))
    expected = rehearsal.served()
    assert len(expected) == 39  # what the newest snapshot holds
    for number in chosen(kinds):
        here = copy(site, tmp_path / f"at{number}")
        assert killed(number, lambda here=here: restored(here, attempt="dead:1:1"))
        restored(here, takeover="dead:1:1")
        assert here.served() == expected and here.untouched() == elsewhere
        assert not restored(here)["changed"]
        agrees(here, expected)
        with here.open() as store, store.reader() as reader:
            assert reader.log_health()["intact"]
            assert not [one for one in store.incidents(NS) if one.state == "open"]


@pytest.mark.parametrize("purpose", ["scheduled", "rotation"])
def test_work_without_an_incident_that_was_killed_is_finished_by_the_same_call(template, tmp_path, purpose):
    site = copy(template, tmp_path / "site")
    site.rebuild("soft")
    site.close_incident()
    served, elsewhere = site.served(), site.rows(OTHER)

    def work(here, **options):
        if purpose == "scheduled":
            return here.backup()
        return rotate.rotate(
            store_params=here.store, keyring=here.ring(), namespace=NS, workers=1, force=True, **options
        )

    rehearsal = copy(site, tmp_path / "rehearsal")
    kinds = instants_of(lambda: work(rehearsal))
    for number in chosen(kinds):
        here = copy(site, tmp_path / f"at{number}")
        rotating = {"attempt": "dead:1:1"} if purpose == "rotation" else {}
        assert killed(number, lambda here=here, rotating=rotating: work(here, **rotating))
        result = work(here, **({"takeover": "dead:1:1"} if rotating else {}))
        assert here.served() == served and here.rows(OTHER) == elsewhere
        if rotating:
            assert result["complete"] and {row[7] for row in here.rows().values()} == {result["key"]}
        else:
            assert result["snapshot"] and result["damaged"] == 0
        agrees(here, served)
        shutil.rmtree(here.folder)
