# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the SQLite files of the OpenAI Agents SDK, of Google's ADK, of agno, of mem0's history and of
LangGraph's checkpoints, each with the framework itself having the file open."""
from __future__ import annotations

import contextlib
import json
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.support.framework_process import FrameworkProcess
from tests.support.frameworks import former_mem0
from tests.support.sessions_application import KEY
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.sqlite_help import TablesSite

AES = "an AES key of 32 characters ....."[:32]
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "42"}


class OpenAISite(TablesSite):
    layout, namespace, tables = "openai_agents", "user/1", ("agent_sessions", "agent_messages")

    def fill(self):
        for session in (self.namespace, "user-2"):
            self.app.add(session, [{"role": "user", "content": f"{n} of {session}"} for n in range(30)])
            self.app.add(session, [CALL, RESULT])

    def told(self, namespace=None):
        return self.app.items(namespace or self.namespace)

    def write(self):
        self.app.add(self.namespace, [{"role": "user", "content": "more"}])

    def damage(self):
        self.sql("UPDATE agent_messages SET message_data = '{cut' WHERE session_id = ? AND id = 3", self.namespace)
        self.app.pop(self.namespace)


class AdkSite(TablesSite):
    layout, namespace, tables = "google_adk", "app/ann%2Fx", ("sessions", "events", "user_states", "app_states")

    def fill(self):
        for user in ("ann/x", "bob"):
            self.app.begin("app", user, "s1", {"here": 1, "user:all": 2, "app:every": 3})
            self.app.say("app", user, "s1", [f"{n} of {user}" for n in range(5)])

    def told(self, namespace=None):
        return self.app.session("app", "bob" if namespace else "ann/x", "s1")

    def write(self):
        if self.app.session("app", "ann/x", "s1") is None:
            self.app.begin("app", "ann/x", "s2", {})  # sessions are made, where there is none
        else:
            self.app.say("app", "ann/x", "s1", ["more"])

    def damage(self):
        self.sql("UPDATE events SET event_data = '{cut' WHERE user_id = 'ann/x' AND invocation_id = 'call 3'")
        self.sql("DELETE FROM events WHERE user_id = 'ann/x' AND invocation_id = 'call 2'")


class AgnoSite(TablesSite):
    layout, namespace, tables = "agno", "ann", ("agno_memories",)

    def fill(self):
        for user in ("ann", "bob"):
            self.app.remember(user, {f"{user} {n}/%": f"likes {n}" for n in range(8)})

    def told(self, namespace=None):
        return self.app.memories("bob" if namespace else "ann")

    def write(self):
        self.app.remember("ann", {"ann more": "more"})

    def damage(self):
        self.sql("UPDATE agno_memories SET memory = '{cut' WHERE memory_id = 'ann 3/%'")
        self.app.forget("ann", "ann 4/%")


class CheckpointSite(TablesSite):
    layout, namespace, tables = "langgraph_checkpoint", "user/1", ("checkpoints", "writes")

    def fill(self):
        for thread, key in ((self.namespace, AES), ("user-2", None)):
            self.app.say(thread, ["one", "two", "three"], key)

    def told(self, namespace=None):
        return self.app.history("user-2") if namespace else self.app.history(self.namespace, AES)

    def write(self):
        self.app.say(self.namespace, ["more"], AES)

    def damage(self):
        threads = (self.namespace, self.namespace)
        oldest = "thread_id = ? AND checkpoint_id = (SELECT min(checkpoint_id) FROM checkpoints WHERE thread_id = ?)"
        newest = oldest.replace("min", "max")
        self.sql(f"UPDATE checkpoints SET checkpoint = x'00' WHERE {oldest}", *threads)
        self.sql(f"UPDATE checkpoints SET metadata = '{{cut' WHERE {newest}", *threads)
        self.sql(f"DELETE FROM writes WHERE {oldest}", *threads)


class Mem0Site(TablesSite):
    layout, namespace, tables = "mem0_history", "all", ("history", "messages")
    memories, scopes = [f"memory {n}" for n in range(8)], ["user_id=ann", "agent_id=7&user_id=bob/%"]

    def fill(self):
        for number, memory in enumerate(self.memories):
            self.app.write(memory, self.scopes[number % 2], number)

    def told(self, namespace=None):
        found = [] if namespace else self.app.everything(self.memories, self.scopes)
        return found if any(one for some in found for one in some) else []

    def write(self):
        self.app.write("memory more", self.scopes[0], 9)

    def damage_of_history(self):
        self.sql("UPDATE history SET created_at = 'garbage' WHERE memory_id = 'memory 3' AND event = 'ADD'")
        self.sql("UPDATE history SET new_memory = 'poisoned' WHERE memory_id = 'memory 4'")

    def damage(self):
        self.damage_of_history()
        self.sql("DELETE FROM messages WHERE content = 'message 5'")


PROGRAMS = {"checkpoints": ("checkpoint_application.py",)}
SITES = {"openai": OpenAISite, "adk": AdkSite, "agno": AgnoSite, "checkpoints": CheckpointSite, "mem0": Mem0Site}


@pytest.fixture(scope="module")
def processes():
    with contextlib.ExitStack() as stack:
        started = {}

        def process(name):
            if name not in started:
                program = PROGRAMS.get(name, ("sessions_application.py", name))
                started[name] = stack.enter_context(FrameworkProcess(*program))
            return started[name]

        yield process


@pytest.fixture(params=sorted(SITES))
def framework(request, processes):
    return processes(request.param), SITES[request.param]


@pytest.fixture
def site(tmp_path, framework):
    app, kind = framework
    one = kind(tmp_path, app)
    one.fill()
    yield one
    app.close()


def rebuild(site, window=None, strategy="auto", absent="auto"):
    run, done = attempt(takeover=site.last_attempt()), {}
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[name] = site.step(name, run, namespace=site.namespace, **options.get(name, {}))
    return done


def test_the_fence_and_its_release(site):
    before, told, other = site.dump(site.tables), site.told(), site.told("other")
    mode = site.sql("PRAGMA journal_mode")
    run = attempt()
    told_before = site.step("isolate", run, namespace=site.namespace, check=True)
    assert (told_before["before"], told_before["after"]) == ({"state": "serving"}, {"state": "quarantined"})  # no TTL
    proof = site.step("isolate", run, namespace=site.namespace)["proof"]
    assert proof["writes_refused"] and proof["reads_refused"], proof
    assert not site.told() and site.told("other") == other
    with pytest.raises(RuntimeError, match="memops fence"):
        site.write()
    site.step("release", run, namespace=site.namespace)
    assert site.dump(site.tables) == before and site.told() == told
    assert site.sql("PRAGMA journal_mode") == mode
    site.write()
    assert site.told() != told


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_damage_is_repaired_and_siblings_never_notice(site, strategy):
    before, told, other = site.rows(site.namespace), site.told(), site.told("other")
    site.backup()
    started = now_us()
    site.damage()
    done = rebuild(site, Window(onset=started), strategy)
    assert done["plan"]["records"]["repair"] >= 2 and done["validate"]["verdict"] == "pass"
    assert site.rows(site.namespace) == before
    assert site.told() == told and site.told("other") == other


def test_an_undamaged_namespace_is_the_same_to_the_byte_after_a_hard_rebuild(site):
    before, told = site.dump(site.tables), site.told()
    site.backup()
    rebuild(site, strategy="hard")
    assert site.dump(site.tables) == before and site.told() == told


# --- the OpenAI Agents SDK alone ------------------------------------------------------------------------------------
@pytest.fixture
def openai(tmp_path, processes):
    one = OpenAISite(tmp_path, processes("openai"))
    one.fill()
    yield one
    one.app.close()


def test_an_encrypted_session_is_no_empty_memory_whatever_its_key(openai, tmp_path):
    secret = [{"role": "user", "content": f"secret {n}"} for n in range(20)]
    openai.app.add("sealed", secret, True)
    assert openai.app.items("sealed", True, "another key, which opens nothing of it..") == []  # the trap
    file = tmp_path / "application.key"
    said = []
    for text in (KEY, "another key", None):
        file.write_text(f"{text}\n", encoding="ascii")
        openai.store["application_key_file"] = text and str(file)
        with openai.open() as store:
            said.append(store.warnings())
    del openai.store["application_key_file"]
    assert said[0] == [] and "none of 20 that were tried opens" in said[1][0] and "could not be verified" in said[2][0]
    assert all("20 values of agent_messages in 1 namespace are encrypted" in lines[0] for lines in said[1:])
    openai.backup()
    last = openai.sql("SELECT max(id) FROM agent_messages")[0][0]
    cut = openai.sql("SELECT message_data FROM agent_messages WHERE id = ?", last - 1)[0][0]
    cut = json.dumps({**json.loads(cut), "payload": json.loads(cut)["payload"][:-4]})
    openai.sql("UPDATE agent_messages SET message_data = ? WHERE id = ?", cut, last - 1)
    openai.sql("DELETE FROM agent_messages WHERE id = ?", last)
    assert len(openai.app.items("sealed", True)) == 18
    openai.namespace = "sealed"
    done = rebuild(openai, absent="restore")
    assert done["plan"]["records"]["repair"] == 2
    assert openai.app.items("sealed", True) == secret
    openai.app.add("sealed", secret[:1], True)
    assert openai.sql("SELECT max(id) FROM agent_messages")[0][0] > last  # the numbers go on


def test_a_transcript_that_no_model_takes_is_told(openai):
    openai.sql("DELETE FROM agent_messages WHERE session_id = 'user-2' AND message_data LIKE '%function_call\"%'")
    with openai.open() as store:
        assert store.warnings() == [
            "1 session has a tool's result without its call, which no model takes: 'user-2'"
        ]


def test_a_transcript_of_google_adk_that_no_model_takes_is_told(tmp_path, processes):
    site = AdkSite(tmp_path, processes("adk"))
    site.fill()

    def put(number, *parts):
        site.sql("UPDATE events SET event_data = json_set(event_data, '$.content.parts', json(?)) "
                 "WHERE user_id = 'bob' AND invocation_id = ?", json.dumps(parts), f"call {number}")  # fmt: skip

    call, result = ({kind: {"id": "c1"}} for kind in ("function_call", "function_response"))
    put(1, call)
    put(2, {"text": "function_response"}, result)
    with site.open() as store:
        assert store.warnings() == []
    put(1)
    with site.open() as store:
        assert store.warnings() == [
            "1 session has a tool's result without its call, which no model takes: 'app/bob/s1'"
        ]
    site.app.close()


# --- mem0's history alone ------------------------------------------------------------------------------------------
def test_records_of_one_memory_and_of_one_session_begin_alike(tmp_path, processes):
    site = Mem0Site(tmp_path, processes("mem0"))
    site.fill()
    rows = site.rows("all")
    assert len([key for key in rows if key.startswith("history/memory 3/")]) == 2
    assert len([key for key in rows if key.startswith("message/agent_id=7&user_id=bob%2F%25/")]) == 4
    changed = {row[4] for key, row in rows.items() if key.startswith("history/memory 3/")}
    assert changed == {1_767_520_800_000_000, 1_769_940_000_500_000}  # the first, and the update
    with site.open() as store:
        assert store.warnings() == []
        with pytest.raises(InvalidInput, match="there is one"):
            store.reader().namespace("ann")
    site.app.close()


def test_a_history_that_lost_rows_and_one_that_is_lost(tmp_path, processes):
    site = Mem0Site(tmp_path, processes("mem0"))
    site.fill()
    before = site.rows("all")
    site.backup()
    site.sql("DELETE FROM history WHERE memory_id IN ('memory 1', 'memory 2')")
    site.sql("UPDATE history SET new_memory = 'poisoned' WHERE memory_id = 'memory 4'")
    site.write()
    made = {key: row for key, row in site.rows("all").items() if key not in before}
    planned = rebuild(site, absent="restore")["plan"]  # whoever's the memories are
    assert planned["records"]["repair"] == 6 and not planned["absent_keys"]
    assert site.rows("all") == {**before, **made} and len(made) == 3
    site.app.close()
    os.unlink(site.path)
    site = Mem0Site(tmp_path, site.app)  # it makes another one when it starts
    restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace="all",
        create=True,
    )  # fmt: skip
    assert site.rows("all") == before and all(site.told()[0])
    site.app.close()


def test_a_history_of_a_release_before_2_that_is_upgraded_while_quarantined(tmp_path, processes):
    with FrameworkProcess("sessions_application.py", "mem0", PYTHONPATH=former_mem0()) as former:
        site = Mem0Site(tmp_path, former)
        site.fill()
        before, told = site.rows("all"), [former.history(memory) for memory in site.memories]
        assert site.sql("SELECT name FROM sqlite_master WHERE type = 'table'") == [("history",)]
        site.backup()
        site.damage_of_history()
        site.step("isolate", attempt(), namespace="all")
        former.close()
    site.app = processes("mem0")
    site.app.open(site.path)  # it makes a table for messages
    rebuild(site, Window(keys=frozenset(key for key in before if key.startswith("history/memory 4/"))), "hard")
    assert site.rows("all") == before and [site.app.history(memory) for memory in site.memories] == told
    site.app.write("memory 9", "user_id=ann", 9)
    assert len(site.rows("all")) == len(before) + 3  # two changes and a message
    site.app.close()


# --- tables that nobody has seen, and other names -------------------------------------------------------------------
class CustomSite(TablesSite):
    """An application with two tables of its own; it is this test."""

    layout, namespace = "custom", "7"
    tables = ("memories", "notes")

    def __init__(self, folder):
        super().__init__(folder, FrameworkNone())
        self.store["tables"] = [
            {
                "name": "memories", "namespace": {"columns": ["owner"]}, "key": ["number"], "numbers": ["number"],
                "expires": {"column": "over", "form": "seconds"}, "payload": ["said"],
                "beside": [{"name": "notes", "parent": {"owner": "owner", "number": "number"}, "key": ["place"]}],
            }
        ]  # fmt: skip
        self.sql("CREATE TABLE memories (owner INTEGER, number INTEGER, said TEXT, over REAL, UNIQUE (owner, number))")
        self.sql(
            "CREATE TABLE notes (owner INTEGER, number INTEGER, place INTEGER, note, "
            "PRIMARY KEY (owner, number, place)) WITHOUT ROWID"
        )
        for owner in (7, 8):
            for number in range(-3, 20):
                over = 4e9 if number > 5 else None
                self.sql("INSERT INTO memories VALUES (?, ?, ?, ?)", owner, number, f"{number}", over)
                self.sql("INSERT INTO notes VALUES (?, ?, ?, ?)", owner, number, 1, b"\0\xff" if number % 2 else 1.5)


class FrameworkNone:
    def open(self, _path):
        """There is no framework."""


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_tables_that_the_inventory_describes(tmp_path, strategy):
    site = CustomSite(tmp_path)
    before = site.rows("7")
    held = {table: site.sql(f"SELECT * FROM {table} ORDER BY owner, number") for table in site.tables}
    site.backup()
    started = now_us()
    site.sql("UPDATE memories SET said = 'garbage' WHERE owner = 7 AND number = -2")
    site.sql("DELETE FROM notes WHERE owner = 7 AND number = 3")
    site.sql("DELETE FROM memories WHERE owner = 7 AND number = 4")
    done = rebuild(site, Window(onset=started), strategy)
    assert done["plan"]["records"]["repair"] == 3
    assert site.rows("7") == before
    assert {table: site.sql(f"SELECT * FROM {table} ORDER BY owner, number") for table in site.tables} == held


def test_sessions_in_tables_of_other_names(openai):
    openai.app.close()
    openai.sql("ALTER TABLE agent_sessions RENAME TO my_sessions")
    openai.sql("ALTER TABLE agent_messages RENAME TO my_messages")
    openai.store["tables"] = {"agent_sessions": "my_sessions", "agent_messages": "my_messages"}
    assert len(openai.rows(openai.namespace)) == 33
    with openai.open() as store:
        assert store.warnings() == []
