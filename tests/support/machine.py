# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine below its hosts: programs, network links, processes, and what a run that was killed left behind.
Standard library only."""
from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
BRIDGE = "mo"  # and the process id of who made it
OF_A_LAB = ("setpriv", "unshare", "nsenter", "sshd", "ssh", "weed")


class Missing(Exception):
    """A program that a host needs is not here, and cannot be installed by this user."""


def install(programs: t.Mapping[str, str]) -> None:
    """``programs``: {program: Debian package}; root installs those that are missing."""
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=SEARCH)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"These tests need {', '.join(missing)}. Next: sudo apt install {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
        # Tests that run side by side may both want it.
        apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command]
        done = subprocess.run(apt, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0 and command[0] == "install":
            raise Missing(
                f"apt-get cannot install {', '.join(missing)}: {(done.stderr.strip() or done.stdout.strip())[-300:]} "
                "Next: install them by hand."
            )


def find(program: str) -> str:
    found = shutil.which(program, path=SEARCH)
    if not found:
        raise OSError(f"{program} is missing")
    return found


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([find(program), *arguments], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise OSError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def ip(*arguments: str) -> str:
    return run("ip", *arguments)


def program(pid: int) -> str:
    """What a process runs; empty when there is none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")
    return ""


def born(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]
    return ""


def mark(folder: pathlib.Path) -> None:
    """Say in ``folder`` that it goes with this process."""
    (folder / "owner").write_text(f"{os.getpid()} {born(os.getpid())}", encoding="ascii")


def owned(folder: pathlib.Path) -> bool:
    """Whether who marked the folder still lives."""
    with contextlib.suppress(OSError, ValueError):
        pid, began = (folder / "owner").read_text(encoding="ascii").split()
        return born(int(pid)) == began
    # Between its making and its mark.
    return folder.exists() and time.time() - folder.stat().st_mtime < 60


def sweep() -> None:
    """Remove what runs that were killed left behind: processes, bridges and folders. What lives stays."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob("memops-lab-*"):
        if not owned(folder):
            remove(folder)
    with contextlib.suppress(OSError):
        for folder in cgroups().glob(f"{BRIDGE}*"):
            maker = re.fullmatch(BRIDGE + "([0-9]+)[a-z][0-9]+", folder.name)
            if maker and not born(int(maker[1])):
                remove_cgroup(folder)
    for link in pathlib.Path("/sys/class/net").glob(f"{BRIDGE}*"):
        maker = re.fullmatch(BRIDGE + "([0-9]+)[a-z]", link.name)
        if maker and not born(int(maker[1])):
            subprocess.run([find("ip"), "link", "del", link.name], capture_output=True, check=False)


def cgroups() -> pathlib.Path:
    """The root of this machine's control groups of the second version. Errors: OSError."""
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if line.split()[2] == "cgroup2":
            return pathlib.Path(line.split()[1])
    raise OSError("no cgroup2 is mounted")


def remove_cgroup(folder: pathlib.Path) -> None:
    """Together with those in it, once their last process has ended."""
    deadline = time.monotonic() + 300
    while folder.exists() and time.monotonic() < deadline:
        for one in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                one.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


@contextlib.contextmanager
def alone() -> t.Iterator[None]:
    """No other lab on this machine is in here."""
    with open(os.path.join(tempfile.gettempdir(), "memops-lab.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove(folder: pathlib.Path) -> None:
    """A lab's folder and every process that works with it."""
    deadline = time.monotonic() + 300
    while (left := users_of(folder)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def users_of(folder: pathlib.Path) -> list[int]:
    """What runs of a lab in ``folder``: servers and connections that name it, and what its hosts started."""
    found, name = [], f"{folder}/".encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            process = pathlib.Path("/proc", entry)
            if (program(int(entry)).startswith(OF_A_LAB) and name in (process / "cmdline").read_bytes()) or (
                b"MEMOPS_LAB_HOST=" + name in (process / "environ").read_bytes()
            ):
                found.append(int(entry))
    return found
