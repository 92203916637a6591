# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo says at its end, and after a playbook that failed."""
from __future__ import annotations

import io
import json
import typing as t

import pytest

from demo import show

REPORT = {
    "verdict": "fail",
    "state": "quarantined",
    "next_command": "ansible-playbook -i i memops.agent_memory.rebuild -e memory_namespace=agent-7",
    "steps": [{"name": "isolate", "verdict": "pass", "changed": True, "seconds": 1.25}],
    "records": {"expected": 1000, "damaged": 3, "recovered": None, "suspect": 0, "conflicted": 0, "lost": 1},
    "lost_keys": ["note/1"],
    "details": {"reasons": [{"verdict": "fail", "text": "Plan failed: no snapshot."}]},
}


@pytest.fixture
def out(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(show.places, "REPORTS", str(tmp_path))
    folder = tmp_path / "inc-1"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(REPORT))
    return io.StringIO()


def test_the_end(out: io.StringIO) -> None:
    said = show.Show(out)
    with said.step("first"):
        pass
    with pytest.raises(ValueError, match="broken"):
        with said.step("second"):
            raise ValueError("broken")
    show.final_table(said)
    text = out.getvalue()
    for part in ("1. first", "2. second", "✓ first", "✗ second", "isolate", "1,000 expected", "1 lost", "Lost: note/1"):
        assert part in text
    assert "recovered" not in text  # nobody knows
    assert text.rstrip().endswith("inc-1/report.html")
    assert "\033" not in text  # no terminal, no colour


def test_why_a_playbook_failed(out: io.StringIO) -> None:
    show.why_not(show.Show(out))
    text = out.getvalue()
    assert "fail: Plan failed: no snapshot." in text
    assert "The namespace is quarantined." in text
    assert "Next: ansible-playbook -i i memops.agent_memory.rebuild" in text


def test_without_a_report_nothing_is_said(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show.places, "REPORTS", str(tmp_path))
    out = io.StringIO()
    show.why_not(show.Show(out))
    assert out.getvalue() == ""
