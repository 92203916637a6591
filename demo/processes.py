# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's child processes: a clean environment for them, and an end for all of them, whatever happens.

The pid and start time of each child is noted in a file, so that a later run ends what a killed one left behind.
"""
from __future__ import annotations

import contextlib
import json
import locale
import os
import signal
import subprocess
import sys
import time
import typing as t

from .places import HOME, PROCESSES, REPO, at

GRACE = 8.0  # seconds that a child has for an orderly end


def clean_environment() -> None:
    """Nothing of the caller's cloud, proxy, Python or Ansible settings reaches the demo or its children."""
    foreign = ("AWS_", "ANSIBLE_", "MEMOPS_", "PYTHON", "VAULT_", "WEED_", "GIT_")
    for name in list(os.environ):
        if name.startswith(foreign) or name.lower().endswith("_proxy") or name in ("VIRTUAL_ENV", "BASH_ENV", "ENV"):
            del os.environ[name]
    collections = os.path.join(REPO, ".ansible", "collections")
    os.environ.update(
        ANSIBLE_HOME=os.path.join(REPO, ".ansible"),
        ANSIBLE_COLLECTIONS_PATH=collections,
        ANSIBLE_CONFIG=at("ansible.cfg"),  # empty: neither ~/.ansible.cfg nor one in the current directory counts
        ANSIBLE_LOCAL_TEMP=at("tmp"),
        ANSIBLE_REMOTE_TMP=at("tmp"),
        HOME=at("home"),
        NO_PROXY="*",
        PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH") or os.defpath]),
        PYTHONPATH=os.pathsep.join([REPO, collections]),
        TMPDIR=at("tmp"),
    )
    if not os.environ.get("TERM"):
        os.environ["TERM"] = "dumb"
    utf8 = locale.getpreferredencoding(False).replace("-", "").lower() == "utf8"
    if not utf8 or os.environ.get("LC_ALL") in ("C", "POSIX"):
        os.environ["LC_ALL"] = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"  # ansible-core insists on UTF-8


def prepare_folders() -> None:
    for name in ("home", "tmp", "primary", "secondary", "reports", "logs"):
        os.makedirs(at(name), mode=0o700, exist_ok=True)
    with open(at("ansible.cfg"), "w", encoding="utf-8") as file:
        file.write("# Empty on purpose: the demo's settings are in its environment.\n")


class Children:
    """Starts processes, each in a session of its own (Ctrl-C is the demo's business), and ends them."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[t.Any]] = []
        _adopt_orphans()

    def start(self, arguments: t.Sequence[str], **how: t.Any) -> subprocess.Popen[t.Any]:
        process = subprocess.Popen(list(arguments), start_new_session=True, cwd=REPO, **how)
        self.note(process)
        return process

    def note(self, process: subprocess.Popen[t.Any]) -> None:
        self._running.append(process)
        children = [{"pid": p.pid, "started": started(p.pid)} for p in self._running if p.poll() is None]
        demo = {"pid": os.getpid(), "started": started(os.getpid())}
        with open(PROCESSES + ".new", "w", encoding="utf-8") as file:
            json.dump({"demo": demo, "children": children}, file)
        os.replace(PROCESSES + ".new", PROCESSES)

    def end(self) -> None:
        """End all of them, the youngest first, and what they in turn have left behind."""
        for process in reversed(self._running):
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()  # the agent's sign to finish
        for process in reversed(self._running):
            stop(process)
        self._running.clear()
        _end_orphans()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(PROCESSES)


def stop(process: subprocess.Popen[t.Any]) -> None:
    """SIGTERM, then SIGKILL, to the whole process group. A process that has ended may have left members of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_former_run() -> int:
    """End what a killed run of the demo left running here; how many processes. Errors: SystemExit when it goes on."""
    try:
        with open(PROCESSES, encoding="utf-8") as file:
            notes = json.load(file)
        demo, children = notes["demo"], notes["children"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    if _runs(demo):
        raise SystemExit(
            f"Another demo runs in this checkout (process {demo['pid']}). Next: wait for its end, or stop it with "
            f"kill {demo['pid']}"
        )
    ended = 0
    for note in children:
        if not _runs(note):
            continue
        pid = note["pid"]
        ended += 1
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
            deadline = time.monotonic() + GRACE
            while started(pid) == note["started"] and time.monotonic() < deadline:
                time.sleep(0.05)
    return ended


def _runs(note: t.Mapping[str, t.Any]) -> bool:
    """Whether it is still that process: its number may belong to somebody else by now."""
    pid = note.get("pid")
    return isinstance(pid, int) and note.get("started") is not None and started(pid) == note["started"]


def started(pid: int) -> str | None:
    """When a process began, in the system's own words; None when there is none (a zombie counts as none)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    if os.path.isdir("/proc/self"):
        return None
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


# --- Linux: processes that daemonised (Ansible's async wrapper does) come to the demo instead of to init -------------
def _adopt_orphans() -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _end_orphans() -> None:
    deadline = time.monotonic() + GRACE
    while sys.platform == "linux" and time.monotonic() < deadline:
        children = _descendants(os.getpid())
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            for child in map(int, file.read().split()):
                found += [child, *_descendants(child)]
    return found


def remove_former_state() -> None:
    """Start afresh: everything of the former run but nothing outside of the demo's own folder."""
    import shutil

    if os.path.islink(HOME):
        raise SystemExit(f"{HOME} is a symbolic link. Next: remove it, then run the same command again.")
    shutil.rmtree(HOME, ignore_errors=True)
    if os.path.exists(HOME):
        raise SystemExit(f"{HOME} of a former run cannot be removed. Next: remove it (whose is it?), then try again.")
