# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on LangGraph's own store in PostgreSQL: after a rebuild the framework says what it said."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    NamespaceUnknown,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    preflight,
    rotate,
    store_info,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.tables.tables_help import LangGraph


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_after_a_rebuild_the_framework_says_what_it_said_before(site, strategy):
    site.fill()
    site.fill(OTHER, 5)
    before, dump, sibling, catalogue = site.view(), site.dump_of(), site.dump_of(OTHER), site.catalogue()
    site.backup()
    started = now_us()
    site.damage()
    assert site.view() != before
    done = site.rebuild(NS, Window(onset=started), strategy)
    assert site.view() == before
    assert (site.dump_of(), site.dump_of(OTHER)) == (dump, sibling)
    assert site.catalogue() == catalogue
    assert done["plan"]["suspect_keys"] == ["made"] and done["plan"]["records"]["repair"] == 7
    assert done["validate"]["verdict"] == "pass" and done["validate"]["probes"]["checked"] >= 30
    if strategy == "soft":
        assert {"made", "fact 00001", "a%2Fb", "short"} == set(site.aside())
    site.close_incident()
    site.forget_incidents(len(site.rows_aside()))
    assert (site.dump_of(), site.dump_of(OTHER)) == (dump, sibling)


def test_an_undamaged_namespace_is_the_same_to_the_bit_after_a_hard_rebuild(site):
    site.fill()
    before, catalogue = site.dump_of(), site.catalogue()
    site.backup()
    done = site.rebuild(NS, strategy="hard")
    assert site.dump_of() == before and site.catalogue() == catalogue
    assert done["apply"]["generation"]["to"] != done["apply"]["generation"]["from"]


def test_a_store_without_a_vector_index_has_the_same_runbook(tmp_path, postgresql_server):
    plain = LangGraph(tmp_path, postgresql_server, dims=0)
    try:
        plain.fill(count=2000)
        before, dump = plain.view(), plain.dump_of()
        plain.backup()
        started = now_us()
        plain.put(NS, {"fact 00001": {"text": "garbage"}})
        plain.app.ask("delete", namespace=[NS], keys=["fact 00002"])
        plain.rebuild(NS, Window(onset=started), "hard")
        assert plain.view() == before and plain.dump_of() == dump
    finally:
        plain.wipe()


def test_without_a_window_what_changed_is_kept_and_what_is_absent_is_listed(site):
    site.fill()
    site.backup()
    site.damage()
    now = site.dump_of()
    done = site.rebuild(NS)
    assert site.dump_of() == now and not done["apply"]["changed"]
    assert done["plan"]["absent_keys"] == ["%-", "100%25", "fact 00002", "notes/note 3"]


def test_what_says_that_it_was_written_before_the_window_is_kept_and_a_silent_change_is_not(site):
    site.fill()
    site.backup()
    site.put(NS, {"fact 00001": {"text": "written after the snapshot"}, "new": {"text": "new"}})
    started = now_us()
    site.sql("UPDATE store SET value = '{\"text\": \"wrong\"}' WHERE prefix = %s AND key = 'fact 00003'", NS)
    site.put(NS, {"fact 00004": {"text": "wrong"}})
    done = site.rebuild(NS, Window(onset=started))
    for key, text in (
        ("fact 00001", "written after the snapshot"), ("new", "new"), ("fact 00003", f"fact 3 of {NS}"),
        ("fact 00004", f"fact 4 of {NS}"),
    ):  # fmt: skip
        assert site.app.ask("get", namespace=[NS], key=key)["text"] == text
    assert done["plan"]["records"]["repair"] == 2 and not done["plan"]["suspect_keys"]


def test_an_expiry_that_a_read_put_off_is_no_damage(site):
    site.fill()
    site.backup()
    started = now_us()
    site.app.ask("read", namespace=[NS], key="short")
    put_off = site.dump_of()
    done = site.rebuild(NS, Window(onset=started))
    assert site.dump_of() == put_off and not done["plan"]["records"]["damaged"]


def test_undo_brings_back_what_a_hard_rebuild_replaced(site):
    site.fill()
    site.backup()
    started = now_us()
    site.damage()
    damaged = site.dump_of()
    run = attempt()
    site.rebuild(NS, Window(onset=started), "hard", until="apply", run=run)
    assert site.dump_of() != damaged
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=run)["changed"]
    assert site.dump_of() == damaged
    site.close_by_release(NS)


def test_a_switch_that_would_not_hold_what_was_staged_changes_nothing(site):
    """A trigger of the application changes what was put into its table."""
    site.fill(count=5)
    site.backup()
    started = now_us()
    site.damage()
    damaged = site.dump_of()
    site.sql(f"CREATE FUNCTION {site.schema}.meddle() RETURNS trigger LANGUAGE plpgsql AS "
             f"$$BEGIN UPDATE {site.schema}.store SET value = value || '{{\"m\": 1}}' "
             "WHERE prefix = NEW.prefix AND key = NEW.key AND NOT value ? 'm'; RETURN NULL; END$$")  # fmt: skip
    site.sql("CREATE TRIGGER meddle AFTER INSERT OR UPDATE ON store FOR EACH ROW "
             f"EXECUTE FUNCTION {site.schema}.meddle()")  # fmt: skip
    try:
        for strategy in ("soft", "hard"):
            run = attempt(takeover=site.last_attempt())
            with pytest.raises(CannotProceed, match=r"a trigger of the application changes it \(meddle on"):
                site.rebuild(NS, Window(onset=started), strategy, until="apply", run=run)
            assert site.dump_of() == damaged
    finally:
        site.sql("DROP TRIGGER meddle ON store")
    run = attempt(takeover=site.last_attempt())
    site.rebuild(NS, Window(onset=started), "hard", run=run)


def test_single_records_go_out_of_service_and_come_back_as_they_were(site):
    site.fill()
    before = site.dump_of()
    site.backup()
    more = {"store_params": site.store, "namespace": NS}
    with site.open() as store:
        gone = isolate_records(
            store=store, choice=choose(keys=["a%2Fb"], pattern="notes/note*"), open_keyring=site.ring,
            run=attempt(), **more,
        )  # fmt: skip
        assert gone["isolated"] == 11 and not site.app.ask("get", namespace=[NS], key="a/b")
        again = isolate_records(
            store=store, choice=choose(keys=["a%2Fb"]), open_keyring=site.ring, run=attempt(), **more
        )
        assert (again["changed"], again["isolated"], again["already"]) == (False, 0, 1)
        done = site.rebuild(NS, Window(onset=now_us()), absent="restore")  # a rebuild does not bring them back
        assert not done["plan"]["records"]["repair"] and not site.app.ask("get", namespace=[NS], key="a/b")
        back = release_records(store=store, choice=None, run=attempt(takeover=site.last_attempt()), **more)
        assert back["released"] == 11
    assert site.dump_of() == before


def test_a_rehearsal_writes_nothing(site):
    site.fill()
    site.backup()
    started = now_us()
    site.damage()
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    before, catalogue = site.dump_of(), site.catalogue()
    with site.open() as store:
        found = preflight.preflight(store=store, store_params=site.store, namespace=NS, run=attempt(), **site.places())
        assert found["can_resolve"]
        said = store_info.store_info(store)
    assert said["capabilities"] == ["expiry", "fence-raw-reads", "fence-reads", "fence-writes", "generations", "search"]
    assert {one["name"]: one["records"] for one in said["namespaces"]}[f"{NS}.notes"] == 11 - 1
    site.step("isolate", attempt(), NS, check=True)
    site.step("diagnose", attempt(), NS, check=True, window=Window(onset=started))
    assert site.step("plan", attempt(), NS, check=True, window=Window(onset=started))["records"]["repair"] == 7
    assert site.dump_of() == before and site.catalogue() == catalogue
    assert not site.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", site.own)


def test_what_such_tables_lack_is_named(site):
    site.fill(count=3)
    site.backup()
    with pytest.raises(CapabilityMissing, match="encryption"):
        rotate.rotate(store_params=site.store, keyring=site.ring(), namespace=NS)
    with site.open() as store:
        calls = (lambda: store.writing(NS, 1), lambda: store.reserve(None, 1), lambda: store.set_ttl(NS, 1))
        for lacking in calls:
            with pytest.raises(CapabilityMissing, match="The layout langgraph_store has no"):
                lacking()
    with pytest.raises(NamespaceUnknown):
        site.step("isolate", attempt(), "fact")
