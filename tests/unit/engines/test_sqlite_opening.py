# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a SQLite store says when it is opened: where it lies, what the file is, what opening leaves alone."""
from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    StoreDamaged,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.engines.sqlite_help import keys_of, new, row, structure, write


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    yield opened
    opened.close()


def digest_of_directory(directory):
    return {name: (directory / name).read_bytes() for name in sorted(os.listdir(directory))}


@pytest.mark.parametrize("path", [None, "", 7, "a\0b", ["x"]])
def test_a_path_that_cannot_be_meant(path):
    with pytest.raises(InvalidInput, match=r"memory_store\.path"):
        open_store({"path": path})


@pytest.mark.parametrize("busy_timeout", ["soon", -1, float("nan"), 10**9, []])
def test_a_busy_timeout_that_cannot_be_meant(tmp_path, busy_timeout):
    with pytest.raises(InvalidInput, match="busy_timeout"):
        open_store({"path": str(tmp_path / "m.db"), "busy_timeout": busy_timeout}, create=True)


def test_unknown_engine_and_layouts(tmp_path):
    with pytest.raises(InvalidInput, match="no engine 'oracle'"):
        open_store({"engine": "oracle", "path": "x"})
    with pytest.raises(InvalidInput, match="no layout 'x'"):
        open_store({"layout": "x", "path": str(tmp_path / "m.db")}, create=True)
    with pytest.raises(InvalidInput, match="engine sqlite cannot run the layout keyspace"):
        open_store({"layout": "keyspace", "path": str(tmp_path / "m.db")}, create=True)


def test_a_file_of_sqlite_that_its_owner_gets_only_a_moment_later(store, tmp_path):
    """Root makes -shm, preempted before it gives it to the owner of the store: a link is what no user opens."""
    write(store, "a", {"k": b"sealed"})
    store.close()
    hindrance = tmp_path / "m.db-shm"
    hindrance.symlink_to("nowhere")
    waiting = threading.Timer(0.3, hindrance.unlink)
    waiting.start()
    with contextlib.closing(open_store({"path": str(tmp_path / "m.db")})) as opened:
        assert list(keys_of(opened, "a")) == ["k"]
    waiting.join()
    hindrance.symlink_to("nowhere")
    with pytest.raises(StoreUnavailable, match="cannot be opened: unable to open database file"):
        open_store({"path": str(tmp_path / "m.db")})


def test_nobody_is_waited_for_where_no_file_is_somebody_elses(store, tmp_path, monkeypatch):
    """As on media that became read-only."""
    store.close()
    (tmp_path / "m.db-wal").mkdir()
    monkeypatch.setattr(sqlite_connect, "OWNER_SECONDS", 3600.0)
    waits, sleep = [], time.sleep

    def counted(seconds):
        waits.append(seconds)
        assert len(waits) < 200
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", counted)
    with pytest.raises(StoreUnavailable, match="cannot be opened: unable to open database file"):
        open_store({"path": str(tmp_path / "m.db")})


def test_a_missing_file_is_not_made_by_a_mistyped_path(tmp_path):
    with pytest.raises(StoreUnavailable, match="There is no memory store at"):
        open_store({"path": str(tmp_path / "typo.db")})
    assert os.listdir(tmp_path) == []
    with pytest.raises(InvalidInput, match="is a directory"):
        open_store({"path": str(tmp_path)}, create=True)


def test_making_a_store_leaves_one_file(store, tmp_path):
    store.close()
    assert os.listdir(tmp_path) == ["m.db"]


def test_applications_cannot_write_an_inactive_generation(store):
    store.create_namespace("n")
    generation = store.begin_generation(store.claim("n", "a", "op", new_incident="i"))
    with contextlib.closing(sqlite3.connect(store.path)) as raw:
        with pytest.raises(sqlite3.IntegrityError, match="memops fence"):
            raw.execute(store.sql.insert(generation), row("n", "a", 1, 1, 1))


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"SQLite format 2\0" * 100, bytes(8192)])
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database(tmp_path, content, create):
    (tmp_path / "m.db").write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"is empty|is not a SQLite database") as caught:
        open_store({"path": str(tmp_path / "m.db")}, create=create)
    assert "memory_store.path" in caught.value.next_step
    assert digest_of_directory(tmp_path) == {"m.db": content}


def test_somebody_elses_database(tmp_path):
    con = sqlite3.connect(tmp_path / "m.db")
    con.execute("CREATE TABLE t (x)")
    con.close()
    before = digest_of_directory(tmp_path)
    with pytest.raises(InvalidInput, match="is a SQLite database, but not a memory store"):
        open_store({"path": str(tmp_path / "m.db")}, create=True)
    assert digest_of_directory(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ("UPDATE memops_store SET format = 99", InvalidInput, "has format 99"),
        ("UPDATE memops_store SET layout = 'other'", InvalidInput, "has the layout other"),
        ("DELETE FROM memops_store", StoreDamaged, "lost its identity"),
        ("DROP TABLE memops_store", StoreDamaged, "lost its control tables"),
    ],
)
def test_a_store_that_this_version_cannot_use(tmp_path, change, error, text):
    new(tmp_path).close()
    con = sqlite3.connect(tmp_path / "m.db")
    con.execute(change)
    con.commit()
    con.close()
    with pytest.raises(error, match=text):
        open_store({"path": str(tmp_path / "m.db")})


def test_opening_and_reading_modify_nothing(tmp_path):
    store = new(tmp_path)
    write(store, "n", {"a": b"1"})
    store.close()
    before = digest_of_directory(tmp_path)
    assert list(before) == ["m.db"]
    assert os.stat(tmp_path / "m.db").st_mode & 0o777 == 0o600
    store = new(tmp_path)
    keys_of(store, "n")
    structure(store)
    store.close()
    assert digest_of_directory(tmp_path) == before
