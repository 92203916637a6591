# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that never answers. test_lab.py has those that are cut off in a step."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Site


def test_a_host_that_never_answers(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False, ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    outcome = site.play("rebuild", memory_namespace="agent-7")
    assert outcome.status != 0
    assert "cannot be reached" in outcome.text
    assert site.report()["state"] == "untouched"
