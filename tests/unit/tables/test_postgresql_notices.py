# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is told of the tables of frameworks in PostgreSQL that is no damage to a record: each with the framework's own
rows, once as they should be and once as they should not. Plain text beside encrypted: test_application_keys.py."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import tables_postgresql_transcripts
from tests.support.postgresql_server import PostgresqlServer
from tests.unit.tables.keys_help import keyed
from tests.unit.tables.tables_help import Framework


def call(name):
    return {"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"}


def result(name):
    return {"type": "function_call_output", "call_id": name, "output": "seen"}


def told(site, word):
    with site.open() as store:
        return [line for line in store.warnings() if word in line]


@pytest.fixture(scope="module")
def server_of_15():
    """It cannot tell whether a text is JSON."""
    with PostgresqlServer(version="15") as server:
        yield server


@pytest.fixture(params=["postgresql_server", "server_of_15"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def sessions(tmp_path, processes, server):
    one = keyed(tmp_path, processes["openai_agents"], "openai_agents", "postgresql", server)
    yield one
    one.end()


def test_a_result_of_a_tool_without_its_call(sessions):
    say = sessions.app.add
    say("whole", [call("c1"), result("c1"), call('odd "%_\\ ключ'), result('odd "%_\\ ключ')])
    assert told(sessions, "of tools without") == []
    spoken = {"role": "user", "content": "nul \0 \\u0000"}
    said = {**call("c2"), "arguments": '{"a": "\\u0000"}'}
    say("nul", [spoken, said, {**result("c2"), "output": "\0"}])
    assert told(sessions, "of tools without") == []
    say("lost", [call("c1"), result("c1"), result("c2")])
    say("late", [result("c3"), call("c3")])
    lines = told(sessions, "of tools without")
    assert len(lines) == 2 and all("has 1 result of tools without a call" in line for line in lines)
    assert ["lost" in lines[1], "late" in lines[0]] == [True, True]
    sessions.sql("DELETE FROM agent_messages WHERE session_id = 'whole' AND message_data LIKE '%%function_call\"%%'")
    assert any("'whole' has 2 results" in line for line in told(sessions, "of tools without"))
    sessions.sql("UPDATE agent_messages SET message_data = 'cut o' WHERE id = "
                 "(SELECT min(id) FROM agent_messages WHERE session_id = 'lost')")  # fmt: skip
    rows = sessions.rows("lost").values()
    assert sorted(not row[9] for row in rows) == [False] * 3 + [True]  # the session and two messages are sound
    assert len(told(sessions, "of tools without")) == 3


def test_a_page_of_messages_ends_anywhere(sessions, monkeypatch):
    """As it is read from a server that cannot look into a text."""
    for name in ("a", "b", "c"):
        sessions.app.add(name, [call("c1"), result("c1"), result("c2"), call("c2"), result("c2")])
    wanted = [(name, 1) for name in ("a", "b", "c")]
    for page in (1, 2, 5, 1000):
        monkeypatch.setattr(tables_postgresql_transcripts, "PAGE", page)
        with sessions.open() as store, store._asking() as session:
            assert tables_postgresql_transcripts._messages_here(session, store.live) == wanted
            if store.live.sql[0].version >= 160_000:
                assert tables_postgresql_transcripts._messages(session, store.live) == wanted


def part(kind, name):
    return {kind: {"id": name, "name": "look"}}


def test_a_result_of_a_tool_without_its_call_in_an_event_of_google_adk(tmp_path, server_of_15):
    site = Framework(tmp_path, server_of_15, "google_adk", ("sessions", "events", "user_states"))
    try:
        site.app.ask("fill", namespace="helper/ann")
        site.app.ask("fill", namespace="helper/bob")
        times = "SELECT id FROM events WHERE user_id = %s AND session_id = 's0' ORDER BY timestamp"
        first, second, third = (event for (event,) in site.sql(times, "ann")[:3])

        def put(event, *parts):
            said = json.dumps(parts)
            site.sql("UPDATE events SET event_data = jsonb_set(event_data, '{content,parts}', %s) WHERE id = %s",
                     said, event)  # fmt: skip

        put(first, part("function_call", "c1"), part("function_call", "c2"))
        put(second, part("function_response", "c1"), {"text": "function_response"})
        put(third, part("function_response", "c2"))
        assert told(site, "of tools without") == []
        put(first, part("function_call", "c2"))
        site.sql("UPDATE events SET event_data = '{\"content\": {\"parts\": null}}' WHERE user_id = 'bob'")
        assert told(site, "of tools without") == ["session 'helper/ann/s0' has 1 result of tools without a call"]
    finally:
        site.wipe()


def test_a_checkpoint_whose_parent_is_not_there(tmp_path, processes, postgresql_server):
    """As LangGraph itself prunes a thread it leaves no link to what is gone."""
    site = keyed(tmp_path, processes["langgraph_checkpoint"], "langgraph_checkpoint", "postgresql", postgresql_server)
    try:
        for thread in ("whole", "gap"):
            site.app.say(thread, ["one", "two"], None)
        assert told(site, "parent") == []
        site.sql(
            "DELETE FROM checkpoints WHERE (thread_id, checkpoint_id) = (SELECT thread_id, parent_checkpoint_id FROM "
            "checkpoints WHERE thread_id = 'gap' ORDER BY checkpoint_id DESC LIMIT 1)"
        )
        (line,) = told(site, "parent")
        assert line.startswith("thread 'gap' has 1 checkpoint whose parent is not there") and "a rebuild" in line
    finally:
        site.end()
