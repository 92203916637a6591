# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of an application's own making in SQLite that have triggers: a quarantine is no deletion, and what comes back
is not new."""
from __future__ import annotations

import contextlib
import shlex

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    NamespaceUnknown,
    RepositoryRefused,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import preflight, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, STEPS, attempt
from tests.unit.tables.sqlite_help import TablesSite

MEMORIES = {
    "name": "memories", "namespace": {"columns": ["tenant"]}, "key": ["id"], "numbers": ["id"], "payload": ["text"],
    "updated": "changed",
}  # fmt: skip
MADE = """
CREATE TABLE memories (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT, text TEXT, changed TEXT,
  loud TEXT GENERATED ALWAYS AS (upper(text)) STORED);
CREATE TABLE attachments (memory INTEGER, file TEXT);
CREATE TABLE history (what TEXT);
CREATE VIRTUAL TABLE words USING fts5(text, content=memories, content_rowid=id);
INSERT INTO memories (tenant, text, changed)
  SELECT who, word || ' of ' || who, '2026-01-01 00:00:00' FROM (SELECT 'ann' AS who UNION SELECT 'bob'),
  (SELECT 'apple' AS word UNION SELECT 'pear' UNION SELECT 'plum') ORDER BY who, word;
INSERT INTO attachments SELECT id, 'file of ' || id FROM memories;
INSERT INTO words (words) VALUES ('rebuild');
CREATE TRIGGER cascade AFTER DELETE ON memories BEGIN DELETE FROM attachments WHERE memory = old.id; END;
CREATE TRIGGER "keeps ""its"" history" AFTER DELETE ON memories BEGIN
  INSERT INTO history VALUES ('deleted ' || old.id); END;
CREATE TRIGGER stamp AFTER INSERT ON memories BEGIN
  UPDATE memories SET changed = '2026-02-02 00:00:00' WHERE id = new.id; END;
CREATE TRIGGER words_in AFTER INSERT ON memories BEGIN INSERT INTO words (rowid, text) VALUES (new.id, new.text); END;
CREATE TRIGGER words_out AFTER DELETE ON memories BEGIN
  INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text); END;
CREATE TRIGGER words_other AFTER UPDATE OF text ON memories BEGIN
  INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
  INSERT INTO words (rowid, text) VALUES (new.id, new.text); END;
"""


class _Nothing:
    def open(self, path):
        """No program of the application runs beside these tests."""


class CustomSite(TablesSite):
    layout = "custom"

    def __init__(self, folder, made):
        super().__init__(folder, _Nothing())
        self.store["tables"] = [MEMORIES]
        with contextlib.closing(self.database()) as con:
            con.executescript(made)

    def everything(self):
        tables = ("memories", "attachments", "history")
        return {table: self.sql(f"SELECT rowid, * FROM {table} ORDER BY rowid") for table in tables}

    def found(self, word):
        return [row[0] for row in self.sql("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid", word)]

    def rebuild_of(self, namespace, window=None, **plan):
        run, done = attempt(), {}
        options = {"diagnose": {"window": window}, "plan": plan}
        for name in STEPS:
            done[name] = self.step(name, run, namespace, **options.get(name, {}))
        return done


@pytest.fixture
def site(tmp_path):
    return CustomSite(tmp_path, MADE)


def test_a_false_alarm_changes_nothing_anywhere(site):
    before, schema, run = site.everything(), site.schema(), attempt()
    site.step("isolate", run, "ann")
    during = site.everything()
    assert [row[2] for row in during["memories"]] == ["bob"] * 3
    assert (during["attachments"], during["history"]) == (before["attachments"], before["history"])
    assert (site.found("apple"), site.found("ann")) == ([4], [])  # its index follows
    site.step("release", run, "ann")
    assert (site.everything(), site.schema()) == (before, schema)
    assert (site.found("apple"), site.found("ann")) == ([1, 4], [1, 2, 3])


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_comes_back_is_as_it_was_and_is_found(site, strategy):
    before = site.everything()
    site.backup()
    site.sql("DELETE FROM memories WHERE id = 2")
    site.sql("UPDATE memories SET text = 'rotten' WHERE id = 3")
    site.sql("INSERT INTO memories (tenant, text) VALUES ('ann', 'made up')")
    site.sql("INSERT INTO attachments VALUES (7, 'of the one that was made up')")
    damaged = site.everything()
    window = Window(keys=frozenset(f"{n:019}" for n in (2, 3, 7)))
    done = site.rebuild_of("ann", window, strategy=strategy, absent="restore")
    assert done["validate"]["verdict"] == "pass"
    assert site.everything() == {**damaged, "memories": before["memories"]}  # of other tables nothing goes
    assert (site.found("pear"), site.found("rotten"), site.found("ann")) == ([2, 5], [], [1, 2, 3])
    site.sql("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")


def test_a_trigger_that_refuses_deletions_does_not_keep_a_namespace_from_its_quarantine(tmp_path):
    site = CustomSite(
        tmp_path, MADE + "CREATE TRIGGER only_add BEFORE DELETE ON memories BEGIN SELECT RAISE(ABORT, 'only add'); END;"
        "CREATE TRIGGER only_add_too BEFORE UPDATE ON memories BEGIN SELECT RAISE(IGNORE); END;",
    )  # fmt: skip
    before, schema, run = site.everything(), site.schema(), attempt()
    assert site.step("isolate", run, "ann")["changed"]
    with site.open() as store:
        assert store.prove("ann")["writes_refused"]
    site.step("release", run, "ann")
    assert (site.everything(), site.schema()) == (before, schema)


def test_a_full_text_index_whose_module_is_not_here_keeps_nobody_from_isolating(site):
    con = site.database()
    con.execute("PRAGMA writable_schema = ON")
    con.execute("UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'not_here') WHERE name = 'words'")
    con.close()
    before, run = site.everything(), attempt()
    site.step("isolate", run, "ann")
    site.step("release", run, "ann")
    assert site.everything() == before


def test_a_number_that_was_given_again_while_its_row_was_away(tmp_path):
    """Without AUTOINCREMENT SQLite numbers a new row after the greatest that is there."""
    site = CustomSite(
        tmp_path, "CREATE TABLE memories (id INTEGER PRIMARY KEY, tenant TEXT, text TEXT, changed TEXT);"
        "INSERT INTO memories (tenant, text) VALUES ('bob', 'one'), ('ann', 'two'), ('ann', 'three')",
    )  # fmt: skip
    with site.open() as store:
        assert any("memories.id has no AUTOINCREMENT" in line for line in store.warnings())
    run = attempt()
    site.step("isolate", run, "ann")
    site.sql("INSERT INTO memories (tenant, text) VALUES ('bob', 'new'), ('bob', 'newer')")
    with pytest.raises(CannotProceed, match=r"UNIQUE constraint failed: memories\.id") as caught:
        site.step("release", run, "ann")
    command = shlex.split(str(caught.value).partition("tables: ")[2].partition("; then")[0])
    assert command[:2] == ["sqlite3", site.path]
    site.sql(command[2])
    assert site.step("release", run, "ann")["changed"]
    assert site.sql("SELECT id, text FROM memories WHERE tenant = 'ann'") == [(2, "two"), (3, "three")]
    assert site.sql("SELECT id, text FROM memories WHERE tenant = 'bob'") == [(1, "one"), (5, "new"), (6, "newer")]


def test_a_file_that_was_lost_and_made_anew_says_how_it_comes_back(site):
    before = site.everything()
    site.backup()
    with contextlib.closing(site.database()) as con:
        con.executescript("DELETE FROM memories; DELETE FROM history;")
        con.executescript("".join(f"DROP TABLE IF EXISTS {name};" for (name,) in con.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE 'memops_%' AND type = 'table'").fetchall()))  # fmt: skip
    places = {"name": NAME, "open_keyring": site.ring, "open_repository": lambda: Repository.open(site.repository)}
    with site.open() as store, pytest.raises(NamespaceUnknown, match=r"Snapshot \S+ has it") as caught:
        preflight.preflight(store=store, store_params=site.store, namespace="ann", run=attempt(), **places)
    assert "memops.agent_memory.restore -e memory_namespace=ann -e memory_create=true" in str(caught.value)
    with pytest.raises(RepositoryRefused, match=r"bring it back first: .*restore -e memory_create=true"):
        site.backup()
    again = {
        "store_params": site.store, "repository": site.repository, "keyring": site.ring(), "name": NAME,
        "attempt": attempt().attempt, "owner": "the test",
    }  # fmt: skip
    with pytest.raises(NamespaceUnknown, match=r"let the restore make it: .* -e memory_create=true"):
        restore.restore_whole(**again)
    restore.restore_whole(**again, create=True)
    assert site.everything()["memories"] == before["memories"]
    site.backup()
