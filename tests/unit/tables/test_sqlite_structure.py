# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is found wrong with a framework's tables in a SQLite file, and what is rebuilt."""
from __future__ import annotations

import sqlite3
import struct

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    NamespaceUnknown,
    StoreMissing,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.langgraph_store import LANGGRAPH_STORE
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils._table_records import name_of
from tests.unit.operations.runbook import NS, OTHER, attempt
from tests.unit.tables.sqlite_help import ODD, LanggraphSite

OWN_INDEX = "CREATE INDEX store_prefix_idx ON store (prefix)"


@pytest.fixture
def site(tmp_path, app):
    one = LanggraphSite(tmp_path, app)
    one.fill()
    return one


def findings(site):
    with site.open() as store, store.reader() as reader:
        return reader.structure()


def test_a_sound_file_has_no_findings(site):
    assert findings(site) == [] and remarks(site) == []


def remarks(site):
    assert findings(site) == []  # nothing that would stop a rebuild
    with site.open() as store:
        return store.warnings()


def test_what_the_framework_leaves_behind_is_found(site):
    site.app.delete([NS], "k00001", "k00002")  # the framework leaves their vectors
    assert remarks(site) == ["2 rows of store_vectors belong to no row of store"]


def test_an_item_that_lost_its_vector_is_told_of_by_its_siblings(site):
    site.sql("UPDATE store_vectors SET field_name = 'text'")
    listed = [line for line in remarks(site) if "vector" in line]
    assert listed == []  # an item without the field has none by right
    site.sql("DELETE FROM store_vectors WHERE prefix = ? AND key = 'k00003'", NS)
    (line,) = remarks(site)
    assert line.startswith(f"1 item of '{NS}' has no vector for 'text', as ") and "such as 'k00003'" in line
    site.sql("DELETE FROM store_vectors WHERE prefix = ? AND key LIKE 'k0%'", NS)
    assert remarks(site) == []  # of so many it may be meant


def test_vectors_of_another_dimension_are_found(site):
    blob = struct.pack("4f", 1, 2, 3, 4)
    site.sql("UPDATE store_vectors SET embedding = ? WHERE prefix = ? AND key = 'k00003'", blob, NS)
    assert remarks(site) == ["1 vector of store_vectors has 4 dimensions, the others 8"]


def test_half_done_migrations_are_found(site):
    site.sql("DROP TABLE store_vectors")
    site.sql("DROP INDEX idx_store_expires_at")
    assert remarks(site) == [
        "half-migrated: store_migrations says that idx_store_expires_at was made, and it is not there",
        "half-migrated: vector_migrations says that store_vectors was made, and it is not there",
    ]
    site.sql("DELETE FROM vector_migrations")
    assert remarks(site)[-1] == "half-migrated: vector_migrations was made, and no migration ran"


def test_keys_that_no_record_can_have_are_found_and_stay_where_they_are(site):
    site.backup()
    before = set(site.records())
    site.sql("INSERT INTO store (prefix, key, value) VALUES (?, x'ff00', x'7b7d')", NS)
    site.sql("INSERT INTO store (prefix, key, value) VALUES (?, CAST(x'ff41' AS TEXT), x'7b7d')", NS)
    found = remarks(site)
    assert found == ["2 rows of store belong to nobody or have a key that is no text: no snapshot holds them"]
    assert set(site.records()) == before
    run = attempt()
    for name in ("isolate", "forensic", "diagnose", "plan", "apply"):
        options = {"strategy": "hard"} if name == "plan" else {}
        site.step(name, run, **options)
        assert not site.sql("SELECT 1 FROM store WHERE prefix = ?", NS)
    site.step("release", run, force=True)
    assert set(site.records()) == before
    assert len(site.sql("SELECT 1 FROM store WHERE typeof(key) = 'blob' OR key = CAST(x'ff41' AS TEXT)")) == 2


def hide(site, key):
    """The index of the namespaces misses the rows of one key, as after a crash of a disk."""
    con = site.database()
    con.execute("DROP INDEX store_prefix_idx")
    con.execute(f"{OWN_INDEX} WHERE key <> '{key}'")
    con.execute("PRAGMA writable_schema = ON")
    con.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'store_prefix_idx'", (OWN_INDEX,))
    con.execute("PRAGMA writable_schema = RESET")
    con.close()


@pytest.mark.parametrize("quarantined", [False, True])
def test_an_index_that_misses_rows_is_found_and_rebuilt(site, quarantined):
    before = site.dump(("store",))
    hide(site, "k00005")
    found = findings(site)
    assert found and all("store_prefix_idx" in line for line in found)
    scan = integrity.scan(store_params=site.store, namespace=NS)
    assert scan["findings"]["index"] == len(found) and scan["verdict"] == "fail"
    run = attempt()
    if quarantined:
        site.step("isolate", run)
    with site.open() as store:
        assert "rebuilt the index store_prefix_idx" in store.repair_structure()
    assert findings(site) == []
    if quarantined:
        assert not site.sql("SELECT 1 FROM store NOT INDEXED WHERE prefix = ?", NS)
        site.step("release", run)
    assert site.dump(("store",)) == before


def test_a_fence_whose_triggers_somebody_dropped_is_found_and_raised_again(site):
    run = attempt()
    site.step("isolate", run)
    site.sql("DROP TRIGGER memops_fence_insert_store")
    assert findings(site) == ["the trigger memops_fence_insert_store of the fence is missing or changed"]
    with site.open() as store:
        assert store.repair_structure() == ["made the trigger memops_fence_insert_store again"]
        assert store.prove(NS)["writes_refused"]
    assert findings(site) == []


def test_a_broken_page_is_a_finding_and_stops_nothing_else(site):
    site.app.fill([OTHER], {f"many {n:05}": {"text": "x" * 300} for n in range(2000)})
    site.app.close()
    with open(site.path, "r+b") as stream:
        stream.seek(40 * 4096)
        stream.write(b"\xa5" * 2048)
    assert findings(site)


# --- names ----------------------------------------------------------------------------------------------------------
def test_records_come_in_order_and_are_found_by_their_key(site):
    rows = site.records()
    root = LANGGRAPH_STORE.roots[0]
    assert list(rows) == sorted(rows, key=str.encode)
    wanted = {
        name_of(root, NS, {"prefix": prefix, "key": key})
        for prefix, key in site.sql("SELECT prefix, key FROM store WHERE prefix = ? OR prefix LIKE ?", NS, NS + ".%")
    }
    assert set(rows) == wanted and {name_of(root, NS, {"prefix": NS, "key": key}) for key in ODD if key} < wanted
    with site.open() as store, store.reader() as reader:
        assert reader.get_many(NS, [*rows, "nobody", "\ud800", "a/b/c"]) == rows
        assert reader.count(NS) == len(rows)
        keys = list(rows)
        for batch in (1, 7, 1000):
            for down in (False, True):
                got = [row[0] for part in reader.scan(NS, batch=batch, descending=down) for row in part]
                assert got == (keys[::-1] if down else keys)
            cut = [row[0] for part in reader.scan(NS, after=keys[3], until=keys[9], batch=batch) for row in part]
            assert cut == keys[4:10]
        with pytest.raises(NamespaceUnknown):
            reader.namespace("nobody")
    assert {key: row[5] for key, row in rows.items() if row[5]}["ends%20too".replace("%20", " ")] == 4070908800000000
    assert all(row[3] and row[4] for row in rows.values())


def test_namespaces_that_share_records_are_not_fenced_twice(site):
    site.step("isolate", attempt(), namespace=f"{NS}.below")
    with pytest.raises(CannotProceed, match="shares records with"):
        site.step("isolate", attempt())
    assert site.app.get([NS], "k00001") and site.app.get([NS, "below"], "one") is None


def test_what_is_no_such_file_is_said(tmp_path, site):
    def opened(**options):
        return open_store({**site.store, **options})

    with pytest.raises(StoreMissing):
        opened(path=str(tmp_path / "nobody.db"))
    with sqlite3.connect(tmp_path / "other.db") as con:
        con.execute("CREATE TABLE other (x)")
    with pytest.raises(InvalidInput, match="no table store"):
        opened(path=str(tmp_path / "other.db"))
    with sqlite3.connect(tmp_path / "old.db") as con:
        con.execute("CREATE TABLE store (prefix TEXT, key TEXT)")
    assert opened(path=str(tmp_path / "old.db")).close() is None
    with sqlite3.connect(tmp_path / "older.db") as con:
        con.execute("CREATE TABLE store (namespace TEXT, key TEXT)")
    with pytest.raises(InvalidInput, match="no column prefix"):
        opened(path=str(tmp_path / "older.db"))
    with pytest.raises(InvalidInput, match="not a memory store"):
        opened(layout="native")
    site.step("isolate", attempt())
    with pytest.raises(InvalidInput, match="has the layout langgraph_store"):
        opened(layout="native")


def test_many_records_are_checked_by_two_processes_of_one_point(site):
    site.app.fill([NS], {f"many {number:06}": {"n": number} for number in range(11_000)}, False)
    ((count,),) = site.sql("SELECT count(*) FROM store WHERE prefix = ? OR prefix LIKE ?", NS, NS + ".%")
    for mode in ("delete", "wal"):
        site.sql(f"PRAGMA journal_mode = {mode}")
        found = integrity.scan(store_params=site.store, keyring=site.ring(), namespace=NS)
        assert (found["verdict"], found["workers"], found["rows"]) == ("pass", 2, count)


def test_columns_that_came_or_went_meanwhile(site):
    run = attempt()
    site.step("isolate", run)
    site.sql("ALTER TABLE store ADD COLUMN extra TEXT DEFAULT 'new'")
    with site.open() as store, store.reader() as reader:
        assert reader.count(NS)
    with pytest.raises(CannotProceed, match="changed while records of it lay aside"):
        site.records()
    site.step("release", run)
    assert {row[0] for row in site.sql("SELECT extra FROM store WHERE prefix = ?", NS)} == {"new"}
    site.step("isolate", attempt())
    site.sql("ALTER TABLE store DROP COLUMN extra")
    with pytest.raises(CannotProceed, match="has lost the column extra"):
        site.step("release", attempt(takeover=site.last_attempt()))
    site.sql("ALTER TABLE store ADD COLUMN extra TEXT")
    site.step("release", attempt(takeover=site.last_attempt()))
    assert {row[0] for row in site.sql("SELECT extra FROM store WHERE prefix = ?", NS)} == {"new"}


def test_an_application_that_gets_a_vector_index_while_its_namespace_is_quarantined(tmp_path, app):
    site = LanggraphSite(tmp_path, app)
    site.fill(count=5)
    for table in ("store_vectors", "vector_migrations"):  # as without an index
        site.sql(f"DROP TABLE {table}")
    before = site.records()
    site.backup()
    run = attempt()
    site.step("isolate", run)
    site.app.open(site.path)  # with one
    missing = [
        f"the trigger memops_fence_{verb}_store_vectors of the fence is missing or changed"
        for verb in ("insert", "update", "delete")
    ]
    with site.open() as store:
        proof = store.prove(NS)
    assert findings(site) == missing and not proof["writes_refused"] and proof["detail"][-4:-1] == missing
    assert site.records() == before
    for name in ("forensic", "diagnose", "plan", "apply", "validate"):
        site.step(name, run, **({"strategy": "hard"} if name == "plan" else {}))
    assert findings(site) == []  # the rebuild raised them
    site.step("release", run)
    assert site.records() == before and not site.sql("SELECT 1 FROM sqlite_master WHERE type = 'trigger'")
    site.app.put([NS], "new", {"text": "new"})
    assert site.app.ranked([NS], "new")[0][0][1] == "new"


def test_a_table_that_is_gone_when_its_rows_are_to_come_back(site):
    before, run = site.dump(("store", "store_vectors")), attempt()
    site.step("isolate", run)
    (made,) = site.sql("SELECT sql FROM sqlite_master WHERE name = 'store_vectors'")[0]
    site.sql("DROP TABLE store_vectors")
    with pytest.raises(CannotProceed, match=r"table store_vectors .* is gone"):
        site.step("release", run)
    site.sql(made)
    site.step("release", run)
    assert site.dump(("store", "store_vectors")) == before
