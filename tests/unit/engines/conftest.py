# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""One open store of every engine, and a claim on its namespace "n"."""
from __future__ import annotations

import pytest


@pytest.fixture
def store(bench):
    opened = bench.open()
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    store.create_namespace("n")
    return store.claim("n", "attempt-1", "operator", new_incident="inc-1")


@pytest.fixture
def raw(valkey_server):
    """A client of the Valkey server that all tests share, past the store."""
    with valkey_server.client() as client:
        yield client
