# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the demo starts, it ends; and nothing of the caller's settings reaches it."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing as t

import pytest

from demo import processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
#: Ignores SIGTERM, and says when it does.
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _notes(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROCESSES", str(tmp_path / "processes.json"))
    monkeypatch.setattr(processes, "_adopt_orphans", lambda: None)  # the test's own process stays as it is
    monkeypatch.setattr(processes, "_end_orphans", lambda: None)


def test_all_children_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.2)
    children = processes.Children()
    one = children.start(SLEEP)
    two = children.start(STUBBORN, stdout=subprocess.PIPE)
    assert two.stdout is not None
    assert two.stdout.readline() == b"on\n"
    children.end()
    assert one.poll() is not None
    assert two.poll() is not None
    assert not os.path.exists(processes.PROCESSES)


def test_what_a_killed_run_left_is_ended_by_the_next() -> None:
    left = subprocess.Popen(SLEEP, start_new_session=True)
    with open(processes.PROCESSES, "w", encoding="utf-8") as file:
        json.dump({"demo": {"pid": left.pid, "started": "before"}, "children": [note(left)]}, file)
    assert processes.end_former_run() == 1
    assert left.wait(300) != 0


def test_a_run_that_goes_on_is_left_alone() -> None:
    other = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        with open(processes.PROCESSES, "w", encoding="utf-8") as file:
            json.dump({"demo": note(other), "children": [note(other)]}, file)
        with pytest.raises(SystemExit, match=f"Another demo runs .* kill {other.pid}"):
            processes.end_former_run()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def note(process: subprocess.Popen[bytes]) -> dict[str, t.Any]:
    return {"pid": process.pid, "started": processes.started(process.pid)}


def test_a_number_that_belongs_to_somebody_else_is_left_alone() -> None:
    other = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        with open(processes.PROCESSES, "w", encoding="utf-8") as file:
            children = [{"pid": other.pid, "started": "long ago"}, {"pid": None}]
            json.dump({"demo": {"pid": None}, "children": children}, file)
        assert processes.end_former_run() == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the demo adopts orphans on Linux alone")
def test_orphans_are_ended_too(tmp_path: t.Any) -> None:
    """In a process of its own, which adopts the grandchild that its child leaves behind."""
    program = f"""
import subprocess, sys
from demo import processes
processes.PROCESSES = {str(tmp_path / "notes.json")!r}
children = processes.Children()
child = children.start([sys.executable, "-c", '''
import os, subprocess, sys
daemon = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(daemon.pid, flush=True)
'''], stdout=subprocess.PIPE)
pid = child.stdout.readline().decode().strip()
child.wait()
assert processes.started(int(pid)), "the daemon should run now"
children.end()
print(pid)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 300
    while processes.started(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.started(int(done.stdout)) is None


def test_the_environment_is_the_demos_own(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {
        "AWS_PROFILE": "prod", "AWS_CA_BUNDLE": "/nowhere", "ANSIBLE_STDOUT_CALLBACK": "none", "HTTP_PROXY": "http://x",
        "PYTHONHOME": "/x", "LC_ALL": "C", "TERM": "", "MEMOPS_MASTER_KEY": "00",
    }  # fmt: skip
    kept = dict(os.environ)
    try:
        os.environ.update(odd)
        processes.clean_environment()
        for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "ANSIBLE_STDOUT_CALLBACK", "PYTHONHOME", "HTTP_PROXY"):
            assert name not in os.environ
        assert "MEMOPS_MASTER_KEY" not in os.environ
        assert os.environ["TERM"] == "dumb"
        assert os.environ["LC_ALL"].endswith("UTF-8")
        assert os.environ["HOME"].startswith(processes.HOME)
    finally:
        os.environ.clear()
        os.environ.update(kept)
