# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records that come back otherwise than they were saved: later, into wider tables, or under another name. The framework
itself wrote them and reads them afterwards."""

from __future__ import annotations

import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import drill, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._table_records import header, pack, silent
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt
from tests.unit.tables.sqlite_help import LanggraphSite
from tests.unit.tables.tables_help import LangGraph

STEPS = ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release")


class OnSqlite(LanggraphSite):
    def put(self, namespace, items, ttl=None):
        for key, value in items.items():
            self.app.put(namespace.split("."), key, value, ttl)

    def get(self, namespace, key):
        return self.app.get(namespace.split("."), key)

    def drop(self, namespace, keys):
        for key in keys:
            self.app.delete(namespace.split("."), key)


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request, tmp_path):
    if request.param == "sqlite":
        one = OnSqlite(tmp_path, request.getfixturevalue("app"))
    else:
        one = request.getfixturevalue("langgraph")
        one.clear(tmp_path)
    one.put(NS, {f"fact {n:02}": {"text": f"fact {n}"} for n in range(12)})
    one.put(NS, {"hour": {"text": "an hour"}}, 60)
    one.put(NS, {"moment": {"text": "two seconds"}}, 2 / 60)
    one.put(f"{NS}.notes", {"a/b": {"text": "below"}}, 90)
    return one


def bring(site, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS,
        **{"attempt": attempt().attempt, "owner": "the test", **options},
    )  # fmt: skip


def whole(site, **options):
    """A restore of all, as a step of an incident."""
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        found = bring(site, claim=claim(store, NS, run), attempt=run.attempt, **options)
    site.step("release", run)
    return found


def expiries(site, namespace=NS):
    return {key: row[5] for key, row in site.rows(namespace).items() if row[5] is not None}


def late_backup(site):
    """A snapshot, and then time: the shortest expiry is over."""
    site.backup()
    before = site.rows()
    end = before["moment"][5]
    while now_us() < end + 1_000_000:
        time.sleep(0.1)
    return before


def _json(site, text):
    return f"CAST('{text}' AS BLOB)" if isinstance(site, OnSqlite) else f"'{text}'"


def others(row):
    return row[:5] + row[6:8]


def test_expiry_moves_by_the_time_that_passed_only_when_that_is_asked_for(site):
    before = late_backup(site)
    rehearsed = drill.drill(
        repository=Repository.open(site.repository), keyring_params=site.keyring, name=NAME, expiry="rebase",
        namespaces=[NS],
    )  # fmt: skip
    assert (rehearsed["verdict"], rehearsed["records"]) == ("pass", len(before)), rehearsed["reasons"]
    assert whole(site)["changed"] is False  # kept, to the bit
    site.drop(NS, ["hour", "moment"])
    assert bring(site, pattern="[hm]o*")["restored"] == 1 and site.rows()["hour"] == before["hour"]
    done = whole(site, expiry="rebase")
    after = site.rows()
    assert done["changed"] and set(after) == set(before)
    moved = {key: after[key][5] - before[key][5] for key in expiries(site)}
    assert set(moved) == {"hour", "moment", "notes/a%2Fb"} and len(set(moved.values())) == 1
    assert 2_000_000 <= moved["hour"] < 600_000_000 and moved["hour"] % 1_000_000 == 0
    assert all(others(after[key]) == others(row) for key, row in before.items())
    assert site.get(NS, "moment") or now_us() > after["moment"][5]  # it was over, and lives again
    again = bring(site, keys=["hour"], expiry="rebase", overwrite=True)
    assert again["restored"] + again["unchanged"] == 1


def test_a_repair_moves_the_expiry_of_what_it_brings_back_and_of_nothing_else(site):
    before = late_backup(site)
    strategy = "soft" if isinstance(site, OnSqlite) else "hard"
    started = now_us()
    site.put(NS, {"fact 01": {"text": "garbage"}})
    site.drop(NS, ["hour", "moment"])
    run, window = attempt(), Window(onset=started, rebase=True)
    for name in STEPS:
        options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "window": window}}
        done = site.step(name, run, **options.get(name, {}))
        if name == "apply":  # a second one moves nothing again
            assert site.step(name, run)["changed"] is False
        if name == "validate":
            assert done["verdict"] == "pass" and done["probes"]["passed"] == done["probes"]["checked"] > 5
    after = site.rows()
    assert set(after) == set(before) and after["fact 01"] == before["fact 01"]
    assert after["notes/a%2Fb"] == before["notes/a%2Fb"]
    shift = after["hour"][5] - before["hour"][5]
    assert shift >= 2_000_000 and after["moment"][5] - before["moment"][5] == shift
    assert others(after["hour"]) == others(before["hour"])


def test_what_cannot_be_moved_is_refused_before_anything_is_done(tmp_path):
    native = Site(tmp_path)
    with native.memory() as memory:
        memory.write(NS, "one", {"n": 1}, "test")
    native.backup()
    with pytest.raises(CapabilityMissing, match="sealed with it"):
        bring(native, expiry="rebase")
    with pytest.raises(InvalidInput, match=r"'later'.*one of: keep, rebase"):
        bring(native, expiry="later")


def test_columns_that_came_since_take_their_default(site):
    site.backup()
    before = site.rows()
    site.sql("ALTER TABLE store ADD COLUMN extra TEXT DEFAULT 'new'")
    site.sql("ALTER TABLE store ADD COLUMN number INTEGER NOT NULL DEFAULT 5")
    site.sql("ALTER TABLE store ADD COLUMN spare TEXT")
    try:
        site.drop(NS, ["hour", "fact 03"])
        assert bring(site, keys=["hour"])["restored"] == 1
        assert whole(site)["changed"]
        assert set(site.sql("SELECT extra, number, spare FROM store")) == {("new", 5, None)}
        assert site.get(NS, "fact 03")["text"] == "fact 3"
        assert {key: row[:8] for key, row in site.rows().items()} == {key: row[:8] for key, row in before.items()}
        assert whole(site)["changed"] is False  # it is all there
        started = now_us()
        site.drop(NS, ["fact 04"])
        window, run = Window(onset=started, keys=frozenset(["fact 04"])), attempt()
        for name in STEPS:
            site.step(name, run, **({"window": window} if name == "diagnose" else {}))
        assert site.get(NS, "fact 04")["text"] == "fact 4"
    finally:
        for column in ("extra", "number", "spare"):
            site.sql(f"ALTER TABLE store DROP COLUMN {column}")


def test_a_namespace_comes_back_under_another_name(site):
    site.put(OTHER, {"fact 01": {"text": "of the other"}, "own": {"text": "own"}})
    site.backup()
    before, other = site.rows(), site.rows(OTHER)
    rehearsed = bring(site, to_namespace="copy of.agent", check=True)
    assert "would" in rehearsed and rehearsed["restored"] == len(before)
    done = bring(site, to_namespace="copy of.agent", create=True)
    assert (done["restored"], done["changed"]) == (len(before), True)
    assert {key: others(row) for key, row in site.rows("copy of.agent").items()} == {
        key: others(row) for key, row in before.items()
    }
    assert site.get("copy of.agent.notes", "a/b") == site.get(f"{NS}.notes", "a/b")
    assert site.rows() == before and site.state("copy of.agent") == "serving"
    again = bring(site, to_namespace="copy of.agent")
    assert (again["changed"], again["unchanged"]) == (False, len(before))
    onto = bring(site, to_namespace=OTHER)  # what is there stays
    assert onto["newer_keys"] == ["fact 01"] and onto["restored"] == len(before) - 1
    assert {key: site.rows(OTHER)[key] for key in other} == other
    with pytest.raises(CannotProceed, match="1 of the 2 keys that are named are not in"):
        bring(site, to_namespace="only.one", keys=["hour", "none"], create=True)
    one = bring(site, to_namespace="only.one", keys=["hour"], create=True)
    assert one["restored"] == 1 and set(site.rows("only.one")) == {"hour"}
    with pytest.raises(InvalidInput, match="would lie inside"):
        bring(site, to_namespace=f"{NS}.inside")


def test_a_silent_change_is_a_finding_without_a_window_and_what_an_application_did_is_none(site):
    if isinstance(site, OnSqlite):  # whose times are whole seconds: in the snapshot's own nobody could tell
        site.sql("UPDATE store SET created_at = '2026-01-01 00:00:00', updated_at = '2026-01-01 00:00:00'")
    site.backup()
    before = site.rows()
    value = _json(site, '{"text": "slipped in"}')
    site.sql(f"UPDATE store SET value = {value} WHERE key = 'fact 03'")
    site.put(NS, {"fact 04": {"text": "written by the application"}})
    site.sql("UPDATE store SET expires_at = NULL, ttl_minutes = NULL WHERE key = 'fact 05'")  # as it was
    if isinstance(site, LangGraph):  # embeddings that were made anew are the owner's business
        site.sql("UPDATE store_vectors SET embedding = (SELECT embedding FROM store_vectors WHERE key = 'fact 07') "
                 "WHERE key = 'fact 06'")  # fmt: skip
    run, window = attempt(), Window()
    done = {name: site.step(name, run, **({"window": window} if name == "diagnose" else {})) for name in STEPS}
    assert done["diagnose"]["findings"] == {"silent-change": 1}
    assert "silent-change" in [cause["cause"] for cause in done["diagnose"]["causes"]]
    assert done["plan"]["records"]["repair"] == 1 and done["validate"]["verdict"] == "pass"
    assert done["plan"]["newest_recovered_at"]  # when the snapshot was taken that the repair comes from
    after = site.rows()
    assert after["fact 03"] == before["fact 03"]
    assert site.get(NS, "fact 04")["text"] == "written by the application"
    if isinstance(site, LangGraph):
        assert after["fact 06"] != before["fact 06"]


def test_a_change_in_the_second_in_which_the_snapshot_was_taken_is_not_called_silent(site):
    copy = site.rows()["fact 03"]
    whole = copy[4] // 1_000_000 * 1_000_000
    columns, cells = [("key", "text"), ("value", "text")], [b"fact 03", b"one"]
    one, other = (
        (*copy[:3], whole, whole, *copy[5:8], pack(header("sqlite", [("store", columns)]), [[[cells[0], value]]]), b"x")
        for value in (b"one", b"two")
    )
    assert not silent(one, other, whole + 999_999) and silent(one, other, whole + 1_000_001)
    assert not silent(one, one, whole + 1_000_001)


def test_namespaces_that_lie_in_each_other_are_counted_once(site):
    site.put(OTHER, {"one": {"n": 1}})
    done = site.backup()
    assert {NS, f"{NS}.notes", OTHER} == set(done["namespaces"])
    assert done["records"] == len(site.rows()) + 1


def test_rows_that_only_their_number_tells_apart_are_not_copied_over_each_other(tmp_path, app):
    site = OnSqlite(tmp_path, app)
    site.sql("CREATE TABLE memories (id INTEGER PRIMARY KEY, owner TEXT, said TEXT)")
    site.sql("INSERT INTO memories VALUES (1, 'agent-7', 'a'), (2, 'agent-7', 'b')")
    site.store = {
        **site.store, "layout": "custom",
        "tables": [{"name": "memories", "namespace": {"columns": ["owner"]}, "key": ["id"], "numbers": ["id"]}],
    }  # fmt: skip
    site.backup()
    before = site.sql("SELECT * FROM memories")
    with pytest.raises(CannotProceed, match="belong to another namespace"):
        bring(site, to_namespace="agent-8", create=True)
    assert site.sql("SELECT * FROM memories") == before
