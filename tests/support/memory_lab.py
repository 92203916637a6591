# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three memory clusters on hosts of their own, with an inventory of groups: what `make lab` brings up.

| group      | -1                  | -2                      | -3                               |
|------------|---------------------|-------------------------|----------------------------------|
| sqlite     | primary, a file     |                         | secondary, a file                |
| postgresql | primary, its server | a streaming replica     | secondary, an independent server |
| valkey     | primary, its server | a replica, by Sentinel  | secondary, an independent server |

A Sentinel runs on each host of valkey. All are prepared by the role and reached by SSH; snapshots go to one S3.
A second inventory, ``replicated``, has -1 and -2 of the servers as clusters that fail over as a whole. With ``units``
there is a further such cluster in it alone, ``debian``: PostgreSQL as Debian's package has it, on hosts with systemd.
"""
from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import threading
import types
import typing as t

import unit_postgresql
from host_servers import (
    APPLICATION,
    OWNER,
    REPLICATOR,
    SERVICE_NAME,
    HostPostgresql,
    HostSentinel,
    HostValkey,
    passwords,
    programs,
)
from s3_server import S3Server
from ssh_hosts import OWNER as AGENTS
from ssh_hosts import USERS, Lab, NamespaceHost
from ssh_site import python_of_hosts, wheels
from systemd_host import SystemdHost
from unit_postgresql import UnitPostgresql

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError, StoreMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import Site
from tests.support.engines import RAW

ENGINES = ("sqlite", "postgresql", "valkey")
HOSTS = {"sqlite": ("sqlite-1", "sqlite-3")}
HOSTS.update({engine: tuple(f"{engine}-{number}" for number in (1, 2, 3)) for engine in ("postgresql", "valkey")})
HOSTS["debian"] = ("debian-1", "debian-2")
ROLES = {"1": "primary", "3": "secondary"}
VENV = "/opt/memops/venv"


class MemoryLab(Site):
    """As ``Site``, with a cluster per engine; ``engines`` are those wanted."""

    def __init__(
        self, engines: t.Sequence[str] = ENGINES, folder: str = "", crowd: int = 0, units: bool = False,
        **variables: t.Any,
    ) -> None:  # fmt: skip
        """``crowd``: so many hosts more, each a cluster of its own in SQLite, in the inventory ``crowded`` alone."""
        self.engines = engines
        self.units = ("debian",) if units else ()
        self.crowd = [f"crowd-{number:02}" for number in range(1, crowd + 1)]
        names = [name for engine in (*engines, *self.units) for name in HOSTS[engine]]
        kinds = dict.fromkeys(HOSTS["debian"], SystemdHost)
        self.lab = Lab([*names, *self.crowd], real=True, folder=folder, opt=True, kinds=kinds)
        self.more = variables
        self.cuts = pathlib.Path()  # where cutting_ssh.py is told what to cut
        self.words = passwords()
        self.servers: dict[str, t.Any] = {}  # host name -> its store's server
        self.sentinels: list[HostSentinel] = []

    # --- up and down --------------------------------------------------------------------------------------------------
    def __enter__(self) -> MemoryLab:
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(self, *exc: object) -> None:
        self.down()

    def up(self) -> MemoryLab:
        if self.units:
            unit_postgresql.install()
        self.lab.start()
        self.folder = self.lab.folder / "controller"
        self.folder.mkdir()
        self.reports, self.inventory = self.folder / "reports", self.folder / "inventory.json"
        self.replicated, self.crowded = self.folder / "replicas.json", self.folder / "crowd.json"
        self.s3 = S3Server(str(self.lab.folder / "s3"), address=self.lab.address)
        self.s3.start()
        assert self.lab.opt
        if set(self.engines) - {"sqlite"}:
            programs(self.lab.opt)
        self._start_servers()
        self.write_inventory()
        self._prepare()
        for engine in (*self.engines, *self.units):
            with contextlib.suppress(StoreMissing):
                open_store(self.store(engine), create=True).close()
            self.own(engine)
        return self

    def down(self) -> None:
        s3 = getattr(self, "s3", None)
        if s3 and s3.process:
            s3.process.kill()  # nobody needs what it still has to write
            s3.process.wait()
        self.lab.stop()

    def _start_servers(self) -> None:
        kinds = {"postgresql": HostPostgresql, "valkey": HostValkey, "debian": UnitPostgresql}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            chosen = [(engine, kinds[engine]) for engine in (*self.engines, *self.units) if engine in kinds]
            for started in [pool.submit(self._start_cluster, *each) for each in chosen]:
                started.result()

    def _start_cluster(self, engine: str, kind: type[t.Any]) -> None:
        names = HOSTS[engine]
        for number, name in enumerate(names):
            like = self.servers[names[0]] if number == 1 else None
            self.servers[name] = kind(self.host(name), self.words, like).start()
        if engine == "valkey":
            self.sentinels = [HostSentinel(self.host(name), self.servers[names[0]]) for name in names]
            for sentinel in self.sentinels:
                sentinel.start()

    def _prepare(self) -> None:
        """The role makes the first host ready, which the others are copies of: /opt is theirs already."""
        first, *others = self.lab.hosts.values()
        first.run(f"sudo -u {AGENTS} mkdir -p -m 700 /srv/home/{AGENTS}/.ansible/tmp")
        wanted = {*self.engines, *("postgresql" for _unit in self.units)} - {"sqlite"}
        lists = ["base", "aws", *sorted(wanted)]
        done = self.play("prepare", "--limit", first.name, memory_wheels=str(wheels()), prepare_lists=lists)
        assert done.status == 0, done.text
        for host in others:
            for folder in ("agents", "etc", "home/agents/.ansible", "home/agents/.ansible/tmp"):
                (host.folder / folder).mkdir()
                shutil.copystat(first.folder / folder, host.folder / folder)
                os.chown(host.folder / folder, USERS[AGENTS], USERS[AGENTS])
        master = os.urandom(32).hex()
        for host in self.lab.hosts.values():
            for name, secret in (("master.key", master), *self._logins()):
                path = host.folder / "etc" / name
                path.write_text(secret + "\n", encoding="ascii")
                path.chmod(0o600)
                os.chown(path, USERS[AGENTS], USERS[AGENTS])

    def _logins(self) -> tuple[tuple[str, str], ...]:
        names = {"store": OWNER, "application": APPLICATION, "replicator": REPLICATOR}
        return tuple((f"{name}.password", self.words[user]) for name, user in names.items())

    @contextlib.contextmanager
    def using(self, inventory: pathlib.Path) -> t.Iterator[None]:
        usual, self.inventory = self.inventory, inventory
        try:
            yield
        finally:
            self.inventory = usual

    # --- what is where ------------------------------------------------------------------------------------------------
    def host(self, name: str) -> NamespaceHost:
        return t.cast("NamespaceHost", self.lab.hosts[name])

    def primary(self, engine: str) -> NamespaceHost:
        return self.host(f"{engine}-1")

    def write_inventory(self) -> None:
        """``memory`` with a group for each engine, and of it a group for what is no memory host, but belongs there."""
        groups = {}
        for engine in self.engines:
            hosts = {}
            for name in HOSTS[engine]:
                hosts[name] = dict(self.lab.hosts[name].variables)
                if name[-1] in ROLES:
                    hosts[name].update(memory_role=ROLES[name[-1]], memory_store=self._declared(name))
            groups[engine] = {"hosts": hosts, "vars": {"memory_cluster": engine}}
        variables = {
            "ansible_python_interpreter": f"{VENV}/bin/python",
            "ansible_become": True,
            "ansible_become_user": AGENTS,
            "memory_python": python_of_hosts(),
            "memory_keyring": {"path": "/srv/etc/keyring.json", "master_key_file": "/srv/etc/master.key"},
            "memory_repository": self.s3.repository("lab"),
            "memory_route": {"kind": "file", "path": "/srv/etc/route.json"},
            "memory_work_dir": "/srv/agents/work",
            "memory_report_dir": str(self.reports),
            "memory_monitor_seconds": 1,
            "memory_monitor_interval": "0.5",
            **self.more,
        }
        crowd = {name: {**self.lab.hosts[name].variables, "memory_store": self._declared(name)} for name in self.crowd}
        alone = {"crowd": {"hosts": crowd, "vars": {"memory_cluster": "{{ inventory_hostname }}"}}}
        pairs = {
            engine: {
                "hosts": {
                    f"{engine}-{number}": {
                        **self.lab.hosts[f"{engine}-{number}"].variables,
                        "memory_role": role,
                        "memory_store": {**self._declared(f"{engine}-{number}"), **self._replicated(engine)},
                    }
                    for number, role in ((1, "primary"), (2, "secondary"))
                },
                "vars": {"memory_cluster": engine},
            }
            for engine in (*self.engines, *self.units)
            if engine != "sqlite"
        }
        if self.units:  # only root tells systemd what to do
            pairs["debian"]["vars"]["ansible_become_user"] = "root"
        for path, children in ((self.inventory, groups), (self.replicated, pairs), (self.crowded, alone)):
            path.write_text(json.dumps({"memory": {"children": children, "vars": variables}}, indent=1))
            path.chmod(0o600)  # it has the keys of S3

    def _declared(self, name: str) -> dict[str, t.Any]:
        """The host's ``memory_store`` in the inventory."""
        if name not in self.servers:
            return {"engine": "sqlite", "path": "/srv/agents/memory.db"}
        told = {key: value for key, value in self.store_of(name).items() if key not in ("password", "layout")}
        return {**told, "password_file": "/srv/etc/store.password",
                "application_password_file": "/srv/etc/application.password"}  # fmt: skip

    def _watched(self) -> dict[str, t.Any]:
        """What ``memory_store`` says of Sentinel."""
        sentinels = [f"{sentinel.host.address}:{sentinel.port}" for sentinel in self.sentinels]
        return {"sentinels": sentinels, "sentinel_service": SERVICE_NAME}

    def _replicated(self, engine: str) -> dict[str, t.Any]:
        """What ``memory_store`` says of a server that has a replica, or is one."""
        if engine == "valkey":
            return self._watched()
        return {"server": self.servers[f"{engine}-1"].on_host()}

    def store(self, engine: str, number: int = 1) -> dict[str, t.Any]:
        """As an operator on this machine opens it."""
        return self.store_of(f"{engine}-{number}")

    def store_of(self, name: str) -> dict[str, t.Any]:
        if name in self.servers:
            watched = self._watched() if name == "valkey-1" else {}
            return t.cast("dict[str, t.Any]", self.servers[name].store(layout="native", **watched))
        path = self.host(name).folder / "agents" / "memory.db"
        return {"engine": "sqlite", "layout": "native", "path": str(path)}

    def ring(self, engine: str, number: int = 1) -> dict[str, t.Any]:
        return self.ring_of(f"{engine}-{number}")

    def ring_of(self, name: str) -> dict[str, t.Any]:
        etc = self.host(name).folder / "etc"
        return {"source": "file", "path": str(etc / "keyring.json"), "master_key_file": str(etc / "master.key")}

    def own(self, engine: str) -> None:
        """Give the owner of the memory what this process made."""
        for name in HOSTS[engine]:
            self.own_of(name)

    def own_of(self, name: str) -> None:
        for folder in ("agents", "etc"):
            for path in (self.host(name).folder / folder).rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(path, USERS[AGENTS], USERS[AGENTS])

    # --- applications, and damage -------------------------------------------------------------------------------------
    def application(self, engine: str, number: int = 1, *, direct: bool = False) -> Memory:
        """``direct``: on that very server, whomever Sentinel takes for the primary."""
        name = f"{engine}-{number}"
        watched = self._watched() if name == "valkey-1" and not direct else {}
        store = self.servers[name].application(**watched) if name in self.servers else self.store(engine, number)
        return Memory(store=store, keyring=self.ring(engine, number), actor="test")

    @staticmethod
    def memories(namespace: str, count: int) -> dict[str, t.Any]:
        return {f"key-{n:05}": {"fact": f"{namespace} fact {n}"} for n in range(count)}

    def fill_all(self, namespace: str, count: int) -> None:
        for engine in self.engines:
            with self.application(engine) as memory:
                memory.write_many(namespace, self.memories(namespace, count))
            self.own(engine)

    def read(self, namespace: str, count: int) -> None:
        """Read as the applications on the hosts do; what they meet does not matter here."""
        for engine in self.engines:
            for number in (1, 3):
                if not os.path.exists(self.ring(engine, number)["path"]):
                    continue
                with contextlib.suppress(MemoryOpsError), self.application(engine, number) as memory:
                    for key in range(count):
                        with contextlib.suppress(MemoryOpsError):
                            memory.read(namespace, f"key-{key % 50:05}")

    def boot(self, name: str) -> None:
        """A host that was killed comes back, and its servers with it."""
        self.host(name).start()
        for server in (self.servers.get(name), *(one for one in self.sentinels if one.host.name == name)):
            if server:
                server.again()

    @contextlib.contextmanager
    def seen_again(self, name: str) -> t.Iterator[None]:
        """As soon as this server is a replica, the Sentinels may know of it again."""
        ended, server = threading.Event(), self.servers[name]

        def watch() -> None:
            while not ended.wait(0.1):
                if server.follows():
                    server.hide(False)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def flip_all(self, namespace: str, keys: t.Sequence[str], engines: t.Sequence[str] = ()) -> None:
        """Change stored payloads on the primaries as a bad disk would."""
        for engine in engines or self.engines:
            name = f"{engine}-1"
            there = types.SimpleNamespace(
                server=self.servers.get(name), params=lambda _name, engine=engine: self.store(engine)
            )
            for key in keys:
                RAW[engine](there, "").flip(namespace, key)

    def state(self, engine: str, namespace: str, number: int = 1) -> str:
        """serving, quarantined, standby … as the store has it."""
        store = open_store(self.store(engine, number))
        try:
            with store.reader() as reader:
                return str(reader.namespace(namespace).state)
        finally:
            store.close()

    def reports_of(self, namespace: str) -> dict[str, dict[str, t.Any]]:
        """The newest report of each cluster."""
        found: dict[str, dict[str, t.Any]] = {}
        paths = sorted(self.reports.glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns)
        for report in (json.loads(path.read_text(encoding="utf-8")) for path in paths):
            if report["namespace"] == namespace:
                found[report["cluster"]] = report
        return found
