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
    assert (made.before, made.after, made.changed, made.elsewhere) == (None, {**AWAY, "own": True}, True, False)
    assert not move(file_route(path, AWAY, default=HOME)).changed
    before = path.read_bytes()
    home = move(file_route(path, default=HOME), check=True)
    assert (home.before, home.after, home.changed, home.elsewhere) == ({**AWAY, "own": True}, HOME, True, True)
    assert path.read_bytes() == before
    assert move(file_route(path, default=HOME)).after == HOME
    assert json.loads(path.read_text())["namespaces"] == {}


def test_on_two_hosts_a_file_may_lie_at_the_same_path(tmp_path):
    path = tmp_path / "route.json"
    for _turn in range(2):
        assert move(file_route(path, HOME, default=HOME)).changed and not move(file_route(path, HOME)).changed
        looked = move(file_route(path, default=HOME), check=True)
        assert looked.elsewhere and looked.changed
        home = move(file_route(path, default=HOME))
        assert (home.elsewhere, home.changed, home.after) == (True, True, HOME)
        assert not move(file_route(path, default=HOME), check=True).elsewhere


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


def test_all_that_the_file_led_to_one_store_goes_to_the_other_in_one_write(tmp_path):
    path, third = tmp_path / "route.json", {"engine": "sqlite", "path": "/third.db"}
    own = {"agent-1": HOME, "agent-2": third, "agent-3": AWAY}
    path.write_text(json.dumps({"format": 1, "generation": 4, "default": HOME, "namespaces": own}))

    def lead(target, former, **more):
        return move(open_route({"kind": "file", "path": str(path)}, "", target=target, former=former), **more)

    before = path.read_bytes()
    assert lead(AWAY, HOME, check=True).changed and path.read_bytes() == before
    assert lead(AWAY, HOME).after == {"default": AWAY, "namespaces": {"agent-2": third}}
    assert json.loads(path.read_text())["generation"] == 5
    assert not lead(AWAY, HOME).changed
    assert lead(HOME, AWAY).after == {"default": HOME, "namespaces": {"agent-2": third}}
    elsewhere = json.dumps({"format": 1, "generation": 1, "default": third, "namespaces": {"agent-1": HOME}})
    path.write_text(elsewhere)
    assert lead(AWAY, HOME).after == {"default": third, "namespaces": {}}
