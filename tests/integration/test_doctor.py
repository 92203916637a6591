# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook doctor: its table, its exit status, and that it changes nothing."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Site


def test_doctor_tells_and_fails_and_changes_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, memory_notify=[{"kind": "slak", "name": "on-call", "url": "https://example.com/secret"}])
    site.fill("agent-7", 20)
    assert site.play("backup").status == 0
    before = site.fingerprint()
    found = site.play("doctor", "--check")
    assert found.status != 0 and found.changed == 0, found.text
    assert "What is wrong with site:" in found.text and "drill" in found.text, found.text
    assert f"Next: ansible-playbook -i {site.inventory} memops.agent_memory.drill" in found.text
    assert "secondary: The copy is" in found.text
    assert "Nobody would be told by on-call: kind has to be one of webhook, slack" in found.text
    assert "example.com/secret" not in found.text
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "memops.agent_memory.runbook")
    monkeypatch.setenv("COLUMNS", "60")
    told = site.play("doctor", memory_doctor_fail="false")
    assert told.status == 0 and told.text.endswith("nothing changed.\n"), told.text
    # it can be copied
    assert f"    Next: ansible-playbook -i {site.inventory} memops.agent_memory.drill" in told.text.splitlines()
    assert site.fingerprint() == before
