# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.operations.operations_help import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)
