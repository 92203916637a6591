# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident
from tests.unit.operations.operations_help import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    """What a store on a server keeps beside it on the memory host goes nowhere else."""
    monkeypatch.setattr(incident, "state_home", lambda: str(tmp_path / "state"))
