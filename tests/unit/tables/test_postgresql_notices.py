# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is told of the tables of frameworks in PostgreSQL that is no damage to a record: each with the framework's own
rows, once as they should be and once as they should not. Plain text beside encrypted: test_application_keys.py."""
from __future__ import annotations

import pytest

from tests.unit.tables.keys_help import keyed
from tests.unit.tables.tables_help import Framework


def call(name):
    return {"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"}


def result(name):
    return {"type": "function_call_output", "call_id": name, "output": "seen"}


def told(site, word):
    with site.open() as store:
        return [line for line in store.warnings() if word in line]


@pytest.fixture
def sessions(tmp_path, processes, postgresql_server):
    one = keyed(tmp_path, processes["openai_agents"], "openai_agents", "postgresql", postgresql_server)
    yield one
    one.end()


def test_a_result_of_a_tool_without_its_call(sessions):
    say = sessions.app.add
    say("whole", [call("c1"), result("c1"), call('odd "%_\\ ключ'), result('odd "%_\\ ключ')])
    assert told(sessions, "results of tools") == []
    spoken = {"role": "user", "content": "nul \0 \\u0000"}
    said = {**call("c2"), "arguments": '{"a": "\\u0000"}'}
    say("nul", [spoken, said, {**result("c2"), "output": "\0"}])
    assert told(sessions, "results of tools") == []
    say("lost", [call("c1"), result("c1"), result("c2")])
    say("late", [result("c3"), call("c3")])
    lines = told(sessions, "results of tools")
    assert len(lines) == 2 and all("has 1 results of tools without their calls" in line for line in lines)
    assert ["lost" in lines[1], "late" in lines[0]] == [True, True]
    sessions.sql("DELETE FROM agent_messages WHERE session_id = 'whole' AND message_data LIKE '%%function_call\"%%'")
    assert any("'whole' has 2 results" in line for line in told(sessions, "results of tools"))


def test_a_text_of_mem0_that_is_not_the_one_of_its_hash(tmp_path, postgresql_server):
    site = Framework(tmp_path, postgresql_server, "mem0", ("mem0",))
    try:
        site.app.ask("fill", namespace="user_id=ann")
        site.app.ask("damage", namespace="user_id=ann")  # by the framework's own API: updated, deleted, added
        assert told(site, "hash") == []
        site.sql(
            "UPDATE mem0 SET payload = jsonb_set(payload, '{data}', '\"poisoned\"') WHERE payload ->> 'n' IN ('5', '7')"
        )
        assert told(site, "hash") == ["2 rows of mem0 have a text that is not the one their hash was made of"]
    finally:
        site.wipe()
