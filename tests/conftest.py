# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings for every test: random examples in continuous integration too, nothing inherited from the caller's shell."""
from __future__ import annotations

import os
import typing as t

import pytest
from hypothesis import HealthCheck, settings

from tests.support.engines import ENGINES, Bench
from tests.support.postgresql_server import PostgresqlServer
from tests.support.valkey_replicas import ReplicaSet
from tests.support.valkey_server import ValkeyServer

# With CI=true hypothesis would take the same examples every time; these tests are meant to look further each run.
# A failure prints the blob that reproduces it. No deadlines, and no judgement of how fast examples come: the machine
# may be busy.
BUSY = [HealthCheck.too_slow]
settings.register_profile("memops", derandomize=False, deadline=None, print_blob=True, suppress_health_check=BUSY)
settings.load_profile("memops")


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> None:
    """Drop what would point a test at somebody's cloud account or at another Ansible configuration."""
    kept = {"ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_HOME"}
    for name in list(os.environ):
        if name.startswith(("AWS_", "ANSIBLE_")) and name not in kept:
            del os.environ[name]


@pytest.fixture(scope="session")
def postgresql_server() -> t.Iterator[PostgresqlServer]:
    with PostgresqlServer(initdb=["--data-checksums"]) as server:  # as version 18 does by itself
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> t.Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_group() -> t.Iterator[ReplicaSet]:
    """Three Valkey servers under three Sentinels. Tests change who is the primary; they leave all of them in step."""
    with ReplicaSet(replicas=2, sentinels=3) as group:
        yield group


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, tmp_path: t.Any) -> t.Iterator[Bench]:
    """Every engine in turn."""
    served = request.param != "sqlite"
    one = Bench(request.param, tmp_path, request.getfixturevalue(f"{request.param}_server") if served else None)
    yield one
    one.close()
