# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is cut off in a step: one sentence, a report, the quarantine stands, the same command ends it.

MEMOPS_LOST_STEPS="snapshot diagnose …" chooses other steps than those of continuous integration.
"""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Site

STEPS = os.environ.get("MEMOPS_LOST_STEPS", "isolate apply release").split()


@pytest.mark.parametrize("step", STEPS)
def test_a_host_that_is_lost_in_a_step(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    plugins = pathlib.Path(__file__).resolve().parents[1] / "support" / "connection_plugins"
    gone = tmp_path / "lost.gone"
    monkeypatch.setenv("ANSIBLE_CONNECTION_PLUGINS", str(plugins))
    monkeypatch.setenv("MEMOPS_LOSE", step)
    monkeypatch.setenv("MEMOPS_LOST", str(tmp_path / "lost"))
    home = tmp_path / "site"
    home.mkdir()
    site = Site(home, secondary=False, ansible_connection="losing")
    site.fill("agent-7", 200)
    site.read("agent-7", 150)
    backup = site.play("backup")
    assert backup.status == 0, backup.text
    site.flip("agent-7", ["key-00003", "key-00077"])
    with site.working("agent-7"):
        lost = site.play("rebuild", memory_namespace="agent-7")
        assert lost.status != 0
        assert "cannot be reached" in lost.text
        assert "Next: " in lost.text
        assert "Traceback" not in lost.text
        report = site.report()
        assert report["verdict"] == "fail"
        assert "memory_namespace=agent-7" in report["next_command"]
        memory = site.memory()
        served = memory.read("agent-7", "key-00005")
        memory.close()
        assert (served is not None) is (step == "release")  # what the step had done stands; nothing else was done
        gone.unlink()
        again = site.play("rebuild", memory_namespace="agent-7")
    assert again.status == 0, again.text[-3000:]
    report = site.report()
    assert (report["verdict"], report["records"]["recovered"], report["records"]["lost"]) == ("pass", 2, 0)
    memory = site.memory()
    assert memory.read("agent-7", "key-00077") == {"fact": "agent-7 fact 77"}
    memory.close()


def test_a_host_that_never_answers(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False, ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    outcome = site.play("rebuild", memory_namespace="agent-7")
    assert outcome.status != 0
    assert "cannot be reached" in outcome.text
    assert site.report()["state"] == "untouched"
