# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Control rows of namespaces whose records are an application's own keys or rows: gone while a quarantine stands."""

from __future__ import annotations

import pytest
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceDamaged
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.keyspace_help import KeyspaceSite
from tests.unit.operations.keyspace_help import rebuild as rebuild_keys
from tests.unit.operations.runbook import NS, attempt
from tests.unit.tables.test_custom_tables import FILL, PLAIN, CustomSite


def test_a_quarantine_of_keys_is_not_forgotten(tmp_path, valkey_server):
    site = KeyspaceSite(tmp_path, valkey_server)
    try:
        site.fill(count=5)
        before = site.dumps()
        site.backup()
        site.app.set(site.key("s00001"), "garbage")
        run = attempt()
        site.step("isolate", run)
        with site.open() as store:
            assert site.root.hdel(store.names.namespaces, NS) == 1
            with store.reader() as reader:
                for ask in (reader.namespaces, lambda: reader.namespace(NS), lambda: reader.count(NS)):
                    with pytest.raises(NamespaceDamaged, match="is gone"):
                        ask()
                assert f"the control row of namespace '{NS}' is gone, its records are there" in reader.structure()
        with pytest.raises(NamespaceDamaged):
            site.step("release", run, force=True)
        with pytest.raises(NoPermissionError):
            site.app.get(site.key("s00001"))
        rebuild_keys(site, Window(keys=frozenset(["s00001"])), "hard", until="apply", run=run)
        site.step("release", run, force=True)
        assert site.dumps() == before
        assert site.app.get(site.key("s00001")) == b"value 1 of agent-7 " * 5
    finally:
        site.wipe()


def test_a_quarantine_of_rows_is_not_forgotten(tmp_path, postgresql_server):
    site = CustomSite(tmp_path, postgresql_server, PLAIN + FILL)
    try:
        before = site.dump("true", ['"Memories"'])
        site.backup()
        site.application.execute("UPDATE \"Memories\" SET text = 'wrong' WHERE tenant = 'ann' AND \"Key\" = 'note 3'")
        run = attempt()
        site.step("isolate", run, "ann")
        site.sql(f"DELETE FROM {site.own}.memops_namespace WHERE name = 'ann'")
        with site.open() as store, store.reader() as reader:
            for ask in (reader.namespaces, lambda: reader.namespace("ann")):
                with pytest.raises(NamespaceDamaged, match="is gone"):
                    ask()
            assert "the control row of namespace 'ann' is gone, its records are there" in reader.structure()
        site.step("isolate", attempt(), "bob")  # its fence is made anew, and ann's stays
        assert site.ask("SELECT tenant, count(*) FROM \"Memories\" GROUP BY tenant") == [("eve", 8)]
        with pytest.raises(NamespaceDamaged):
            site.step("release", run, "ann", force=True)
        site.rebuild("ann", Window(keys=frozenset(["note 3"])), "hard", run=run, until="apply")
        site.step("release", run, "ann", force=True)
        site.close_by_release("bob")
        assert site.dump("true", ['"Memories"']) == before
        assert site.ask("SELECT count(*) FROM \"Memories\"") == [(24,)]
    finally:
        site.wipe()
