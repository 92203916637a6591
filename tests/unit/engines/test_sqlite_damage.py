# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a SQLite store says when it is damaged, full, read-only, busy or replaced."""
from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    StoreDamaged,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, new, structure, write


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    yield opened
    opened.close()


# --- damage ---------------------------------------------------------------------------------------------------------
PAGE = 8192


def damaged_page(path, page, junk=b"\xa5" * PAGE):
    with open(path, "r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(junk)


def leaf_in_the_middle(path):
    """The number of a leaf page of the records table, by its content."""
    with open(path, "rb") as file:
        data = file.read()
    return data.index(b"key-1000") // PAGE + 1


def test_rows_on_both_sides_of_a_broken_page_can_be_read(tmp_path):
    store = new(tmp_path)
    claim = store.create_namespace("n") and store.claim("n", "a", "op", new_incident="i")
    rows = write(store, "n", {f"key-{n:04}": b"x" * 100 for n in range(2000)})
    store.close()
    damaged_page(store.path, leaf_in_the_middle(store.path))
    store = open_store({"path": store.path})
    seen = []
    with store.reader() as reader:
        for way in (False, True):
            with pytest.raises(StoreDamaged, match="malformed"):
                for batch in reader.scan("n", descending=way, batch=50):
                    seen += batch
    assert 1900 < len(seen) < 2000
    assert set(seen) <= set(rows)
    assert structure(store)
    store.fence(claim)  # isolation is never prevented
    assert store.prove("n")["writes_refused"]
    found = structure(store)
    assert store.repair_structure() == []  # no engine can make these rows again
    assert structure(store) == found
    store.close()


def test_the_fence_is_proven_although_no_row_can_be_reached(tmp_path):
    store = new(tmp_path)
    write(store, "n", {"key-1000": b"x"})
    claim = store.claim("n", "a", "op", new_incident="i")
    store.fence(claim)
    store.close()
    damaged_page(store.path, leaf_in_the_middle(store.path))
    store = open_store({"path": store.path})
    proof = store.prove("n")
    assert proof["writes_refused"]
    assert sum("not tried" in line and "in place" in line for line in proof["detail"]) == 2, proof
    store._con.execute("DROP TRIGGER memops_fence_delete")
    assert not store.prove("n")["writes_refused"]
    store.close()


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.9])
def test_a_truncated_store(tmp_path, keep):
    store = new(tmp_path)
    write(store, "n", {f"key-{n:04}": b"x" * 100 for n in range(500)})
    store.close()
    size = os.path.getsize(store.path)
    os.truncate(store.path, int(size * keep))
    with pytest.raises(StoreDamaged) as caught:
        open_store({"path": store.path}, create=True)
    assert "restore" in caught.value.next_step


def test_a_key_of_broken_text_costs_one_record(store):
    rows = write(store, "n", {f"key-{n}": b"x" for n in range(6)})
    store._con.execute("UPDATE memory_records SET key = CAST(x'6b80ff' AS TEXT) WHERE key = 'key-2'")
    store._con.execute("UPDATE memory_records SET key = CAST('key-4' AS BLOB) WHERE key = 'key-4'")
    store._con.execute("UPDATE memory_access_log SET key = CAST(x'6b80ff' AS TEXT) WHERE key = 'key-1'")
    good = [r for r in rows if r[0] not in ("key-2", "key-4")]
    for batch in (1, 2, 2000):
        assert all_rows(store, "n", batch=batch) == good
        assert all_rows(store, "n", batch=batch, descending=True) == good[::-1]
        with store.reader() as reader:
            assert all(reader.scan("n", batch=batch))
            found = [w.key for part in reader.last_writes("n", batch=batch) for w in part]
            assert found == ["key-0", "key-2", "key-3", "key-4", "key-5"]
            assert sum(len(part) for part in reader.log("n", batch=batch)) == 6
    assert (health(store)["corrupt"], health(store)["missing"]) == (1, 0)
    assert structure(store) == ["generation 1 holds 2 rows whose keys are no text"]
    assert store.repair_structure() == ["set 2 rows of generation 1 aside whose keys were no text"]
    assert (structure(store), store.repair_structure()) == ([], [])
    with store.reader() as reader:
        assert reader.count("n") == 4
        assert [r[2][8] for part in reader.aside("n", "structure") for r in part] == [b"x", b"x"]


def test_values_of_a_wrong_type_are_delivered_as_they_are(store):
    write(store, "n", {"a": b"1", "b": b"2"})
    store._con.execute("UPDATE memory_records SET payload = 'text', sequence = 'x', checksum = 5 WHERE key = 'a'")
    assert [(r[0], r[2], r[8], r[9].__class__) for r in all_rows(store, "n")][0] == ("a", "x", "text", int)


def test_a_broken_index_is_noticed_and_rebuilt(store):
    write(store, "n", {f"{n}": b"x" for n in range(50)}, expires=77)
    schema = "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') WHERE name = 'memory_records_expires'"
    con = sqlite3.connect(store.path)  # rows that the index misses: it did not exist as such while they were written
    con.execute("PRAGMA writable_schema = ON")
    con.execute(schema.format("IS NOT NULL", "= 0"))
    con.commit()
    con.close()
    con = sqlite3.connect(store.path)
    con.execute("UPDATE memory_records SET expires = 78 WHERE key < '3'")
    con.execute("PRAGMA writable_schema = ON")
    con.execute(schema.format("= 0", "IS NOT NULL"))
    con.commit()
    con.close()
    reopened = open_store({"path": store.path})
    assert any("memory_records_expires" in line for line in structure(reopened))
    assert reopened.repair_structure() == ["rebuilt the index memory_records_expires"]
    assert (structure(reopened), reopened.repair_structure()) == ([], [])
    indexed = "memory_records INDEXED BY memory_records_expires WHERE generation = 1 AND expires IS NOT NULL"
    assert reopened._con.execute(f"SELECT count(*) FROM {indexed}").fetchone() == (50,)
    reopened.close()


@pytest.mark.parametrize("junk", [b"\xa5" * PAGE, bytes(PAGE), os.urandom(PAGE)])
@pytest.mark.parametrize("name", ["memory_records_expires", "memory_access_log_writes", "memops_aside_incident"])
def test_an_index_whose_pages_are_junk_is_rebuilt(store, junk, name):
    rows = write(store, "n", {f"key-{n:04}": b"x" * 100 for n in range(1000)}, expires=5)
    page = store._con.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    store.close()
    damaged_page(store.path, page, junk)
    reopened = open_store({"path": store.path})
    assert structure(reopened)
    assert f"rebuilt the index {name}" in reopened.repair_structure()
    assert (structure(reopened), reopened.repair_structure()) == ([], [])
    assert all_rows(reopened, "n") == rows
    assert health(reopened)["intact"]
    with reopened.reader() as reader:
        assert [w.digest for batch in reader.last_writes("n") for w in batch] == [r[9] for r in rows]
    assert reopened.sweep("n", 5, limit=5000) == 1000
    reopened.close()


def test_lost_parts_of_the_schema_are_noticed_and_made_again(store):
    rows = write(store, "n", {"a": b"1"})
    store._con.execute("DROP INDEX memory_access_log_writes")
    store._con.execute("DROP TRIGGER memops_fence_insert")
    store._con.execute("CREATE TRIGGER memops_fence_insert BEFORE INSERT ON memory_records BEGIN SELECT 1; END")
    store._con.execute("PRAGMA journal_mode = delete")
    assert structure(store) == [
        "index memory_access_log_writes is missing or changed",
        "trigger memops_fence_insert is missing or changed",
        "the journal mode is delete, not wal: readers and writers block each other",
    ]
    with store.reader() as reader:
        assert [w.digest for batch in reader.last_writes("n") for w in batch] == [rows[0][9]]
    store.close()
    reopened = open_store({"path": store.path})
    assert len(reopened.repair_structure()) == 3
    assert structure(reopened) == []
    reopened.close()


def test_a_lost_table_is_said(store):
    store._con.execute("DROP TABLE memory_records")
    store.create_namespace("n")
    with store.reader() as reader, pytest.raises(StoreDamaged, match="lost a part of its structure"):
        reader.count("n")
    assert "table memory_records is missing or changed" in structure(store)


# --- full, read-only, busy, replaced --------------------------------------------------------------------------------
def test_a_full_disk_says_so_and_leaves_nothing_half_done(store):
    rows = write(store, "n", {"a": b"1"})
    pages = store._con.execute("PRAGMA page_count").fetchone()[0]
    store._con.execute(f"PRAGMA max_page_count = {pages}")
    for _turn in range(2):
        with pytest.raises(StoreUnavailable, match="cannot grow") as caught:
            write(store, "n", {f"k{n}": bytes(10_000) for n in range(50)})
        assert "free space" in caught.value.next_step
        assert not store._con.in_transaction
    assert all_rows(store, "n") == rows
    store._con.execute("PRAGMA max_page_count = 1000000")
    assert write(store, "n", {"b": b"2"})[0][2] == 2
    assert health(store)["intact"]
    assert structure(store) == []


def test_a_value_beyond_what_sqlite_takes(store):
    if not hasattr(store._con, "setlimit"):  # Python < 3.11: the error's translation is what is tested here
        with pytest.raises(InvalidInput), store._transaction():
            raise sqlite3.DataError("string or blob too big")
        return
    store._con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    with pytest.raises(InvalidInput, match="too big"):
        write(store, "n", {"a": bytes(20_000)})
    assert not store._con.in_transaction


def test_a_store_that_this_user_may_not_write():
    directory = tempfile.mkdtemp()  # tmp_path lies under a directory that other users may not enter
    try:
        store = new(directory)
        write(store, "n", {"a": b"1"})
        store.close()
        os.chmod(directory, 0o755)
        os.chmod(store.path, 0o644)
        script = (
            "import os, sys\n"
            "from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite\n"
            "from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreUnavailable\n"
            "from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import native\n"
            "from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            "else: os.chmod(sys.argv[1], 0o444); os.chmod(os.path.dirname(sys.argv[1]), 0o555)\n"
            "try:\n"
            "    store = open_store({'path': sys.argv[1]})\n"
            "    with store.writing('n', 1) as w: w.put([], [])\n"
            "except StoreUnavailable as error: print(error)\n"
        )
        done = run(script, store.path)
        assert ("cannot be written" in done.stdout) or ("cannot be opened" in done.stdout), done.stdout + done.stderr
        assert "Next: " in done.stdout
    finally:
        os.chmod(directory, 0o755)
        shutil.rmtree(directory)


def run(script, *args):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *args], env=env, capture_output=True, text=True, timeout=900, check=False
    )


def test_a_store_cannot_be_made_where_there_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable, match="No memory store can be made"):
        open_store({"path": str(tmp_path / "file" / "m.db")}, create=True)


def test_a_busy_store_says_so(tmp_path):
    store = new(tmp_path, busy_timeout=0.05)
    write(store, "n", {"a": b"1"})
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="is busy"):
        write(store, "n", {"a": b"2"})
    assert keys_of(store, "n") == ["a"]
    other.execute("ROLLBACK")
    write(store, "n", {"a": b"2"})
    other.close()
    store.close()


def test_a_store_that_was_replaced_or_removed_under_an_open_one(tmp_path):
    store, second = new(tmp_path), new(tmp_path, "second.db")
    write(store, "n", {"a": b"1"})
    second.close()
    os.replace(second.path, store.path)
    for call in (lambda: write(store, "n", {"a": b"2"}), store.reader):
        with pytest.raises(StoreUnavailable, match="was replaced"):
            call()
    os.unlink(store.path)
    with pytest.raises(StoreUnavailable, match="is gone"):
        write(store, "n", {"a": b"2"})
    store.close()


# --- points in time -------------------------------------------------------------------------------------------------
def test_a_reader_stays_at_its_point(tmp_path):
    store, other = new(tmp_path), new(tmp_path)
    rows = write(store, "n", {"a": b"1"})
    with store.point() as point:
        readers = [store.reader(point), other.reader(point)]
        assert readers[0].identity == readers[1].identity
    write(other, "n", {"b": b"1"})
    for reader in readers:
        assert [r for batch in reader.scan("n") for r in batch] == rows
        assert reader.identity.sequence == 1
        reader.close()
        reader.close()
    with pytest.raises(CannotProceed, match="has passed"):
        other.reader(point)
    assert keys_of(store, "n") == ["a", "b"]
    store.close()
    other.close()


def test_a_reader_that_is_closed_in_the_middle_of_a_scan_frees_its_connection(store):
    write(store, "n", {f"{n:03}": b"x" for n in range(300)})
    reader = store.reader()
    batches = reader.scan("n", batch=10)
    next(batches)
    reader.close()
    write(store, "n", {"000": b"newer"})
    assert all_rows(store, "n")[0][8] == b"newer"
    store._con.execute("PRAGMA busy_timeout = 50")
    assert store._con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
