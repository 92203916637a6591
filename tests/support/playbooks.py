# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site in a temporary folder (stores, keyring, directory repository, route, inventory) and ansible-playbook on it."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError, StoreMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._route import for_applications
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "tests" / "support" / "ansible.cfg")
PROGRAM = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class Outcome(t.NamedTuple):
    """``changed`` adds up all hosts; ``text`` is everything that a person saw."""

    status: int
    changed: int
    text: str


class Site:
    """One memory cluster: a primary, and a secondary unless told otherwise; in SQLite, or in what ``bench`` has."""

    launcher: t.Sequence[str] = ()  # what starts ansible-playbook
    bench: t.Any = None

    def __init__(
        self, folder: pathlib.Path, *, secondary: bool = True, bench: t.Any = None, **variables: t.Any
    ) -> None:
        self.folder, self.bench = folder, bench
        master = folder / "master.key"
        master.write_text(os.urandom(32).hex() + "\n")
        master.chmod(0o600)
        self.stores = {"primary": self._store("primary")}
        if secondary:
            self.stores["secondary"] = self._store("secondary")
        self.keyring = {"source": "file", "path": str(folder / "keyring.json"), "master_key_file": str(master)}
        self.route = folder / "route.json"
        self.reports = folder / "reports"
        self.inventory = folder / "inventory.json"
        self.variables: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "memory_cluster": "site",
            "memory_repository": {"url": f"file://{folder}/repository"},
            "memory_keyring": self.keyring,
            "memory_route": {"kind": "file", "path": str(self.route)},
            "memory_report_dir": str(self.reports),
            "memory_monitor_seconds": 1,
            "memory_monitor_interval": "0.5",
            **variables,
        }
        if bench:  # on a server an operator makes the store, not an application
            open_store(self.stores["primary"], create=True).close()
        self.memory().close()
        share_packages(folder / "ansible")
        default = for_applications(self.stores["primary"])
        self.route.write_text(json.dumps({"format": 1, "generation": 1, "default": default, "namespaces": {}}))
        self.write_inventory()

    def _store(self, host: str) -> dict[str, t.Any]:
        (self.folder / host).mkdir(exist_ok=True)
        if self.bench:
            login = self.folder / "agent.password"
            login.write_text(self.bench.application(host)["password"])
            login.chmod(0o600)
            return {**self.bench.params(host), "application_password_file": str(login)}
        return {"engine": "sqlite", "layout": "native", "path": str(self.folder / host / "memory.db")}

    def write_inventory(self, **of_hosts: dict[str, t.Any]) -> None:
        """``of_hosts``: variables that one host has beside those of all."""
        hosts: dict[str, dict[str, t.Any]] = {
            host: {"memory_role": host, "memory_store": store, **of_hosts.get(host, {})}
            for host, store in self.stores.items()
        }
        for host in hosts if self.bench else ():
            hosts[host]["memory_work_dir"] = str(self.folder / host / "work")
        inventory = {"memory": {"hosts": hosts, "vars": self.variables}}
        self.inventory.write_text(json.dumps(inventory))

    def memory(self, host: str = "primary") -> Memory:
        store = self.bench.application(host) if self.bench else self.stores[host]
        return Memory(store=store, keyring=self.keyring, actor="test")

    def fill(self, namespace: str, count: int) -> None:
        memory = self.memory()
        memory.write_many(namespace, {f"key-{n:05}": {"fact": f"{namespace} fact {n}"} for n in range(count)})
        memory.close()

    def flip(self, namespace: str, keys: t.Iterable[str], host: str = "primary") -> None:
        """Change stored payload bytes as a bad disk would: behind the engine's triggers and without a log entry."""
        if self.bench:
            for key in keys:
                self.bench.raw(host).flip(namespace, key)
            return
        con = sqlite3.connect(self.stores[host]["path"])
        with con:
            triggers = con.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _sql in triggers:
                con.execute(f'DROP TRIGGER "{name}"')
            (generation,) = con.execute(
                "SELECT generation FROM memops_namespace WHERE name = ?", (namespace,)
            ).fetchone()
            for key in keys:
                (payload,) = con.execute(
                    "SELECT payload FROM memory_records WHERE generation = ? AND key = ?", (generation, key)
                ).fetchone()
                broken = bytes([payload[0] ^ 0xFF]) + payload[1:]
                con.execute(
                    "UPDATE memory_records SET payload = ? WHERE generation = ? AND key = ?", (broken, generation, key)
                )
            for _name, sql in triggers:
                con.execute(sql)
        con.close()

    def read(self, namespace: str, count: int) -> None:
        """Read as an application does, following the route; what it meets does not matter here."""
        memory = Memory(route=str(self.route), keyring=self.keyring, actor="test")
        for number in range(count):
            with contextlib.suppress(MemoryOpsError):
                memory.read(namespace, f"key-{number % 50:05}")
        memory.close()

    @contextlib.contextmanager
    def working(self, *namespaces: str) -> t.Iterator[None]:
        """An application that goes on reading until the block ends, as often as a watch of a second takes."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.5):
                for namespace in namespaces:
                    self.read(namespace, 50)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            ended.set()
            worker.join()

    def command(self, playbook: str, *arguments: str, **variables: t.Any) -> list[str]:
        command = [
            *self.launcher,
            PROGRAM,
            "-i",
            str(self.inventory),
            f"memops.agent_memory.{playbook}",
            *arguments,
        ]
        return [*command, "-e", json.dumps(variables)] if variables else command

    def environment(self) -> dict[str, str]:
        """What ansible-playbook needs beside the caller's."""
        return {
            "ANSIBLE_CONFIG": CONFIG,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),
        }

    def start(self, playbook: str, *arguments: str, **variables: t.Any) -> subprocess.Popen[str]:
        """ansible-playbook in a process group of its own, its output in one pipe."""
        return self._start(self.command(playbook, *arguments, **variables))

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, *arguments: str, timeout: int = 900, **variables: t.Any) -> Outcome:
        return _outcome(self.start(playbook, *arguments, **variables), timeout)

    def paste(self, command: str, timeout: int = 900) -> Outcome:
        """What comes of a command that a run printed, as a person pastes it."""
        program, *words = shlex.split(command)
        if program != "ansible-playbook":
            raise ValueError(command)
        return _outcome(self._start([*self.launcher, PROGRAM, *words]), timeout)

    def report(self) -> dict[str, t.Any]:
        """The newest report.json."""
        newest = max(self.reports.glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns)
        return t.cast("dict[str, t.Any]", json.loads(newest.read_text()))

    def store_bytes(self) -> dict[str, bytes]:
        return {host: pathlib.Path(store["path"]).read_bytes() for host, store in self.stores.items()}

    def fingerprint(self) -> dict[str, t.Any]:
        """Every file of the site outside Ansible's own folder, and what is in stores on servers, to see that nothing
        was written."""
        held = {host: holding(store) for host, store in self.stores.items()} if self.bench else {}
        return held | {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.relative_to(self.folder).parts[0] != "ansible"
        }


def _outcome(process: subprocess.Popen[str], timeout: int) -> Outcome:
    with process:
        try:
            text = process.communicate(timeout=timeout)[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Outcome(process.returncode, sum(int(row[2]) for row in RECAP.findall(text)), text)


def share_packages(home: pathlib.Path) -> None:
    """What Ansible packs of the collection is the same in all tests: an ANSIBLE_HOME of their own has it in common."""
    shared = ROOT / ".ansible" / "memops-packages"
    shared.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "memops-packages").exists():
        (home / "memops-packages").symlink_to(shared)


def holding(params: dict[str, t.Any]) -> t.Any:
    """All that a store tells of itself; None when there is none."""
    try:
        store = open_store(params)
    except StoreMissing:
        return None
    with contextlib.closing(store), store.reader() as reader:
        rows = {space.name: [r for b in reader.scan(space.name) for r in b] for space in reader.namespaces()}
        log = [tuple(e) for batch in reader.log() for e in batch]
        return rows, log, reader.namespaces(), reader.identity, store.incidents()
