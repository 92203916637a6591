# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The route file as a route, and routes that only the incident remembers."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.routing import move_route, noted_away
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import move, open_route
from tests.unit.engines.sqlite_help import new

HOME = {"engine": "sqlite", "path": "/home.db"}
AWAY = {"engine": "sqlite", "path": "/away.db"}


def file_route(path, target=None, **more):
    return open_route({"kind": "file", "path": str(path), **more}, "agent-7", target=target)


def test_the_file_there_and_back(tmp_path):
    path = tmp_path / "route.json"
    made = move(file_route(path, AWAY, default=HOME), along=["agent-8"])
    assert (made.before, made.after, made.changed, made.elsewhere) == (None, AWAY, True, False)
    assert not move(file_route(path, AWAY, default=HOME)).changed
    before = path.read_bytes()
    home = move(file_route(path, default=HOME), check=True)
    assert (home.before, home.after, home.changed, home.elsewhere) == (AWAY, HOME, True, True)
    assert path.read_bytes() == before
    assert move(file_route(path, default=HOME)).after == HOME
    assert json.loads(path.read_text())["namespaces"] == {}


def test_the_same_store_under_another_login_is_not_elsewhere(tmp_path):
    path = tmp_path / "route.json"
    store = {"engine": "valkey", "url": "valkey://db:6379/0", "prefix": "memops"}
    move(file_route(path, {**store, "user": "agent"}, default=HOME))
    moved = move(file_route(path, {**store, "user": "other", "password": "secret"}))
    assert (moved.changed, moved.elsewhere) == (True, False)
    assert "secret" not in path.read_text()


def test_a_file_that_is_not_there_and_has_no_default(tmp_path):
    with pytest.raises(InvalidInput, match="does not exist"):
        move(file_route(tmp_path / "none.json", AWAY))
    with pytest.raises(InvalidInput, match="is not named"):
        open_route({"kind": "file"}, "agent-7")


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    opened.create_namespace("agent-7")
    yield opened
    opened.close()


def noted(store, to, **more):
    arguments = {"home": "memory-1", "target": None, "along": [], "begin": False, **more}
    run = Run("one", "one")
    kind = {"kind": "tasks"}
    return move_route(params=kind, namespace="agent-7", to=to, open_store=lambda: store, run=run, **arguments)


def test_what_the_incident_remembers(store):
    assert not noted(store, "memory-1")["changed"]
    assert not noted_away(store, "agent-7", None)
    assert noted(store, "memory-2", begin=True, check=True)["changed"]
    assert not noted_away(store, "agent-7", None)
    assert noted(store, "memory-2", begin=True)["changed"]
    assert noted_away(store, "agent-7", None)  # it may lead anywhere
    assert noted(store, "memory-2", begin=True)["changed"]
    assert noted(store, "memory-2")["changed"]
    assert not noted(store, "memory-2")["changed"]
    assert not noted(store, "memory-2", begin=True)["changed"]
    assert noted(store, None, check=True)["away"]
    assert noted(store, None, begin=True)["changed"]
    assert noted(store, None, check=True)["away"]
    assert noted_away(store, "agent-7", None)
    assert noted(store, None)["changed"]
    assert not noted(store, None)["away"]
    assert not noted_away(store, "agent-7", None)


def test_what_is_not_said(store):
    with pytest.raises(InvalidInput, match="at home"):
        noted(store, "memory-2", home=None)
    for kind in ("haproxy", "route53"):
        with pytest.raises(InvalidInput, match="where the route is to lead"):
            open_route({"kind": kind}, "agent-7")
    with pytest.raises(InvalidInput, match="is not moved by the collection"):
        open_route({"kind": "carrier-pigeon"}, "agent-7", to="memory-2")
