# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""All of store_retention on one store: killed at its writes, with no room left, two at once, and beside an incident
that opens. Nothing that serves or that an incident needs goes, and the next run ends the work.

MEMOPS_RETENTION_POINTS sets how many instants it is killed at (default: as many as take two seconds; 0: all).
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite import SqliteStore
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    incident,
    incident_retention,
    log_retention,
    spool_retention,
    tombstone_retention,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt
from tests.unit.operations.test_incident_retention import ended, site_generations
from tests.unit.operations.test_rebuild_kills import Instants
from tests.unit.operations.test_spool_retention import lying, spooled
from tests.unit.operations.test_tombstone_retention import keep_newest, take

POINTS = int(os.environ.get("MEMOPS_RETENTION_POINTS", "3"))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Everything that retention takes: reads, writes, tombstones, rows aside, a folder, a generation, evidence."""
    site = Site(tmp_path_factory.mktemp("retention") / "template")
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n:03d}": n for n in range(30)})
        memory.write_many(OTHER, {"calm": 1})
        memory.read_many(NS, ["k001", "k002"])
    site.backup()
    for strategy in ("soft", "hard"):
        site.raw.flip(NS, "k003")
        site.raw.flip(NS, "k004")
        site.rebuild(strategy)
        site.close_incident()
    site.spool = os.path.join(site.folder, "spool")
    spooled(site)
    with site.memory() as memory:
        for n in range(20, 26):
            memory.delete(NS, f"k{n:03d}", soft=bool(n % 2))
    Repository.open(site.repository).accept(NAME, take(site), site.ring(), "the test")
    keep_newest(site, days=100)  # what the rebuilds published as evidence goes, too
    keep_newest(site, days=102)
    return site


@pytest.fixture
def site(template, tmp_path):
    return copy(template, tmp_path / "site")


def copy(template, folder):
    shutil.copytree(template.folder, folder)
    site = Site(folder)
    site.spool = os.path.join(site.folder, "spool")
    return site


def retain(site):
    with site.open() as store:
        common = {
            "store": store, "store_params": site.store, "repository": Repository.open(site.repository),
            "keyring": site.ring(), "name": NAME,
        }  # fmt: skip
        found = [
            log_retention.apply(**common, keep_reads=0.0, keep_writes=0.0),
            tombstone_retention.apply(**common, keep_tombstones=0.0),
            incident_retention.apply(**common, keep=0.0, run=attempt()),
            spool_retention.apply(**common, keep=0.0, spool=site.spool),
        ]
    return found


def left(site):
    """Everything that there is, but for the ids and times that every run gives anew."""
    with site.open() as store:
        with store.reader() as reader:
            assert reader.log_health()["intact"] and reader.structure() == []
            log = [tuple(entry)[2:8] for batch in reader.log() for entry in batch if entry.sequence]
        facts = sorted((one.namespace, one.incident, one.state, sorted(one.facts)) for one in store.incidents())
        generations = store.generations(NS)
    folders = sorted(os.listdir(incident.base(site.store)))
    spool = [name for _path, _dirs, files in os.walk(os.path.join(site.spool, "snapshots")) for name in files]
    return site.served(), site.rows(), site.rows_aside(), log, facts, generations, folders, spool


def fork(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except MemoryOpsError:
            status = 3
        finally:
            os._exit(status)
    return pid


def watched(patch, at=None):
    instants = Instants(patch, at)
    for name in ("unlink", "rmdir"):
        patch.setattr(os, name, instants.around(getattr(os, name), name))
    return instants


def test_killed_at_its_writes_nothing_that_serves_goes_and_the_next_run_ends_it(template, tmp_path):
    whole = copy(template, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        instants = watched(patch)
        found = retain(whole)
    assert all(one["changed"] for one in found), found
    wanted = left(whole)
    assert wanted[2] == [] and wanted[7] == []
    points = range(1, instants.seen + 1)
    for at in points if not POINTS else random.sample(points, POINTS):
        site = copy(template, tmp_path / f"killed-{at}")

        def dying(at=at, site=site):
            with pytest.MonkeyPatch.context() as patch:
                watched(patch, at)
                retain(site)

        assert os.WTERMSIG(os.waitpid(fork(dying), 0)[1]) == signal.SIGKILL
        assert site.served() == wanted[0], f"killed at instant {at}, {instants.kinds[at - 1]}"
        ended(site)
        retain(site)
        retain(site)
        assert left(site) == wanted, f"killed at instant {at}, {instants.kinds[at - 1]}"
        shutil.rmtree(site.folder)


def test_two_at_once_do_what_one_does(template, tmp_path):
    whole, both = copy(template, tmp_path / "whole"), copy(template, tmp_path / "both")
    retain(whole)
    children = [fork(lambda: retain(both)) for _number in range(2)]
    # who meets the other one may stop in one sentence
    assert {os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in children} <= {0, 3}
    retain(both)
    assert left(both) == left(whole)


def test_without_room_it_stops_in_one_sentence_and_the_next_run_ends_it(template, tmp_path):
    """No file may grow: what a full disk does to SQLite's write-ahead log and to notes."""
    whole, site = copy(template, tmp_path / "whole"), copy(template, tmp_path / "full")
    retain(whole)
    before = site.served()

    def cramped():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
        retain(site)

    assert os.WEXITSTATUS(os.waitpid(fork(cramped), 0)[1]) == 3
    assert site.served() == before
    ended(site)
    retain(site)
    retain(site)
    assert left(site) == left(whole)


@pytest.mark.parametrize("write", ["drop_tombstones", "drop_aside"])
def test_beside_an_incident_that_opens_nothing_goes_that_it_may_need(site, monkeypatch, write):
    """It is opened after retention looked whether there is one, and before its first write of that kind."""
    run, opened, inner = attempt(), [], getattr(SqliteStore, write)

    def opening(store, *args, **more):
        if not opened:
            opened.append(site.step("isolate", run))
        return inner(store, *args, **more)

    monkeypatch.setattr(SqliteStore, write, opening)
    before, generations = site.rows(), site_generations(site)
    _logged, buried, forgotten, waiting = retain(site)
    assert opened and not waiting["changed"] and lying(site)
    if write == "drop_tombstones":
        assert not buried["changed"] and site.rows() == before and not forgotten["changed"] and site.rows_aside()
    assert site_generations(site) == generations, "a former generation goes by a claim, which the incident has"
    site.rebuild(run=run, until="plan")
    site.step("release", run, force=True)
    assert site.state() == "serving"


def test_a_store_that_answers_late_is_given_up_in_one_sentence(template, tmp_path):
    whole, site = copy(template, tmp_path / "whole"), copy(template, tmp_path / "late")
    retain(whole)
    site.store["busy_timeout"] = 0.2
    with contextlib.closing(sqlite3.connect(site.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MemoryOpsError) as caught:
            retain(site)
        assert caught.value.next_step
    retain(site)
    assert left(site) == left(whole)
