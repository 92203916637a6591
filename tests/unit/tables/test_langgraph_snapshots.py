# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of LangGraph's store in PostgreSQL, and what comes back from them."""

from __future__ import annotations

import contextlib
import json
import os

import psycopg
import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import tables_postgresql_indexes
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.tables_postgresql_generations import (
    TablesGenerations,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    drill,
    export,
    restore,
    restore_fill,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt


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
    site.damage()
    with pytest.raises(CapabilityMissing, match="write-lock"):
        _restore(site)
    done = _restore(site, keys=["fact 00001", "fact 00002", "notes/note 3"])
    assert (done["restored"], done["newer_keys"]) == (2, ["fact 00001"])
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


def test_a_foreign_key_finds_the_row_of_each_vector_by_the_whole_key(site, monkeypatch):
    """Autovacuum comes in the middle of a long restore, sees none of its rows, and tables that pass for empty are read
    by the index of the prefix: all items for each vector. And the room for locks is a server's for all its sessions: a
    restore takes no more of it the longer it is."""
    count, turns = 4000, []
    locks = "SELECT max(n) FROM (SELECT count(*) AS n FROM pg_locks WHERE pid <> pg_backend_pid() GROUP BY pid) p"
    put = TablesGenerations._put_root
    site.sql(
        f"INSERT INTO store (prefix, key, value) SELECT '{NS}', repeat('k', 400) || n, '{{}}' "
        f"FROM generate_series(1, {count}) n"
    )
    site.sql(
        "INSERT INTO store_vectors (prefix, key, field_name, embedding, created_at, updated_at) SELECT prefix, key, "
        "'text', '[1,2,3,4,5,6,7,8]', now(), now() FROM store WHERE key LIKE 'k%'"
    )
    site.backup()
    site.sql("TRUNCATE store CASCADE")
    site.sql(f"DROP SCHEMA {site.own} CASCADE")

    def beside(self, *arguments, **more):
        put(self, *arguments, **more)
        turns.append(site.sql(locks)[0][0])
        if len(turns) == 3:
            site.sql("SET lock_timeout = '100ms'")
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                site.sql("ANALYZE store")
            site.sql("RESET lock_timeout")

    monkeypatch.setattr(TablesGenerations, "_put_root", beside)
    monkeypatch.setattr(restore_fill, "DIRECT_ROWS", 500)
    looked = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'store'"
    before = site.sql(looked)[0][0]
    assert _restore(site, create=True)["restored"] >= count and len(turns) > 5
    assert turns[-1] <= turns[3]
    site.sql("SELECT pg_stat_force_next_flush()")
    assert site.sql(looked)[0][0] - before < 100 * count


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
    assert any("only the application's own search could answer" in line for line in found["not_rehearsed"])
    export.export(repository=place, keyring=site.ring(), name=NAME, directory=str(tmp_path / "out"), namespaces=[NS])
    with open(os.path.join(tmp_path, "out", "records.jsonl"), encoding="ascii") as lines:
        rows = {row["key"]: row for row in map(json.loads, lines)}
    assert {row["status"] for row in rows.values()} == {"intact"}
    tables = rows["notes/note 3"]["tables"]
    assert tables["store"][0]["value"] == {"text": "note 3"} and tables["store"][0]["prefix"] == f"{NS}.notes"
    assert len(tables["store_vectors"][0]["embedding"]) == site.dims
    assert "store_vectors" not in rows["none"]["tables"] and rows["short"]["expires"]
