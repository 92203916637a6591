# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run this is: one controller process from its start to its end.

PRIVATE to the collection.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import typing as t

FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO: every Linux kernel's own, outside of any container


def attempt(workflow: t.Any = None) -> str:
    """The ansible-playbook process as controller:pid:start; its workers are its children and give the same answer.

    ``workflow``: the number of AWX's workflow, if this is one of its jobs. They come one after the other and are one
    run, though each has a container of its own: none has to wait for the lease of the one before it.
    """
    if workflow:
        return f"{os.environ.get('AWX_HOST') or 'awx'}/workflow-{workflow}"
    pid = os.getppid() if _is_worker() else os.getpid()
    return f"{_controller()}:{pid}:{_start(pid) or '0'}"


def owner() -> str:
    """Who runs it, for the refusal that a second operator reads: the AWX job if there is one, else user@controller."""
    job = awx_job()
    name = f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    return f"{name} (job {job})" if job else name


def alive(other: str) -> bool | None:
    """Whether the process behind an attempt still runs; None when it ran on another controller."""
    host, pid, start = ["", "", *other.rsplit(":", 2)][-3:]
    if host != _controller() or not pid.isdigit():
        return None
    return _start(int(pid)) == start


def awx_job() -> str | None:
    """The job's number when AWX runs this."""
    return os.environ.get("AWX_JOB_ID") or os.environ.get("JOB_ID")


def _controller() -> str:
    """What a pid means something in: the machine, or the container on it. Containers may share the machine's name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()
    return socket.gethostname() if space == FIRST_PID_NAMESPACE else f"{socket.gethostname()}/{space}".replace(":", "")


def _is_worker() -> bool:
    """Ansible runs actions in forked workers; the attempt is their parent."""
    import multiprocessing

    return multiprocessing.parent_process() is not None


def _start(pid: int) -> str | None:
    """When the process started, as an opaque word; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip().replace(" ", "_").replace(":", ".") or None
