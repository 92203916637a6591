# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on LangGraph's own store in PostgreSQL: after a rebuild the framework says what it said."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import tables_postgresql_indexes
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    NamespaceUnknown,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    drill,
    export,
    inform,
    monitor,
    preflight,
    restore,
    rotate,
    verify,
    watch,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt
from tests.unit.tables.tables_help import LangGraph


@pytest.fixture(scope="module")
def shared(tmp_path_factory, postgresql_server):
    """One application for all tests of the file; each begins with empty tables and a repository of its own."""
    one = LangGraph(tmp_path_factory.mktemp("langgraph"), postgresql_server)
    yield one
    one.wipe()


@pytest.fixture
def site(shared, tmp_path):
    shared.clear(tmp_path)
    return shared


def damage(site):
    """Values are garbage, some are gone, one came that nobody knows, and an expiry is another."""
    site.put(NS, {"fact 00001": {"text": "garbage"}, "a/b": {"text": "wrong"}, "made": {"text": "by the damage"}})
    site.app.ask("delete", namespace=[NS], keys=["fact 00002", "100%", ""])
    site.app.ask("delete", namespace=[NS, "notes"], keys=["note 3"])
    site.sql("UPDATE store SET expires_at = now() + '1 h', updated_at = now() WHERE prefix = %s AND key = 'short'", NS)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_after_a_rebuild_the_framework_says_what_it_said_before(site, strategy):
    site.fill()
    site.fill(OTHER, 5)
    before, dump, sibling, catalogue = site.view(), site.dump_of(), site.dump_of(OTHER), site.catalogue()
    site.backup()
    started = now_us()
    damage(site)
    assert site.view() != before
    done = site.rebuild(NS, Window(onset=started), strategy)
    assert site.view() == before
    assert (site.dump_of(), site.dump_of(OTHER)) == (dump, sibling)
    assert site.catalogue() == catalogue
    assert done["plan"]["suspect_keys"] == ["made"] and done["plan"]["records"]["repair"] == 7
    assert done["validate"]["verdict"] == "pass" and done["validate"]["probes"]["checked"] >= 30
    if strategy == "soft":
        assert {"made", "fact 00001", "a%2Fb", "short"} == set(site.aside())


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
        plain.fill(count=5)
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
    damage(site)
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


def test_undo_brings_back_what_a_hard_rebuild_replaced(site):
    site.fill()
    site.backup()
    started = now_us()
    damage(site)
    damaged = site.dump_of()
    run = attempt()
    site.rebuild(NS, Window(onset=started), "hard", until="apply", run=run)
    assert site.dump_of() != damaged
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=run)["changed"]
    assert site.dump_of() == damaged
    site.close_by_release(NS)


def test_a_switch_that_would_not_hold_what_was_staged_changes_nothing(site):
    """A trigger of the application changes what is put into its table."""
    site.fill(count=5)
    site.backup()
    started = now_us()
    damage(site)
    damaged = site.dump_of()
    site.sql(f"CREATE FUNCTION {site.schema}.meddle() RETURNS trigger LANGUAGE plpgsql AS "
             "$$BEGIN NEW.updated_at = now(); RETURN NEW; END$$")  # fmt: skip
    site.sql("CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON store FOR EACH ROW "
             f"EXECUTE FUNCTION {site.schema}.meddle()")  # fmt: skip
    try:
        for strategy in ("soft", "hard"):
            run = attempt(takeover=site.last_attempt())
            with pytest.raises(CannotProceed, match="a trigger or rule of the application changes it"):
                site.rebuild(NS, Window(onset=started), strategy, until="apply", run=run)
            assert site.dump_of() == damaged
    finally:
        site.sql("DROP TRIGGER meddle ON store")
    run = attempt(takeover=site.last_attempt())
    site.rebuild(NS, Window(onset=started), "hard", run=run)


def _restore(site, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS, **options
    )


def test_a_database_that_lost_everything_gets_it_back_with_its_vectors_and_expiry(site):
    site.fill()
    before, dump = site.view(), site.dump_of()
    site.backup()
    site.sql("TRUNCATE store CASCADE")
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    assert _restore(site, create=True)["restored"] == len(dump["store"])
    assert site.view() == before and site.dump_of() == dump
    assert not _restore(site)["changed"]


def test_a_whole_restore_needs_the_fence_and_some_keys_do_not(site):
    site.fill()
    dump = site.dump_of()
    site.backup()
    damage(site)
    with pytest.raises(CapabilityMissing, match="write-lock"):
        _restore(site)
    done = _restore(site, keys=["fact 00001", "fact 00002", "notes/note 3", "nobody"])
    assert (done["restored"], done["newer_keys"], done["missing_keys"]) == (2, ["fact 00001"], ["nobody"])
    assert site.app.ask("get", namespace=[NS, "notes"], key="note 3") == {"text": "note 3"}
    run = attempt()
    site.step("isolate", run, NS)
    with site.open() as store:
        assert _restore(site, claim=claim(store, NS, run))["restored"] == len(dump["store"])
    assert site.dump_of() == dump
    site.step("release", run, NS)


@pytest.mark.parametrize("others", [False, True])
def test_a_vector_index_is_built_once_after_the_rows_where_nobody_else_needs_it(site, monkeypatch, others):
    site.fill()
    before, dump = site.view(), site.dump_of()
    site.backup()
    site.root.execute(f"TRUNCATE store CASCADE; DROP SCHEMA IF EXISTS {site.own} CASCADE")
    if others:
        site.fill(OTHER, 3)
    sibling = site.view(OTHER)
    monkeypatch.setattr(tables_postgresql_indexes, "MANY", 20)
    number = "SELECT indexrelid::bigint, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'store_vectors'" \
             "::regclass AND pg_get_indexdef(indexrelid) LIKE '%hnsw%'"  # fmt: skip
    (old, text), catalogue = site.sql(number)[0], site.catalogue()
    assert _restore(site, create=True)["restored"] == len(dump["store"])
    (new, again) = site.sql(number)[0]
    assert (again, new == old) == (text, others)
    assert (site.view(), site.dump_of(), site.view(OTHER)) == (before, dump, sibling)
    assert site.catalogue() == catalogue


def test_a_snapshot_of_tables_with_other_columns_is_refused_in_words(site):
    site.fill(count=3)
    site.backup()
    site.app.ask("delete", namespace=[NS], keys=["fact 00001"])
    site.sql("ALTER TABLE store RENAME COLUMN ttl_minutes TO ttl_seconds")
    try:
        with pytest.raises(CannotProceed, match="has no column ttl_minutes now"):
            _restore(site, keys=["fact 00001"])
    finally:
        site.sql("ALTER TABLE store RENAME COLUMN ttl_seconds TO ttl_minutes")
    assert _restore(site, keys=["fact 00001"])["restored"] == 1


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


def test_a_snapshot_verifies_rehearses_and_is_exported(site, tmp_path):
    site.fill()
    snapshot = site.backup()["snapshot"]
    place = Repository.open(site.repository)
    found = verify.verify(repository=place, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened")
    assert found["verdict"] == "pass"
    cases = tmp_path / "benchmark.jsonl"
    cases.write_text('{"query": "fact 3", "expect": "fact 00003"}\n', encoding="ascii")
    found = drill.drill(
        repository=place, keyring_params=site.keyring, name=NAME, namespaces=[NS], benchmark=str(cases)
    )
    assert found["verdict"] == "pass" and found["records"] == len(site.dump_of()["store"])
    assert "only the application's own search could answer" in found["not_rehearsed"][0]
    export.export(repository=place, keyring=site.ring(), name=NAME, directory=str(tmp_path / "out"), namespaces=[NS])
    with open(os.path.join(tmp_path, "out", "records.jsonl"), encoding="ascii") as lines:
        rows = {row["key"]: row for row in map(json.loads, lines)}
    assert {row["status"] for row in rows.values()} == {"intact"}
    tables = rows["notes/note 3"]["tables"]
    assert tables["store"][0]["value"] == {"text": "note 3"} and tables["store"][0]["prefix"] == f"{NS}.notes"
    assert len(tables["store_vectors"][0]["embedding"]) == site.dims
    assert "store_vectors" not in rows["none"]["tables"] and rows["short"]["expires"]


def test_what_the_server_and_the_framework_do_not_say_is_found_and_mended(site):
    site.fill(count=3)
    site.put(NS, {"gone": {"text": "ended"}}, ttl=1)
    site.sql("UPDATE store SET expires_at = now() - interval '1 h' WHERE key = 'gone'")
    with site.open() as store:
        with store.reader() as reader:
            assert reader.structure() == []
        assert any("1 rows of store have expired" in line for line in store.warnings())
    site.sql("ALTER TABLE store_vectors DROP CONSTRAINT store_vectors_prefix_key_fkey")
    site.sql("INSERT INTO store_vectors SELECT prefix, 'nobody', field_name, embedding FROM store_vectors LIMIT 1")
    site.step("isolate", attempt(), NS)
    site.sql("DROP POLICY memops_read ON store; ALTER TABLE store_vectors DISABLE TRIGGER memops_fence_insert")
    site.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'store_prefix_idx'::regclass")
    with site.open() as store:
        with store.reader() as reader:
            said = "; ".join(reader.structure())
        for what in ("rules on store are", "triggers on store_vectors", "belong to no row of store", "idx is invalid"):
            assert what in said
        assert not store.prove(NS)["reads_refused"]
        done = "; ".join(store.repair_structure())
        assert "raised the fence again" in done and "rebuilt the index" in done and "set 1 rows of" in done
        with store.reader() as reader:
            assert reader.structure() == []
        assert store.prove(NS)["reads_refused"] and store.prove(NS)["writes_refused"]
    site.sql("ALTER TABLE store_vectors ADD CONSTRAINT store_vectors_prefix_key_fkey FOREIGN KEY (prefix, key) "
             "REFERENCES store(prefix, key) ON DELETE CASCADE")  # fmt: skip
    site.close_by_release(NS)


def test_a_value_that_is_not_the_frameworks_is_damage(site):
    site.fill(count=3)
    before = site.dump_of()
    site.backup()
    site.sql("UPDATE store SET value = '[1]' WHERE prefix = %s AND key = 'fact 00001'", NS)
    done = site.rebuild(NS)  # without any window
    assert done["plan"]["records"]["damaged"] == 1 and site.dump_of() == before


def test_a_rehearsal_writes_nothing(site):
    site.fill()
    site.backup()
    started = now_us()
    damage(site)
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    before, catalogue = site.dump_of(), site.catalogue()
    with site.open() as store:
        found = preflight.preflight(store=store, store_params=site.store, namespace=NS, run=attempt(), **site.places())
        assert found["can_resolve"]
        said = inform.inform(store)
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
        calls = (lambda: store.writing(NS, 1, "x"), lambda: store.reserve(None, 1), lambda: store.set_ttl(NS, 1))
        for lacking in calls:
            with pytest.raises(CapabilityMissing, match="The layout langgraph_store has no"):
                lacking()
    with pytest.raises(NamespaceUnknown):
        site.step("isolate", attempt(), "fact")


def test_the_watch_asks_the_probes_and_the_former_rows_go_when_it_has_passed(site):
    site.fill(count=110)
    site.backup()
    started = now_us()
    damage(site)
    site.rebuild(NS, Window(onset=started), "hard")
    with site.open() as store:
        found = watch.watch(
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
