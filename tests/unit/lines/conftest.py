# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""MCP memory servers that run while the tests work on their file."""
from __future__ import annotations

import os
import shutil

import pytest

from tests.support.mcp_server import IN_PLACE, NEWEST, McpServer
from tests.unit.lines.lines_help import LinesSite


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that the servers of this file have their memory in."""
    return tmp_path_factory.mktemp("mcp") / "memory"


@pytest.fixture(scope="module")
def servers(place):
    os.makedirs(place)
    with McpServer(str(place / "memory.jsonl")) as newest, McpServer(str(place / "memory.jsonl"), IN_PLACE) as older:
        yield {NEWEST: newest, IN_PLACE: older}


@pytest.fixture
def server(servers):
    return servers[NEWEST]


@pytest.fixture
def site(tmp_path, place, servers):
    for one in place.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    return LinesSite(tmp_path, place / "memory.jsonl")
