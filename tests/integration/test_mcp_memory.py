# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on the file of the MCP memory server, which one bad line has stopped; the server runs all the while."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from tests.support.application_plays import ApplicationPlays
from tests.support.mcp_server import McpError, McpServer
from tests.unit.lines.lines_help import MEMORY, LinesSite


@pytest.fixture
def lines(tmp_path: pathlib.Path) -> t.Iterator[t.Any]:
    os.makedirs(tmp_path / "memory")
    with McpServer(str(tmp_path / "memory" / "memory.jsonl")) as server:
        one = LinesSite(tmp_path / "site", tmp_path / "memory" / "memory.jsonl")
        one.server = server
        one.before = one.fill(server, 150)  # one look of the watch asks as many as a hit rate needs
        yield one


def test_a_bad_line_is_found_set_aside_and_brought_back(lines: t.Any, tmp_path: pathlib.Path) -> None:
    plays = ApplicationPlays(tmp_path, lines, memory_cluster=lines.store["name"])
    lines.backup()
    lines.set(lines.content().replace(b'"value 3 value 3 ', b'"value 3 \x00value 3 '))
    with pytest.raises(McpError):
        lines.server.read_graph()
    plays.told("rebuild", changed=True, memory_namespace=MEMORY)
    assert lines.server.read_graph() == lines.before and list(lines.aside()) == ["entity/e003"]
    assert "Nothing to rebuild" in plays.told("rebuild", changed=False, memory_namespace=MEMORY).text
    report = plays.report()
    assert (report["verdict"], report["state"]) == ("pass", "closed"), report
    assert (report["records"]["lost"], report["records"]["recovered"]) == (0, 1)
    assert any(line.startswith("entity/e003: ") for line in report["causes"][0]["evidence"]), report
