# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence around a part of LangGraph's store in PostgreSQL, which others go on using, and the watch after it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.tables_postgresql_fence import TablesFence
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    monitor,
    monitor_step,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, OTHER, attempt


def test_two_applications_go_on_one_meets_the_fence_and_the_sibling_never_notices(site):
    site.fill()
    site.backup()
    with site.agent(NS) as own, site.agent(OTHER) as sibling:
        assert own.line() == sibling.line() == "at work\n"
        run = attempt()
        site.step("isolate", run, NS)
        fenced = site.dump_of()
        assert site.step("forensic", run, NS)["records"] == len(fenced["store"])
        for name in ("diagnose", "plan", "apply", "validate"):
            site.step(name, run, NS)
        assert site.dump_of() == fenced
        site.step("release", run, NS)
        while site.dump_of() == fenced:
            time.sleep(0.01)  # it writes again by itself
        own_said, other_said = json.loads(own.end()), json.loads(sibling.end())
    assert own_said["refused"] and not own_said["other"]
    assert other_said["writes"] > 20 and not other_said["refused"] and not other_said["wrong"]
    assert not other_said["other"]


def test_on_an_open_connection_nothing_of_the_namespace_is_read_or_written_and_all_else_is(site):
    site.fill()
    for namespace in ("agent-77", "agent", "x.agent-7"):
        site.put(namespace, {"k": {"text": namespace}})
    before, catalogue = site.dump_of(), site.catalogue()
    assert site.app.ask("get", namespace=[NS], key="fact 00001")
    run = attempt()
    proof = site.step("isolate", run, NS)["proof"]
    assert proof["writes_refused"] and proof["reads_refused"] and not proof["reads_accepted"]
    assert site.app.ask("get", namespace=[NS], key="fact 00001") is None
    view = site.view()
    assert not view["items"] and not view["namespaces"] and not any(view["ranked"])
    for what in (
        lambda: site.put(NS, {"fact 00001": {"text": "x"}}), lambda: site.put(f"{NS}.notes", {"new": {"text": "x"}}),
        lambda: site.app.ask("delete", namespace=[NS], keys=["fact 00001"]),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"memops fence|row-level security"):
            what()
    for namespace in ("agent-77", "agent", "x.agent-7"):
        site.put(namespace, {"k": {"text": "written in the quarantine"}})
        assert site.app.ask("get", namespace=namespace.split("."), key="k") == {"text": "written in the quarantine"}
    with pytest.raises(CannotProceed, match="belong to 'agent-7' too"):
        site.step("isolate", attempt(), f"{NS}.notes")
    site.step("isolate", attempt(), "agent-77")
    site.step("release", run, NS)
    assert site.app.ask("get", namespace=[NS], key="fact 00001") and site.dump_of() == before
    assert site.app.ask("get", namespace=["agent-77"], key="k") is None
    site.close_by_release("agent-77")
    assert site.catalogue() == catalogue


@pytest.fixture
def together(monkeypatch):
    """Two operators change the fence at once: each has looked before the other one is done, where that can be."""
    met, hold = threading.Barrier(2), TablesFence._hold

    def slow(self, session, names, mode="ACCESS EXCLUSIVE"):
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(2)
        hold(self, session, names, mode)

    def both(work):
        met.reset()
        with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
            patch.setattr(TablesFence, "_hold", slow)
            return list(pool.map(work, (NS, OTHER)))

    return both


def test_two_fences_that_come_and_go_at_once_are_whole(site, together):
    site.fill()
    site.put(OTHER, {"k": {"text": "theirs"}})
    before, catalogue, run = site.dump_of(), site.catalogue(), attempt()
    done = together(lambda namespace: site.step("isolate", run, namespace))
    for namespace, one in zip((NS, OTHER), done):
        assert one["changed"] and one["proof"]["writes_refused"] and one["proof"]["reads_refused"], (namespace, one)
    for namespace, key in ((NS, "fact 00001"), (OTHER, "k")):
        assert site.app.ask("get", namespace=[namespace], key=key) is None
        with pytest.raises(RuntimeError, match=r"quarantined|row-level security"):
            site.put(namespace, {key: {"text": "new"}})
    together(lambda namespace: site.step("release", run, namespace, force=True))
    assert (site.dump_of(), site.catalogue()) == (before, catalogue)
    assert site.get(OTHER, "k") and site.get(NS, "fact 00001")


def test_queries_in_parallel_of_another_namespace_stay_so_beside_a_quarantine(site):
    site.fill()
    run = attempt()
    site.step("isolate", run, NS)
    with psycopg.connect(site.url) as con:
        for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            con.execute(f"SET {name} = 0")
        plan = con.execute("EXPLAIN SELECT count(*) FROM store WHERE value @> '{}'").fetchall()
    assert "Gather" in str(plan) and "memops_hidden" in str(plan)
    site.step("release", run, NS)


def test_nothing_is_said_to_be_fenced_that_row_level_security_does_not_bind(site):
    site.fill(count=3)
    for user in (None, "postgres", "memops", "nobody-there"):
        with site.as_user(user), pytest.raises(CapabilityMissing, match="fence-reads"):
            site.step("isolate", attempt(), NS)
        with site.as_user(user), site.open() as opened:
            assert any("nothing can be" in line for line in opened.warnings())
    assert not site.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", site.own)


def test_a_transaction_that_does_not_end_is_named_and_nobody_stands_behind_it_for_long(site):
    site.fill(count=3)
    site.store["busy_timeout"] = 0.3
    with site.server.connect("agent") as idle:
        idle.execute("BEGIN")
        idle.execute(f"SELECT 1 FROM {site.schema}.store")
        with pytest.raises(Exception, match=rf"pid {idle.info.backend_pid}, agent"):
            site.step("isolate", attempt(), NS)
        idle.execute("ROLLBACK")
    site.store["busy_timeout"] = 10
    assert not site.sql("SELECT 1 FROM pg_policies WHERE schemaname = %s", site.schema)
    with site.open() as store:
        name = next(one for one in store.incidents(NS) if one.state == "open").attempt
    site.step("isolate", attempt(takeover=name), NS)
    site.close_by_release(NS)


def test_an_application_that_does_not_own_its_tables_and_has_rules_of_its_own_keeps_them(site):
    site.fill(count=3)
    site.put("tenant-b", {"k": {"text": "hidden by its own rule"}})
    site.sql("ALTER TABLE store OWNER TO memops; ALTER TABLE store_vectors OWNER TO memops")
    site.sql("GRANT ALL ON store, store_vectors TO agent")
    site.sql("ALTER TABLE store ENABLE ROW LEVEL SECURITY")
    site.sql("CREATE POLICY own ON store USING (prefix <> 'tenant-b')")
    try:
        catalogue = site.catalogue()
        site.step("isolate", attempt(), NS)
        assert site.app.ask("get", namespace=[NS], key="fact 00001") is None
        site.close_by_release(NS)
        assert site.app.ask("get", namespace=[NS], key="fact 00001")
        assert site.app.ask("get", namespace=["tenant-b"], key="k") is None
        assert site.catalogue() == catalogue
    finally:
        site.sql("DROP POLICY own ON store; ALTER TABLE store DISABLE ROW LEVEL SECURITY")
        site.sql("ALTER TABLE store OWNER TO agent; ALTER TABLE store_vectors OWNER TO agent")


def test_the_watch_asks_the_probes_and_the_former_rows_go_when_it_has_passed(site):
    site.fill(count=110)
    site.backup()
    started = now_us()
    site.damage()
    site.rebuild(NS, Window(onset=started), "hard")
    with site.open() as store:
        found = monitor_step.watch(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None,
            run=attempt(takeover=site.last_attempt()), seconds=0.3, interval=0.05,
        )  # fmt: skip
        assert found["verdict"] == "pass" and len(store.generations(NS)) == 1
    assert "made" in site.aside()


def test_the_watch_puts_the_fence_back_when_memories_vanish(site):
    site.fill(count=110)
    site.backup()
    site.rebuild(NS)
    site.sql("DELETE FROM store WHERE prefix = %s", NS)
    run = attempt(takeover=site.last_attempt())
    with site.open() as store:
        found = monitor.monitor(
            store_params=site.store, keyring=site.ring(), claim=claim(store, NS, run), namespace=NS,
            deadline=now_us() + 300_000, interval=0.02,
        )  # fmt: skip
    assert found["verdict"] == "fail" and found["fenced"]
    site.close_by_release(NS)
