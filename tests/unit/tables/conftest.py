# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of frameworks that several files of tests here use: to start one takes seconds."""
from __future__ import annotations

import contextlib

import pytest

from tests.support.framework_process import FrameworkProcess
from tests.unit.tables.keys_help import PROGRAMS
from tests.unit.tables.tables_help import LangGraph


@pytest.fixture(scope="package")
def processes():
    with contextlib.ExitStack() as stack:
        yield {layout: stack.enter_context(FrameworkProcess(*program)) for layout, program in PROGRAMS.items()}


@pytest.fixture(scope="package")
def app():
    """LangGraph as an application of SQLite files."""
    with FrameworkProcess("langgraph_application.py") as one:
        yield one


@pytest.fixture(scope="package")
def langgraph(tmp_path_factory, postgresql_server):
    """One application for many tests; each begins with empty tables and a repository of its own (``clear``)."""
    one = LangGraph(tmp_path_factory.mktemp("langgraph"), postgresql_server)
    yield one
    one.wipe()


@pytest.fixture
def site(langgraph, tmp_path):
    """LangGraph's store with empty tables; files of other layouts have a ``site`` of their own."""
    langgraph.clear(tmp_path)
    return langgraph
