# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a scheduled job: never beside itself, for a bounded time, and with a heartbeat for Prometheus.

    memops_job.py --job backup --state DIR [--metrics DIR] -- ansible-playbook -i INVENTORY memops.agent_memory.backup

A heartbeat is a file of node_exporter's textfile collector; it appears under its name only when it is complete. The
exit status is the command's; 124: it took too long, 127: it cannot be started, 75: the former run has not ended, 73:
the command succeeded and the heartbeat could not be written. Standard library only; Python 3.7 or newer.
"""
from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

TOO_LONG, NO_COMMAND, STILL_RUNS, NO_HEARTBEAT = 124, 127, 75, 73
PATIENCE = 30.0  # seconds between SIGTERM and SIGKILL
METRICS = (
    ("memops_job_last_exit_code", "exit_code", "Exit status of the last run of a scheduled job."),
    ("memops_job_last_run_timestamp_seconds", "ended", "When the last run of a scheduled job ended."),
    ("memops_job_last_success_timestamp_seconds", "success", "When a scheduled job last succeeded; 0: never."),
    ("memops_job_last_duration_seconds", "seconds", "How long the last run of a scheduled job took."),
)


class Job:
    """What is known of a job from its former runs, in ``<state>/<job>.json``."""

    def __init__(self, name: str, state: str, metrics: str) -> None:
        self.name, self.metrics = name, metrics
        self.state = os.path.join(state, f"{name}.json")
        self.lock = os.path.join(state, f"{name}.lock")
        self.known: dict[str, float] = {"started": 0.0, "ended": 0.0, "success": 0.0, "exit_code": 0, "seconds": 0.0}

    def read(self) -> None:
        """A file that is damaged counts as none: then the job is due, and never succeeded."""
        try:
            with open(self.state, encoding="utf-8") as file:
                found = json.load(file)
            self.known = {key: float(found[key]) for key in self.known}
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def due(self, every: float, now: float) -> bool:
        """A start in the future means that the clock was put back."""
        return not now - 0.9 * every < self.known["started"] <= now

    def note(self, **values: float) -> None:
        self.known.update(values)
        _replace(self.state, json.dumps(self.known, sort_keys=True) + "\n")

    def heartbeat(self) -> None:
        lines = []
        for name, key, text in METRICS:
            lines += _metric(name, text, f'{{job="{self.name}"}}', self.known[key])
        _replace(os.path.join(self.metrics, f"memops_job_{self.name}.prom"), "\n".join(lines) + "\n")


def _metric(name: str, text: str, labels: str, value: float) -> list[str]:
    shown = str(int(value)) if value == int(value) else f"{value:.3f}"
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name}{labels} {shown}"]


def _replace(path: str, text: str) -> None:
    handle, part = tempfile.mkstemp(prefix=".memops-", dir=os.path.dirname(path))
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)  # node_exporter runs as another user
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


STARTING: list[bool] = []  # not empty while a command is being started
LATE: list[int] = []  # the signal that came meanwhile


class Stopped(Exception):
    """Somebody ended this process; what it started has to end, too."""


def run(command: t.Sequence[str], timeout: float, output: t.Any, lock: int) -> int:
    """The exit status of ``command``, which gets a process group of its own, so that all of it can be ended.

    It holds the lock, too: when this process is killed, it still runs, and the next one has to wait for it.
    """
    STARTING.append(True)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None,
            start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    except OSError as exc:
        STARTING.clear()
        print(f"{command[0]} cannot be started: {exc.strerror}. Next: correct its path.", file=sys.stderr)
        return NO_COMMAND
    try:
        STARTING.clear()
        if LATE:
            raise Stopped(LATE[0])
        status = process.wait(timeout or None)
    except subprocess.TimeoutExpired:
        _end(process)
        print(f"The job took longer than {timeout:.0f} s and was ended.", file=sys.stderr)
        return TOO_LONG
    except Stopped as exc:
        _end(process)
        return 128 + int(str(exc))
    return status if status >= 0 else 128 - status


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(PATIENCE)
            break
        except subprocess.TimeoutExpired:
            continue
    try:  # the command ended; what it left behind must not go on beside the next run
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _stopped(number: int, _frame: t.Any) -> None:
    signal.signal(number, signal.SIG_IGN)
    if STARTING:  # in the middle of it the command may run already, and nobody would know which one it is
        LATE.append(number)
        return
    raise Stopped(number)


def main(arguments: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a scheduled job and leave a heartbeat.", allow_abbrev=False)
    parser.add_argument("--job", required=True)
    parser.add_argument("--state", required=True, help="folder for the lock and what is known of former runs")
    parser.add_argument("--metrics", help="folder of the textfile collector (default: that of --state)")
    parser.add_argument("--every", type=float, default=0, help="seconds: do nothing when the last start is younger")
    parser.add_argument("--jitter", type=float, default=0, help="seconds: wait up to so long first")
    parser.add_argument("--timeout", type=float, default=0, help="seconds that the command may take (0: any)")
    parser.add_argument("--quiet", action="store_true", help="say what the command said only when it fails")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if not re.match(r"\A[a-z][a-z0-9_]*\Z", options.job):
        parser.error("--job is a word of a-z, 0-9 and _")
    try:
        os.makedirs(options.state, exist_ok=True)
        job = Job(options.job, options.state, options.metrics or options.state)
        lock = open(job.lock, "a")  # noqa: SIM115 - held until this process ends
    except OSError as exc:
        print(f"{options.state} cannot be used: {exc.strerror}. Next: make it writable for this user.", file=sys.stderr)
        return NO_HEARTBEAT
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(f"The former run of the job {job.name} has not ended: this one is left out.", file=sys.stderr)
        return STILL_RUNS
    job.read()
    if options.every and not job.due(options.every, time.time()):
        return 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stopped)
    with lock:
        return _work(job, options, lock.fileno())


def _work(job: Job, options: argparse.Namespace, lock: int) -> int:
    started, begun = time.time(), time.monotonic()
    with tempfile.TemporaryFile() as said:
        try:
            if options.jitter:
                time.sleep(random.uniform(0, options.jitter))
            started, begun = time.time(), time.monotonic()
            job.note(started=started)
            status = run(options.command, options.timeout, said if options.quiet else None, lock)
        except Stopped as exc:
            status = 128 + int(str(exc))
        except OSError as exc:
            print(f"What is known of the job {job.name} cannot be written: {exc.strerror}.", file=sys.stderr)
            return NO_HEARTBEAT
        if status and options.quiet:
            said.seek(0)
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
    ended = time.time()
    success = job.known["success"] if status else ended
    try:
        job.note(ended=ended, seconds=time.monotonic() - begun, exit_code=status, success=success)
        job.heartbeat()
    except OSError as exc:
        print(f"The heartbeat of the job {job.name} cannot be written to {job.metrics}: {exc.strerror}. "
              "Next: make memory_schedule_metrics_dir writable for this user.", file=sys.stderr)  # fmt: skip
        return status or NO_HEARTBEAT
    return status


if __name__ == "__main__":
    sys.exit(main())
