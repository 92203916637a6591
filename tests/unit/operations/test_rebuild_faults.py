# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every n-th database call and every n-th object-store call fails: a clear error, still quarantined, and a second run
ends where a run without faults ends.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import LeaseHeld, MemoryOpsError, StaleAttempt
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, incident
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from tests.unit.operations.runbook import NS, STEPS, attempt
from tests.unit.operations.test_rebuild_kills import EXPECTED, check, copy, damaged, options

POINTS = int(os.environ.get("MEMOPS_FAULT_POINTS", "6"))  # faults per step and kind; 0: every one
REAL_CONNECT = sqlite3.connect


class Faulty(sqlite3.Connection):
    """A connection whose n-th call fails as a full or dying disk does."""

    calls = itertools.count(1)
    fail_at = None
    error = "disk I/O error"

    def _count(self):
        if next(Faulty.calls) == Faulty.fail_at:
            raise sqlite3.OperationalError(Faulty.error)

    def execute(self, *args):
        self._count()
        return super().execute(*args)

    def executemany(self, *args):
        self._count()
        return super().executemany(*args)

    def executescript(self, *args):
        self._count()
        return super().executescript(*args)

    def cursor(self, *args):
        self._count()
        return super().cursor(*args)


def database(patch, fail_at):
    Faulty.calls, Faulty.fail_at = itertools.count(1), fail_at
    Faulty.error = random.choice(("disk I/O error", "database or disk is full", "database is locked"))
    patch.setattr(sqlite3, "connect", lambda *args, **kwargs: REAL_CONNECT(*args, **{**kwargs, "factory": Faulty}))
    return lambda: next(Faulty.calls) - 1


def objects(patch, fail_at):
    counter = itertools.count(1)

    def around(function):
        def wrapped(self, key, *args, **kwargs):
            if next(counter) == fail_at:
                raise self._failed("reach", key, OSError(errno.EIO, "Input/output error"))
            return function(self, key, *args, **kwargs)

        return wrapped

    for name in ("put", "get", "list", "children"):
        patch.setattr(DirectoryObjects, name, around(getattr(DirectoryObjects, name)))
    return lambda: next(counter) - 1


KINDS = {"database": database, "objects": objects}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return damaged(tmp_path_factory.mktemp("faults") / "template")


CASES = [
    (step, "soft", kind)
    for step in STEPS
    for kind in KINDS
    if kind == "database" or step in ("forensic", "diagnose", "apply")
] + [("apply", "hard", "database"), ("apply", "hard", "objects"), ("apply", "rotate", "database")]


@pytest.mark.parametrize(("step", "strategy", "kind"), CASES)
def test_a_fault_is_said_and_the_next_run_ends_where_one_without_faults_ends(
    template, tmp_path, step, strategy, kind
):
    site = copy(template, tmp_path / "site")
    elsewhere, before = site.untouched(), attempt()
    for name in STEPS[: STEPS.index(step)]:
        site.step(name, before, **options(name, strategy))
    rehearsal = copy(site, tmp_path / "rehearsal")
    with pytest.MonkeyPatch.context() as patch:
        count = KINDS[kind](patch, None)
        rehearsal.step(step, before, **options(step, strategy))
        calls = count()
    assert calls
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {calls} calls")
    said = 0
    for turn, number in enumerate(random.Random(seed).sample(range(1, calls + 1), calls)):
        if turn >= (POINTS or calls) and said:
            break  # until then more are tried: of some calls most may fail without harm
        here = copy(site, tmp_path / f"at{number}")
        failed = None
        with pytest.MonkeyPatch.context() as patch:
            KINDS[kind](patch, number)
            try:
                here.step(step, before, **options(step, strategy))
            except MemoryOpsError as exc:
                failed = (exc.message, exc.next_step)  # not the exception: its frames hold connections open
        if failed is not None:  # some calls may fail without harm: the step did its work all the same
            assert failed[1], f"call {number}: {failed!r} names no next step"
            assert "\n" not in failed[0]
            said += 1
        if STEPS.index(step) > 0 and step != "release":
            assert here.state() == "quarantined"
        for name in STEPS[STEPS.index(step) :]:
            here.step(name, before, **options(name, strategy))
        check(here, elsewhere)
        shutil.rmtree(here.folder)
    assert said


# --- two attempts -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", STEPS)
def test_a_second_attempt_is_refused_and_told_who_works_since_when(template, tmp_path, step):
    site = copy(template, tmp_path / "site")
    first = incident.Run("controller:1:1", "ada@controller")
    for name in STEPS[: STEPS.index(step) + (step == "isolate")]:
        site.step(name, first, **options(name, "soft"))
    rows = site.rows()
    with pytest.raises(LeaseHeld) as caught:
        site.step(step if step != "isolate" else "isolate", attempt(), **options(step, "soft"))
    holder = caught.value.holder
    assert (holder["owner"], holder["attempt"]) == ("ada@controller", "controller:1:1")
    assert holder["since"] and holder["until"] and "ada@controller" in caught.value.message and caught.value.next_step
    assert site.rows() == rows and site.state() == "quarantined"


def test_an_attempt_that_was_taken_over_can_change_nothing(template, tmp_path):
    site = copy(template, tmp_path / "site")
    old, new = attempt(), None
    site.rebuild("soft", until="plan", run=old)
    with site.open() as store:
        stale = incident.claim(store, NS, old)
        new = attempt(takeover=old.attempt)
        fresh = incident.claim(store, NS, new)
        generation = store.begin_generation(fresh)
        row = next(iter(site.rows().values()))
        rows, facts = site.rows(), store.incident(fresh).facts
        for work in (
            lambda: store.renew(stale),
            lambda: store.note(stale, anything=1),
            lambda: store.fence(stale),
            lambda: store.unfence(stale),
            lambda: store.set_state(stale, "standby"),
            lambda: store.change(stale, [Change(row[0], row[9], None)]),
            lambda: store.reseal(stale, [(row[7], row[8], row[9], row[0], row[9])]),
            lambda: store.reserve(stale, 5),
            lambda: store.log_operation(stale, [(0, 0, NS, "rebuild", None, None, None, None, None, "x", "x", b"")]),
            lambda: store.begin_generation(stale),
            lambda: store.load(stale, generation, [row]),
            lambda: store.copy_generation(stale, site.generation(), generation, after=None, limit=9, excluding=None),
            lambda: store.switch(stale, generation, site.generation()),
            lambda: store.drop_generation(stale, generation),
            lambda: store.filled_from(stale, "s", 1, 1, 1, "d"),
            lambda: store.raise_epoch(stale, 5),
            lambda: store.import_log(stale, []),
            lambda: store.end_lease(stale),
            lambda: store.close_incident(stale),
        ):
            with pytest.raises(StaleAttempt) as caught:
                work()
            assert caught.value.next_step
        assert store.incident(fresh).facts == facts
    assert site.rows() == rows and site.state() == "quarantined"
    with pytest.raises(LeaseHeld):
        site.step("apply", old)
    site.rebuild("soft", run=new)
    assert site.served() == EXPECTED


def test_an_attempt_that_is_taken_over_in_the_middle_of_applying_stops(template, tmp_path, monkeypatch):
    """The new attempt comes between the reading and the writing of the old one."""
    site = copy(template, tmp_path / "site")
    old = attempt()
    site.rebuild("soft", until="plan", run=old)
    new = attempt(takeover=old.attempt)
    wanted = apply.Applier._wanted

    def interrupted(self, *given):
        monkeypatch.setattr(apply.Applier, "_wanted", wanted)
        site.step("apply", new)
        return wanted(self, *given)

    monkeypatch.setattr(apply.Applier, "_wanted", interrupted)
    rows = site.rows()
    with pytest.raises(StaleAttempt):
        site.step("apply", old)
    assert site.rows() != rows
    site.rebuild("soft", run=new)
    assert site.served() == EXPECTED
