# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The route file: read, resolve, switch."""
from __future__ import annotations

import json
import os
import pathlib
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._route import read_route, resolve, switch_route
from ansible_collections.memops.agent_memory.plugins.module_utils._store_address import location

ONE, TWO = {"engine": "sqlite", "path": "/a.db"}, {"engine": "sqlite", "path": "/b.db"}


@pytest.fixture
def route(tmp_path):
    path = str(tmp_path / "route.json")
    assert switch_route(path, None, ONE)
    return path


def test_switch_and_back(route):
    assert read_route(route) == {"format": 1, "generation": 1, "default": ONE, "namespaces": {}}
    assert (switch_route(route, "a", TWO), switch_route(route, "a", TWO)) == (True, False)
    now = read_route(route)
    assert now["generation"] == 2
    assert (resolve(now, "a"), resolve(now, "b")) == (TWO, ONE)
    assert (switch_route(route, "a", None), switch_route(route, "a", None)) == (True, False)
    assert resolve(read_route(route), "a") == ONE
    assert switch_route(route, None, TWO)
    assert resolve(read_route(route), "a") == TWO


def test_mode_and_links_stay(route, tmp_path):
    os.chmod(route, 0o664)
    link = str(tmp_path / "link.json")
    os.symlink(route, link)
    switch_route(link, "a", TWO)
    assert os.stat(route).st_mode & 0o777 == 0o664
    assert os.path.islink(link)
    assert resolve(read_route(route), "a") == TWO


def test_threads_lose_no_switch_and_readers_see_whole_files(route):
    errors = []

    def switch(number):
        try:
            for name in range(20):
                switch_route(route, f"{number}-{name}", TWO)
                read_route(route)
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=switch, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(read_route(route)["namespaces"]) == 80
    assert read_route(route)["generation"] == 81


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1, "generation": 0, "default": {"path": "/x"}}',
        b'{"format": 1, "generation": 1}',
        b'{"format": 1, "generation": 1, "default": {}}',
        b'{"format": 1, "generation": 1, "default": {"path": "/x"}, "namespaces": []}',
        b'{"format": 1, "generation": 1, "default": {"path": "/x"}, "namespaces": {"a": null}}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_damaged_file_is_said_and_left_alone(route, text):
    with open(route, "wb") as file:
        file.write(text)
    for act in (lambda: read_route(route), lambda: switch_route(route, "a", TWO)):
        with pytest.raises(InvalidInput, match="is damaged"):
            act()
    assert pathlib.Path(route).read_bytes() == text


def test_bad_arguments(route, tmp_path):
    for act in (
        lambda: read_route("route.json"),
        lambda: switch_route("route.json", "a", TWO),
        lambda: switch_route(route, "a", {"path": "b.db"}),
    ):
        with pytest.raises(InvalidInput, match="must be absolute"):
            act()
    with pytest.raises(InvalidInput, match="has a password"):
        switch_route(route, "a", {"engine": "valkey", "url": "valkey://db/0", "password": "secret"})
    with pytest.raises(InvalidInput):
        switch_route(route, None, None)
    with pytest.raises(InvalidInput):
        switch_route(route, "", TWO)
    with pytest.raises(StoreUnavailable, match="no route file") as caught:
        read_route(str(tmp_path / "none"))
    said = tmp_path / "said"  # what the sentence says can be pasted
    said.write_text(str(caught.value).partition("write one: ")[2])
    assert resolve(read_route(str(said)), "a")["engine"] == "sqlite"
    with pytest.raises(StoreUnavailable, match="no route file"):
        switch_route(str(tmp_path / "none"), "a", TWO)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        switch_route(str(tmp_path / "no" / "none"), None, TWO)
    assert json.loads(pathlib.Path(route).read_text())["generation"] == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"path": "/a/../m.db"}, {"engine": "sqlite", "path": "/m.db", "busy_timeout": 1}, True),
        ({"path": "/m.db"}, {"path": "/n.db"}, False),
        (
            {"engine": "postgresql", "url": "postgresql://memops@DB:5432/m?sslmode=require", "schema": "memops"},
            {"engine": "postgresql", "url": "postgresql://db:5432/m", "user": "agent", "password_file": "/p"},
            True,
        ),
        (
            {"engine": "postgresql", "url": "postgresql://db/m", "schema": "one"},
            {"engine": "postgresql", "url": "postgresql://db/m", "schema": "two"},
            False,
        ),
        (
            {"engine": "valkey", "url": "valkey://db:1/0", "prefix": "one"},
            {"engine": "valkey", "url": "valkey://db:1/1", "prefix": "one"},
            False,
        ),
    ],
)
def test_a_store_is_known_by_its_place_not_by_who_asks(one, other, same):
    assert (location(one) == location(other)) is same
