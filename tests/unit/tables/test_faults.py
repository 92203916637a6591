# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults under the tables of another application: kill -9 at the switch, a full disk, a store that answers late or not
at all. One sentence each time, the quarantine stands, and the same command finishes with nothing lost."""

from __future__ import annotations

import os
import resource
import signal
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_session import Session
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.tables_postgresql import (
    TablesPostgresqlStore,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.support.link import Link
from tests.unit.operations.runbook import NS, attempt
from tests.unit.tables.sqlite_help import LanggraphSite

CALLS = ("say", "run", "rows", "copy", "commit")


@pytest.fixture
def site(site):
    site.fill(count=10)
    return site


def again(site):
    """Another attempt, whatever address the server is reached at."""
    return attempt(takeover=site.last_attempt(), work_dir=site.folder + "/work")


def planned(site):
    """Damaged, isolated and planned for a hard rebuild: (what it was, what it is)."""
    before = site.dump_of()
    site.backup()
    started = now_us()
    site.put(NS, {"fact 00001": {"text": "garbage"}, "made": {"text": "by the damage"}})
    site.app.ask("delete", namespace=[NS], keys=["fact 00002"])
    damaged = site.dump_of()
    site.rebuild(NS, Window(onset=started), "hard", until="plan", run=again(site))
    return before, damaged


def finished(site, before):
    run = again(site)
    for name in ("apply", "validate", "release"):
        site.step(name, run, NS)
    assert site.dump_of() == before


class InSwitch:
    """Does something at the ``at``-th call to the server within a switch; counts them."""

    def __init__(self, patch, at=None, act=None):
        self.seen, self.at, self.act, self.inside = 0, at, act, False
        real = TablesPostgresqlStore.switch

        def switch(store, *args):
            self.inside = True
            try:
                return real(store, *args)
            finally:
                self.inside = False

        patch.setattr(TablesPostgresqlStore, "switch", switch)
        for name in CALLS:
            patch.setattr(Session, name, self._around(getattr(Session, name)))

    def _around(self, function):
        def wrapped(*args, **kwargs):
            self.seen += self.inside
            if self.inside and self.seen == self.at:
                self.act()
            return function(*args, **kwargs)

        return wrapped


def killed_in_the_switch(site, at):
    """Whether the process that applies was killed there; else how many calls a switch has."""
    here, there = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with pytest.MonkeyPatch.context() as patch:
                counted = InSwitch(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                site.step("apply", again(site), NS)
                os.write(there, str(counted.seen).encode())
        finally:
            os._exit(1)
    os.close(there)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(here) as stream:
        said = stream.read()
    return os.WIFSIGNALED(status), said


def test_whoever_is_killed_in_the_switch_leaves_the_tables_as_they_were_or_as_they_should_be(site):
    before, damaged = planned(site)
    kills, at = 0, 2
    while True:
        killed, said = killed_in_the_switch(site, at)
        if not killed:
            break
        kills += 1
        assert site.dump_of() == damaged and site.state() == "quarantined"
        assert site.app.ask("get", namespace=[NS], key="fact 00003") is None
        at += 9
    assert kills >= 3 and int(said) > 20
    finished(site, before)


@pytest.mark.parametrize("last", [False, True])
def test_a_server_whose_answers_are_lost_in_the_switch(site, last):
    """Of the commit nobody knows whether it was carried out: the same command finds out."""
    before, damaged = planned(site)
    with Link(site.server.port) as link, pytest.MonkeyPatch.context() as patch:
        direct = site.store
        address = direct["url"].replace(f":{site.server.port}", f":{link.port}")
        site.store = {**direct, "url": address, "busy_timeout": 2}

        def lose():
            link.cut(answers=True)
            threading.Timer(0.5, lambda: link.heal(reset=True)).start()

        try:
            if last:
                real = Session.commit

                def commit(session):
                    if counted.inside:
                        lose()
                    return real(session)

                counted = InSwitch(patch)
                patch.setattr(Session, "commit", commit)
            else:
                counted = InSwitch(patch, 8, lose)
            with pytest.raises(MemoryOpsError) as found:
                site.step("apply", again(site), NS)
        finally:
            site.store = direct
    assert "\n" not in found.value.message and found.value.next_step and site.state() == "quarantined"
    assert counted.seen >= 8 and site.dump_of() == (before if last else damaged)
    finished(site, before)


def test_a_server_that_answers_late_is_waited_for(site):
    before, _damaged = planned(site)
    with Link(site.server.port) as link, pytest.MonkeyPatch.context() as patch:
        direct = site.store
        site.store = {**direct, "url": direct["url"].replace(f":{site.server.port}", f":{link.port}")}

        def late():
            link.cut()
            threading.Timer(1.0, link.heal).start()

        counted = InSwitch(patch, 8, late)
        try:
            assert site.step("apply", again(site), NS)["changed"]
        finally:
            site.store = direct
    assert counted.seen > 8
    finished(site, before)


# --- a SQLite file --------------------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path, app):
    one = LanggraphSite(tmp_path, app)
    one.fill(count=40)
    return one


def limited(size, work):
    """What ``work`` says in a process whose files cannot grow beyond ``size`` bytes; None when it ended well."""
    here, there = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            work()
            os._exit(0)
        except MemoryOpsError as exc:
            os.write(there, f"{type(exc).__name__}\t{exc.message}\t{exc.next_step}".encode())
        finally:
            os._exit(1)
    os.close(there)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(here) as stream:
        said = stream.read()
    assert said or not status
    return said.split("\t") if said else None


def test_a_full_disk_in_quarantine(file):
    before, tables = file.records(), file.dump(("store", "store_vectors"))
    file.backup()
    started = now_us()
    room = os.path.getsize(file.path) + 50_000
    said = limited(room, lambda: file.step("isolate", attempt()))
    assert said is not None and said[0] == "StoreUnavailable" and "\n" not in said[1] and said[2], said
    assert file.dump(("store", "store_vectors")) == tables  # nothing is half moved
    assert file.app.get([NS], "k00001") and not file.sql("SELECT 1 FROM sqlite_master WHERE type = 'trigger'")
    file.app.put([NS], "k00001", {"text": "garbage"})
    run = attempt(takeover=file.last_attempt())
    for name in ("isolate", "forensic", "diagnose", "plan"):
        options = {"diagnose": {"window": Window(onset=started)}, "plan": {"strategy": "hard"}}
        file.step(name, run, **options.get(name, {}))
    run = attempt(takeover=file.last_attempt())
    said = limited(os.path.getsize(file.path) + 4096, lambda: file.step("apply", run))
    assert said is not None and said[0] == "StoreUnavailable" and said[2], said
    assert file.app.get([NS], "k00001") is None and file.state() == "quarantined"
    run = attempt(takeover=file.last_attempt())
    for name in ("apply", "validate", "release"):
        file.step(name, run)
    assert file.records() == before


def test_a_file_that_somebody_holds_is_waited_for_and_then_named(file):
    other = file.database()
    other.execute("BEGIN EXCLUSIVE")
    file.store = {**file.store, "busy_timeout": 0.3}
    with pytest.raises(StoreUnavailable) as found:
        file.step("isolate", attempt())
    assert found.value.next_step and file.path in found.value.message
    file.store = {**file.store, "busy_timeout": 20}
    done: list = []
    waiting = threading.Thread(target=lambda: done.append(file.step("isolate", attempt())))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive() and not done
    other.execute("ROLLBACK")
    waiting.join()
    assert done[0]["changed"] and file.state() == "quarantined"
    other.close()
