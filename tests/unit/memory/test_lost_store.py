# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A store whose file is lost: no application begins a new, empty one in its place."""
from __future__ import annotations

import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._route import switch_route
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import StoreUnavailable
from tests.unit.memory.conftest import Place


@pytest.fixture
def route(place):
    path = str(place.folder / "route.json")
    switch_route(path, None, place.store)
    return path


def lose(place):
    for end in ("", "-wal", "-shm"):
        if os.path.exists(place.store["path"] + end):
            os.rename(place.store["path"] + end, f"{place.store['path']}.lost{end}")


def test_a_route_to_a_store_that_is_lost_makes_none(place, route):
    with place.memory(route=route) as memory:  # the first beginning makes both
        memory.write("a", "k", 1)
    lose(place)
    with pytest.raises(StoreUnavailable, match="is lost: it is not there, and its keyring") as caught:
        place.memory(route=route)
    assert "memops.agent_memory.restore -e memory_create=true" in caught.value.next_step
    assert not os.path.exists(place.store["path"])
    os.rename(place.store["path"] + ".lost", place.store["path"])
    with place.memory(route=route) as memory:
        assert memory.read("a", "k") == 1


def test_what_the_route_leads_elsewhere_goes_on_while_the_default_is_lost(place, route):
    other = Place(place.folder, name="other")
    for one in (place, other):
        with one.memory() as memory:
            memory.write("a", "k", one.store["path"])
    switch_route(route, "a", other.store)
    lose(place)
    with place.memory(route=route) as memory:
        assert memory.read("a", "k") == other.store["path"]
        for use in (lambda: memory.write("b", "k", 1), lambda: memory.read("b", "k")):
            with pytest.raises(StoreUnavailable, match="There is no memory store at"):
                use()
    assert not os.path.exists(place.store["path"])


def test_a_store_that_operators_noted_something_about_is_not_begun_anew(place):
    place.memory().close()
    os.makedirs(place.store["path"] + ".memops/backup")
    lose(place)
    with pytest.raises(StoreUnavailable, match="holds what operators noted about it"):
        place.memory()
    open_store(place.home, create=True).close()  # an operator does, to restore into it
    place.memory().close()


def test_no_store_is_made_beside_the_log_of_one_that_is_lost(place):
    """SQLite would play it into the new file."""
    memory = place.memory()
    memory.write("a", "k", 1)
    os.rename(place.store["path"], place.store["path"] + ".lost")
    for make in (place.memory, lambda: open_store(place.home, create=True)):
        with pytest.raises(StoreUnavailable, match="its write-ahead log") as caught:
            make()
        assert f"move {place.store['path']}-wal" in caught.value.next_step
    os.rename(place.store["path"] + ".lost", place.store["path"])
    assert memory.read("a", "k") == 1
    memory.close()
