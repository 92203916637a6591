# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site whose memory lies on hosts that are reached over SSH, with its snapshots in S3.

h1 is the primary, h2 the secondary. What a host keeps is looked at and damaged from here, as its own processes would.
"""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

import machine
from s3_server import S3Server
from ssh_hosts import OWNER, Lab

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import ROOT, Site

ROLES = {"h1": "primary", "h2": "secondary"}


class SshSite(Site):
    """As ``Site``, with ``stores`` and ``keyrings`` by role as this machine sees them."""

    def __init__(self, folder: pathlib.Path, lab: Lab, s3: S3Server, **variables: t.Any) -> None:
        self.folder, self.lab, self.s3 = folder, lab, s3
        self.reports = folder / "reports"
        self.inventory = folder / "inventory.json"
        self.hosts = {role: lab.hosts[name] for name, role in ROLES.items()}
        self.stores = {
            role: {"engine": "sqlite", "layout": "native", "path": str(host.folder / "agents" / "memory.db")}
            for role, host in self.hosts.items()
        }
        self.keyrings = {
            role: {
                "source": "file",
                "path": str(host.folder / "etc" / "keyring.json"),
                "master_key_file": str(host.folder / "etc" / "master.key"),
            }
            for role, host in self.hosts.items()
        }
        self.keyring = self.keyrings["primary"]
        self.variables = {
            "ansible_python_interpreter": "{{ memory_venv }}/bin/python",
            "memory_venv": "{{ lab_root }}/opt/memops/venv",
            "memory_python": python_of_hosts(),
            "memory_cluster": "site",
            "memory_store": {"engine": "sqlite", "path": "{{ lab_root }}/agents/memory.db"},
            "memory_keyring": {
                "path": "{{ lab_root }}/etc/keyring.json",
                "master_key_file": "{{ lab_root }}/etc/master.key",
            },
            "memory_repository": s3.repository("site"),
            "memory_route": {"kind": "file", "path": "{{ lab_root }}/etc/route.json"},
            "memory_report_dir": str(self.reports),
            "memory_monitor_seconds": 1,
            "memory_monitor_interval": "0.5",
            **({"ansible_become": True, "ansible_become_user": OWNER} if lab.hosts["h1"].sudo else {}),
            **variables,
        }
        self.write_inventory()

    def write_inventory(self) -> None:
        hosts = {
            name: {**self.lab.hosts[name].variables, "lab_root": self.lab.hosts[name].root, "memory_role": role}
            for name, role in ROLES.items()
        }
        self.inventory.write_text(json.dumps({"memory": {"hosts": hosts, "vars": self.variables}}))

    def give_master_key(self) -> None:
        """What an operator does by hand: the same master key to both hosts."""
        secret = os.urandom(32).hex()
        for role, keyring in self.keyrings.items():
            path = pathlib.Path(keyring["master_key_file"])
            path.write_text(secret + "\n", encoding="ascii")
            path.chmod(0o600)
            self.own(role)

    def own(self, role: str) -> None:
        """Give the owner of the memory what this process made."""
        for folder in ("agents", "etc"):
            there = self.hosts[role].folder / folder
            owner = there.stat()
            for path in there.rglob("*"):
                os.chown(path, owner.st_uid, owner.st_gid)

    def memory(self, host: str = "primary") -> Memory:
        return Memory(store=self.stores[host], keyring=self.keyrings[host], actor="test")

    def fill(self, namespace: str, count: int) -> None:
        super().fill(namespace, count)
        self.own("primary")

    def read(self, namespace: str, count: int) -> None:
        """Read as the applications on both hosts do; what they meet does not matter here."""
        for role, store in self.stores.items():
            if not os.path.exists(store["path"]) or not os.path.exists(self.keyrings[role]["path"]):
                continue
            with contextlib.suppress(MemoryOpsError):
                memory = self.memory(role)
                for number in range(count):
                    with contextlib.suppress(MemoryOpsError):
                        memory.read(namespace, f"key-{number % 50:05}")
                memory.close()

    def journal(self, incident: str) -> list[dict[str, t.Any]]:
        return whole_lines(pathlib.Path(self.stores["primary"]["path"] + ".memops", incident, "journal.jsonl"))

    def incident(self) -> str | None:
        """The newest one on the primary."""
        folders = pathlib.Path(self.stores["primary"]["path"] + ".memops").glob("inc-*")
        return max((path.name for path in folders), default=None)

    def steps(self) -> list[str]:
        """What the controller has noted of the newest incident."""
        return [line["name"] for line in whole_lines(self.reports / (self.incident() or "-") / "steps.jsonl")]

    def await_incident(self, process: subprocess.Popen[str], former: str | None) -> None:
        self._until(process, lambda: self.incident() != former, "new incident")

    def await_step(self, process: subprocess.Popen[str], name: str, count: int = 1) -> None:
        """Until the controller noted the step so often in the newest incident."""
        self._until(process, lambda: self.steps().count(name) >= count, f"step {name}")

    def await_intent(self, process: subprocess.Popen[str], step: str) -> None:
        """Until the step is under way on the primary: it said what it is about to do, and not yet what came of it."""

        def under_way() -> bool:
            lines = [line for line in self.journal(self.incident() or "-") if line["step"] == step]
            return bool(lines) and lines[-1]["phase"] == "intent"

        self._until(process, under_way, f"intent of {step}")

    @staticmethod
    def _until(process: subprocess.Popen[str], there: t.Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 300
        while not there():
            if process.poll() is not None or time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"There was no {what}: {process.communicate()[0][-3000:]}")
            time.sleep(0.01)

    @contextlib.contextmanager
    def journal_held(self) -> t.Iterator[int]:
        """Nobody writes to the journal of the newest incident: a step has the claim, and waits before its first change.

        Yields the file's inode, for ``await_held``.
        """
        path = pathlib.Path(self.stores["primary"]["path"] + ".memops", self.incident() or "-", "journal.jsonl")
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield os.fstat(file.fileno()).st_ino

    def await_held(self, process: subprocess.Popen[str], inode: int) -> None:
        """Until a step on the primary waits for the journal that is held."""
        waiting: set[int] = set()

        def waits() -> bool:
            before = set(waiting)
            waiting.clear()
            waiting.update(pid for pid in self.hosts["primary"].processes() if inode in open_files(pid) and sleeps(pid))
            time.sleep(0.3)
            return bool(before & waiting)  # who only reads it does not sleep, and is soon done

        self._until(process, waits, "step that waits for the journal")

    @contextlib.contextmanager
    def s3_away(self) -> t.Iterator[None]:
        """S3 takes connections and answers nothing: what needs it waits."""
        assert self.s3.process
        os.kill(self.s3.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.s3.process.pid, signal.SIGCONT)


def whole_lines(path: pathlib.Path) -> list[dict[str, t.Any]]:
    """What a file of JSON lines holds; its last line may just be written."""
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    return []


def open_files(pid: int) -> set[int]:
    """The inodes of what a process has open; none when it has ended."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{pid}/fd/{name}").st_ino)
    return found


def sleeps(pid: int) -> bool:
    """Whether it waits for something, and not for its turn."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "S"
    return False


def python_of_hosts() -> str:
    """A Python outside anybody's home, with venv: the hosts' users have to reach it."""
    code = "import sys, ensurepip, venv, sqlite3, ssl; sys.exit(sys.version_info < (3, 9))"
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", base):
        command = [python, "-c", code]
        if os.path.exists(python) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return python
    raise AssertionError("no Python with venv for the hosts. Next: apt install python3-venv")


def wheels() -> pathlib.Path:
    """The packages that the role installs, as wheels for the hosts' Python: they have no network. Kept for later."""
    with machine.alone():
        return _wheels()


def _wheels() -> pathlib.Path:
    lists = sorted((ROOT / "roles" / "prepare" / "files").glob("*.txt"))
    folder = ROOT / ".ansible" / "wheels"
    told = "\n".join([python_of_hosts(), sys.version, *(path.read_text(encoding="utf-8") for path in lists)])
    stamp = folder / "lists"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == told:
        return folder / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    python = [python_of_hosts(), "-m", "venv", str(folder / "venv")]
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    for command in (python, [*pip, "--dest", str(folder / "wheels"), *(f"--requirement={path}" for path in lists)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr[-1000:]
    stamp.write_text(told, encoding="utf-8")
    return folder / "wheels"
