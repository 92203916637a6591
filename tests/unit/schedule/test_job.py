# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What runs a scheduled job: lock, time limit, heartbeat; real processes, the real program."""
from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import typing as t

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "roles" / "schedule" / "files" / "memops_job.py"
LINE = re.compile(r'^(memops_[a-z_]+)(?:\{job="([a-z_]+)"\})? (\d+(?:\.\d+)?)$')
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def command(folder: pathlib.Path, *words: str, job: str = "backup", options: t.Sequence[str] = ()) -> list[str]:
    return [sys.executable, str(PROGRAM), "--job", job, "--state", str(folder), *options, "--", *words]


def run(folder: pathlib.Path, code: str, **more: t.Any) -> subprocess.CompletedProcess[str]:
    words = command(folder, sys.executable, "-c", code, **more)
    return subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)


def heartbeat(folder: pathlib.Path, job: str = "backup") -> dict[str, float]:
    """The metrics, after a look at the format: each with its HELP and TYPE, nothing else, a newline at the end."""
    text = (folder / f"memops_job_{job}.prom").read_text(encoding="utf-8")
    assert text.endswith("\n")
    found = {}
    lines = text.splitlines()
    for help_line, type_line, sample in zip(lines[::3], lines[1::3], lines[2::3]):
        matched = LINE.match(sample)
        assert matched and matched[2] in (job, None), sample
        assert help_line.startswith(f"# HELP {matched[1]} ") and type_line == f"# TYPE {matched[1]} gauge"
        found[matched[1]] = float(matched[3])
    assert len(found) * 3 == len(lines)
    return found


def await_start(folder: pathlib.Path, process: subprocess.Popen[bytes], job: str = "backup") -> None:
    """Until the job says that it started; its command may take a moment longer."""
    while not (folder / f"{job}.json").exists():
        assert process.poll() is None
        time.sleep(0.01)


def test_a_success_and_then_a_failure_keeps_when_it_succeeded(tmp_path: pathlib.Path) -> None:
    before = time.time()
    assert run(tmp_path, "print('said')").returncode == 0
    first = heartbeat(tmp_path)
    assert first["memops_job_last_exit_code"] == 0
    assert before - 1 < first["memops_job_last_success_timestamp_seconds"] <= time.time()
    failed = run(tmp_path, "import sys; print('why'); sys.exit(2)")
    assert failed.returncode == 2 and failed.stdout == "why\n"
    second = heartbeat(tmp_path)
    assert second["memops_job_last_exit_code"] == 2
    assert second["memops_job_last_run_timestamp_seconds"] > first["memops_job_last_run_timestamp_seconds"]
    name = "memops_job_last_success_timestamp_seconds"
    assert second[name] == first[name]


def test_one_that_never_succeeded_and_one_that_cannot_start(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        command(tmp_path, "/nowhere/ansible-playbook", job="drill"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 127 and "Next: " in done.stderr and "Traceback" not in done.stderr
    found = heartbeat(tmp_path, "drill")
    assert found["memops_job_last_exit_code"] == 127 and found["memops_job_last_success_timestamp_seconds"] == 0


def test_no_run_beside_the_former_one_even_when_what_watched_it_was_killed(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(command(tmp_path, *SLEEP), start_new_session=True) as first:
        await_start(tmp_path, first)
        assert run(tmp_path, "").returncode == 75
        assert not (tmp_path / "memops_job_backup.prom").exists()
        child = _child_of(first.pid)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert run(tmp_path, "").returncode == 75  # its command still works on the store
        os.kill(child, signal.SIGKILL)
    while run(tmp_path, "").returncode == 75:
        time.sleep(0.01)
    assert heartbeat(tmp_path)["memops_job_last_exit_code"] == 0


def _child_of(pid: int) -> int:
    while True:
        found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        if found:
            return int(found[0])


def test_one_that_hangs_is_ended_with_all_it_started(tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "grandchild"
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(mark)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    seconds = 1
    while True:
        done = run(tmp_path, code, options=["--timeout", str(seconds)])
        assert done.returncode == 124 and f"longer than {seconds} s" in done.stderr
        if mark.exists() and mark.read_text():  # it came so far
            break
        seconds *= 4
    assert heartbeat(tmp_path)["memops_job_last_exit_code"] == 124
    deadline = time.monotonic() + 300
    while _runs(mark.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_one_that_is_stopped_ends_what_it_started_and_says_so(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(command(tmp_path, *SLEEP)) as process:
        await_start(tmp_path, process)
        process.terminate()
        assert process.wait(300) == 143
    assert heartbeat(tmp_path)["memops_job_last_exit_code"] == 143
    assert run(tmp_path, "").returncode == 0  # nothing holds the lock


def test_a_run_that_was_missed_is_caught_up_and_one_that_was_not_is_not_repeated(tmp_path: pathlib.Path) -> None:
    count = "open({!r}, 'a').write('x')".format(str(tmp_path / "count"))
    for _turn in range(2):
        assert run(tmp_path, count, options=["--every", "3600"]).returncode == 0
    assert (tmp_path / "count").read_text() == "x"
    state = tmp_path / "backup.json"
    for started in (time.time() - 7200, time.time() + 1e6):  # the host slept; the clock was put back
        state.write_text(json.dumps({**json.loads(state.read_text()), "started": started}))
        assert run(tmp_path, count, options=["--every", "3600"]).returncode == 0
    assert (tmp_path / "count").read_text() == "xxx"
    state.write_text("{")
    assert run(tmp_path, count, options=["--every", "3600"]).returncode == 0
    assert (tmp_path / "count").read_text() == "xxxx"


def test_a_heartbeat_that_cannot_be_written_is_no_success(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "", options=["--metrics", str(tmp_path / "nowhere")])
    assert done.returncode == 73 and "memory_schedule_metrics_dir" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".memops-")]


def test_quiet_says_only_what_failed(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, "print('well')", options=["--quiet", "--jitter", "0.01"]).stdout == ""
    failed = run(tmp_path, "import sys; print('why'); sys.exit(4)", options=["--quiet"])
    assert (failed.returncode, failed.stdout) == (4, "why\n")
