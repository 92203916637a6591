# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""One open store in a real file, and a claim on its namespace "n"."""
from __future__ import annotations

import pytest

from tests.unit.engines.sqlite_help import new


@pytest.fixture
def store(tmp_path):
    opened = new(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    store.create_namespace("n")
    return store.claim("n", "attempt-1", "operator", new_incident="inc-1")
