# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows of a namespace that has none go straight into the application's tables: all of them, read back, or nothing."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.tables_postgresql_generations import (
    TablesGenerations,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    SnapshotUnusable,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, restore_fill
from tests.support.valkey_replicas import wait_for
from tests.unit.operations.runbook import NAME, NS

MANY, OTHER = 1500, "agent-8"


@pytest.fixture
def lost(site, monkeypatch, request):
    """Everything of the namespace is gone; what it was. A process of its own arranges the rows, some at a time."""
    monkeypatch.setattr(restore_fill, "SMALL", 100)
    monkeypatch.setattr(restore_fill, "DIRECT_ROWS", 200)
    site.fill()
    site.sql(
        f"INSERT INTO store (prefix, key, value) SELECT name, 'k' || n, '{{}}' FROM generate_series(1, {MANY}) n, "
        "unnest(%s::text[]) name",
        getattr(request, "param", [NS]),
    )
    site.backup()
    dump, catalogue, indexes = site.dump_of(), site.catalogue(), _indexes(site)
    site.sql("TRUNCATE store CASCADE")
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    return dump, catalogue, indexes


def _restore(site, namespace=NS, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
        create=True, **options,
    )  # fmt: skip


def _waiting(site):
    return site.sql(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s)", f"{site.schema}.store"
    )


class Aside(threading.Thread):
    """Beside this thread; ``ended`` is what it returned."""

    def __init__(self, work):
        super().__init__()
        self._work, self._found, self._error = work, None, None
        self.start()

    def run(self):
        try:
            self._found = self._work()
        except BaseException as exc:
            self._error = exc

    def ended(self):
        self.join()
        if self._error is not None:
            raise self._error
        return self._found


def _indexes(site):
    return site.sql(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND tablename LIKE 'store%%' ORDER BY 1", site.schema
    )


def test_rows_come_without_a_copy_beside_them(site, lost, monkeypatch):
    puts = []
    put = TablesGenerations._put_root
    monkeypatch.setattr(
        TablesGenerations, "_put_root", lambda *given, **more: (puts.append(given), put(*given, **more))[1]
    )
    monkeypatch.setattr(TablesGenerations, "_load_rows", None)  # of a copy beside the tables
    done = _restore(site)
    assert done["changed"] and done["restored"] == len(lost[0]["store"]) and len(puts) > 3
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost
    assert site.sql(f"SELECT count(*) FROM {site.own}.memory_records") == [(0,)]
    assert not _restore(site)["changed"]


def test_a_row_that_the_application_changes_on_its_way_undoes_all_of_it(site, lost):
    site.sql(
        f"CREATE FUNCTION altered() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE {site.schema}.store SET "
        "value = '{\"a\": 1}' WHERE key = NEW.key AND value = '{}'; RETURN NULL; END$$"
    )
    site.sql("CREATE TRIGGER altered AFTER INSERT ON store FOR EACH ROW WHEN (NEW.key = 'k700') "
             "EXECUTE FUNCTION altered()")  # fmt: skip
    try:
        with pytest.raises(CannotProceed, match="Nothing was changed"):
            _restore(site)
        assert not site.sql("SELECT count(*) FROM store")[0][0] and _indexes(site) == lost[2]
    finally:
        site.sql("DROP FUNCTION altered CASCADE")
    assert _restore(site)["changed"]
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost


def test_a_snapshot_that_is_cut_short_on_its_way_leaves_nothing(site, lost):
    packs = sorted(pathlib.Path(site.folder, "repository").rglob("*.pack"), key=lambda path: path.stat().st_size)
    whole = packs[-1].read_bytes()
    packs[-1].write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(SnapshotUnusable):
        _restore(site)
    assert not site.sql("SELECT count(*) FROM store")[0][0] and _indexes(site) == lost[2]
    packs[-1].write_bytes(whole)
    assert _restore(site)["changed"]
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost


@pytest.mark.parametrize("turn", [1, 4])
def test_a_session_that_is_ended_in_the_middle_leaves_nothing_and_the_next_run_finishes(
    site, lost, monkeypatch, turn
):
    turns = []
    put = TablesGenerations._put_root

    def cut(self, session, *arguments, **more):
        put(self, session, *arguments, **more)
        turns.append(1)
        if len(turns) == turn:
            site.sql(f"SELECT pg_terminate_backend({session.row('SELECT pg_backend_pid()')[0]})")

    monkeypatch.setattr(TablesGenerations, "_put_root", cut)
    with pytest.raises(StoreUnavailable):
        _restore(site)
    assert not site.sql("SELECT count(*) FROM store")[0][0] and _indexes(site) == lost[2]
    assert _restore(site)["changed"]
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost


def test_a_restore_that_is_killed_in_the_middle_leaves_nothing_and_the_next_one_finishes(site, lost):
    put, turns = TablesGenerations._put_root, []

    def cut(self, session, *arguments, **more):
        put(self, session, *arguments, **more)
        turns.append(1)
        if len(turns) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), pytest.MonkeyPatch.context() as patch:
            patch.setattr(TablesGenerations, "_put_root", cut)
            _restore(site, attempt="killed")
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    done = _restore(site, takeover="killed")
    assert done["changed"] and done["restored"] == len(lost[0]["store"])
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost
    assert site.sql(f"SELECT count(*) FROM {site.own}.memops_incident WHERE state = 'open'") == [(0,)]


def test_nobody_waits_for_a_repository_that_is_late(site, lost, monkeypatch, tmp_path):
    """Triggers that are off keep every other writer of the table away, of whatever namespace."""
    go, arranged = tmp_path / "go", restore_fill._arranged
    put, begun = TablesGenerations._put_root, threading.Event()

    def late(*given):
        for number, some in enumerate(arranged(*given)):
            if number == 1:
                wait_for("the repository answers", go.exists, 300)
            yield some

    def told(*given, **more):
        put(*given, **more)
        begun.set()

    monkeypatch.setattr(restore_fill, "_arranged", late)
    monkeypatch.setattr(TablesGenerations, "_put_root", told)
    site.sql(
        "CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.updated_at = now(); RETURN NEW; "
        "END$$"
    )
    site.sql("CREATE TRIGGER touched BEFORE UPDATE ON store FOR EACH ROW EXECUTE FUNCTION touched()")
    try:
        restoring = Aside(lambda: _restore(site))
        wait_for("rows were put", begun.is_set, 120)
        try:
            site.sql("SET statement_timeout = '60s'")
            site.sql("INSERT INTO store (prefix, key, value) VALUES (%s, 'new', '{}')", OTHER)
        finally:
            site.sql("RESET statement_timeout")
            go.touch()
        assert restoring.ended()["restored"] == len(lost[0]["store"])
    finally:
        site.sql("DROP FUNCTION touched CASCADE")
    assert (site.dump_of(), _indexes(site)) == (lost[0], lost[2])
    assert site.sql("SELECT value FROM store WHERE prefix = %s", OTHER) == [({},)]


@pytest.mark.parametrize("lost", [[NS, OTHER]], indirect=True)
def test_two_restores_into_the_same_tables_at_once_finish_both(site, lost, monkeypatch):
    put, turns, others = TablesGenerations._put_root, [], []

    def told(*given, **more):
        put(*given, **more)
        turns.append(1)
        if len(turns) == 6:  # what the planner was told of is held, too
            others.append(Aside(lambda: _restore(site, OTHER)))
            wait_for("the other one waits", lambda: _waiting(site), 60)

    monkeypatch.setattr(TablesGenerations, "_put_root", told)
    assert _restore(site)["restored"] == len(lost[0]["store"])
    assert others[0].ended()["restored"] == MANY
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost
    assert len(site.dump_of(OTHER)["store"]) == MANY


def test_a_process_that_is_killed_while_it_brings_rows_ends_the_restore(site, lost, monkeypatch):
    arranged = restore_fill._arranged

    def killed(*given):
        for number, some in enumerate(arranged(*given)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield some

    with monkeypatch.context() as patch:
        patch.setattr(restore_fill, "_arranged", killed)
        with pytest.raises(CannotProceed, match="A worker process was killed"):
            _restore(site)
    assert not site.sql("SELECT count(*) FROM store")[0][0] and _indexes(site) == lost[2]
    assert _restore(site)["changed"]
    assert (site.dump_of(), site.catalogue(), _indexes(site)) == lost
