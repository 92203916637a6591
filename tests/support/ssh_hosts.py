# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with an sshd of their own on this machine, and the faults of real ones. Standard library only.

    with Lab(["h1", "h2"]) as lab:
        lab.hosts["h1"].variables        # what an inventory needs to reach it
        lab.hosts["h1"].cut()            # nobody reaches it any more, and it goes on working

Root with the right to make namespaces gets hosts with addresses, processes and file systems of their own. Anybody else
gets one sshd per host on a loopback port, with a HOME and folders of its own, unless the lab is ``real``.
MEMOPS_LAB=processes chooses the latter. Either way a host keeps what lies in ``folder`` (``Host.root`` there) and, in a
lab with ``opt``, in /opt, which all its hosts share; it loses the rest when it is killed.
"""
from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t

import host_boot
import machine
from machine import SEARCH, Missing, find
from machine import ip as _ip
from machine import run as _run
from s3_server import free_ports

PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
ROOT_PROGRAMS = {"sudo": "sudo", "ip": "iproute2"}
# How a controller finds out within seconds that a host is gone, in place of waiting for ever. One that is there answers
# in less, also when thirty are greeted at once by a slow machine.
ALIVE = "-o ConnectTimeout=6 -o ServerAliveInterval=1 -o ServerAliveCountMax=4"
LOGIN, OWNER = "deploy", "agents"  # who connects, and whose the memory is, where a host has users of its own
USERS = {LOGIN: 4701, OWNER: 4702}

SSHD = """\
ListenAddress {address}
Port {port}
HostKey {home}/sshd/host_key
AuthorizedKeysFile {home}/sshd/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
MaxStartups 200
MaxSessions 200
Subsystem sftp internal-sftp
"""
NUMBERED = " ".join(f"{name}:{number}" for name, number in USERS.items())
BOOT = host_boot.BOOT.replace("USERS", NUMBERED).replace("LOGIN", LOGIN)


class Host:
    """One sshd on a loopback port with a HOME of its own."""

    sudo = False  # whether the host has users of its own: LOGIN, who may become OWNER

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab, self.name, self.number = lab, name, number
        self.home = lab.folder / name
        self.folder = self.home / "srv"  # what the host keeps, as this machine sees it
        self.root = str(self.folder)  # the same, as the host sees it
        self.address, self.port = "127.0.0.1", free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None
        for folder in ("home", "tmp", "sshd"):
            (self.folder / folder).mkdir(parents=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "sshd" / "host_key"))
        shutil.copy(lab.folder / "key.pub", self.folder / "sshd" / "authorized_keys")
        for path in (lab.folder, self.home, self.folder):
            path.chmod(0o755)

    @property
    def variables(self) -> dict[str, t.Any]:
        """The inventory's variables for this host."""
        known = f"-F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile={self.lab.folder}/known_hosts"
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_ssh_private_key_file": str(self.lab.folder / "key"),
            "ansible_ssh_common_args": f"{known} {ALIVE}",
            "ansible_control_path_dir": str(self.lab.sockets),
            # Whatever the caller set for hosts that are this machine: who connects may write only below their own home.
            "ansible_remote_tmp": "~/.ansible/tmp",
            "ansible_pipelining": True,
        }

    def start(self) -> Host:
        self.boot()
        return self.answering()

    def answering(self) -> Host:
        """Wait until its sshd does."""
        deadline = time.monotonic() + 300
        while True:
            try:
                with socket.create_connection((self.address, self.port), 1) as greeting:
                    if greeting.recv(4) == b"SSH-":
                        break
            except OSError:
                pass
            if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                said = (self.home / "log").read_text(encoding="utf-8", errors="replace")[-500:]
                self.kill()
                raise RuntimeError(f"{self.name} does not answer: {said}")
            time.sleep(0.02)
        where = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        public = (self.folder / "sshd" / "host_key.pub").read_text(encoding="ascii").split()
        with open(self.lab.folder / "known_hosts", "a", encoding="ascii") as file:
            file.write(f"{where} {public[0]} {public[1]}\n")
        return self

    def boot(self) -> None:
        settings = SSHD.format(address=self.address, port=self.port, home=self.root)
        settings += f"SetEnv HOME={self.root}/home TMPDIR={self.root}/tmp MEMOPS_LAB_HOST={self.home}\n"
        self._spawn([find("sshd"), "-D", "-e", "-f", self._config(settings)])

    def _config(self, settings: str) -> str:
        (self.folder / "sshd" / "config").write_text(settings, encoding="utf-8")
        return str(self.folder / "sshd" / "config")

    def _spawn(self, command: list[str], **pipes: t.Any) -> subprocess.Popen[bytes]:
        # Not one of these may outlive the tests, even when they are killed.
        dying = [find("setpriv"), "--pdeathsig", "KILL", "--"] if shutil.which("setpriv", path=SEARCH) else []
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*dying, *command], **{"stdin": subprocess.DEVNULL, "stdout": log, **pipes}, stderr=log,
                cwd="/", env={"PATH": SEARCH, "LC_ALL": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        return self.process

    def processes(self) -> dict[int, str]:
        """Process id -> name of everything that runs on this host."""
        names, parents, found = {}, {}, set()
        for entry in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    names[entry], rest = file.read().split("(", 1)[1].rsplit(")", 1)
                parents[entry] = int(rest.split()[1])
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if f"MEMOPS_LAB_HOST={self.home}".encode() in file.read().split(b"\0"):
                        found.add(entry)
        if self.process:
            found.add(self.process.pid)
        for pid in names:
            line = [pid]
            while parents.get(line[-1], 0) > 1 and not set(line) & found:
                line.append(parents[line[-1]])
            if set(line) & found:
                found.add(pid)
        return {pid: names[pid] for pid in found if pid in names}

    def signal(self, number: int, servers: bool) -> None:
        """Signal the host's sshd processes, or all the others."""
        for pid, name in self.processes().items():
            if name.startswith("sshd") is servers and name not in ("unshare", "setpriv"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def freeze(self) -> None:
        """Stop what works on the host, and wait until it stands; its sshd goes on."""
        self.signal(signal.SIGSTOP, servers=False)
        for pid, name in self.processes().items():
            while not name.startswith(("sshd", "unshare", "setpriv")) and os.path.exists(f"/proc/{pid}"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    if file.read().rpartition(")")[2].split()[0] in "TZ":
                        break
                time.sleep(0.005)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT, servers=False)

    def cut(self) -> None:
        """Nobody reaches the host any more; what works there goes on."""
        self.signal(signal.SIGSTOP, servers=True)

    def heal(self) -> None:
        self.signal(signal.SIGCONT, servers=True)

    def kill(self) -> None:
        """The power goes: the first process takes all others with it, so that none has a last word."""
        for pid in sorted(self.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
            self.process = None

    def run(self, *command: str, check: bool = True, **settings: t.Any) -> subprocess.CompletedProcess[str]:
        """A shell command on the host, as who connects."""
        user = self.variables.get("ansible_user", getpass.getuser())
        options = self.variables["ansible_ssh_common_args"].split()
        line = ["-p", str(self.port), "-i", str(self.lab.folder / "key"), *options, f"{user}@{self.address}", *command]
        settings = {"capture_output": True, "text": True, "timeout": 300, **settings}
        done = subprocess.run([find("ssh"), *line], check=False, **settings)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)} exited with {done.returncode}: {done.stderr[-500:]}")
        return done


class NamespaceHost(Host):
    """A host with its own network address, processes and file system; /srv is what it keeps."""

    sudo = True
    script = BOOT
    spaces: tuple[str, ...] = ("--mount", "--uts", "--ipc", "--pid", "--net")

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.root = "/srv"
        self.address, self.port = f"{lab.network}.{10 + number}", 22
        self.first = 0  # the process above all others there, as this machine counts
        self.link = f"{lab.bridge}{number}"
        (self.home / "root").mkdir()

    @property
    def variables(self) -> dict[str, t.Any]:
        return {**super().variables, "ansible_user": LOGIN}

    def boot(self) -> None:
        self._config(SSHD.format(address=self.address, port=self.port, home=self.root))
        arguments = [str(self.home), self.name, self.address, find("sshd"), str(self.lab.opt or "")]
        command = [*self._unshare(), "sh", "-c", self.script, "sh", *arguments]
        process = self._spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        if process.stdout.readline() != b"up\n":
            raise OSError(f"{self.name} has no namespaces")
        # The same hardware address at each start, or who talked to the host before would miss it for a while.
        card = ["name", "eth0", "address", f"02:00:00:00:77:{self.number:02x}", "netns", str(process.pid)]
        _ip("link", "add", self.link, "type", "veth", "peer", *card)
        _ip("link", "set", self.link, "master", self.lab.bridge, "up")
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            self.first = int(file.read().split()[0])
        process.stdin.write(b"connected\n")
        process.stdin.close()

    def _unshare(self) -> list[str]:
        return [find("unshare"), *self.spaces, "--fork", "--kill-child=KILL"]

    def processes(self) -> dict[int, str]:
        found = {self.process.pid: "unshare"} if self.process else {}
        with contextlib.suppress(OSError):
            here = os.readlink(f"/proc/{self.first}/ns/pid")
            for entry in map(int, filter(str.isdigit, os.listdir("/proc"))):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/ns/pid") == here:
                        found[entry] = pathlib.Path(f"/proc/{entry}/comm").read_text(encoding="utf-8").rstrip("\n")
        return found

    def inside(self, user: str, *command: str, **settings: t.Any) -> subprocess.Popen[t.Any]:
        """A program on the host as one of its users; it ends with the host."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        identity = [f"--reuid={USERS[user]}", f"--regid={USERS[user]}", "--clear-groups", "--"]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
        settings = {"stdin": subprocess.DEVNULL, "env": environment, "cwd": "/", "start_new_session": True, **settings}
        line = [find("nsenter"), f"--target={self.first}", *spaces, find("setpriv"), *identity, *command]
        return subprocess.Popen(line, **settings)

    def kill(self) -> None:
        super().kill()
        with contextlib.suppress(OSError):  # it goes with the host, but not at once
            _ip("link", "del", self.link)

    def cut(self) -> None:
        _ip("link", "set", self.link, "down")

    def heal(self) -> None:
        _ip("link", "set", self.link, "up")


class Lab:
    """``address`` is where the hosts reach this machine."""

    def __init__(
        self, names: t.Sequence[str] = ("h1", "h2", "h3"), *, real: bool = False, folder: str = "", opt: bool = False,
        kinds: t.Mapping[str, type[Host]] | None = None,
    ) -> None:  # fmt: skip
        """``real``: no hosts rather than such that share this machine's network. ``folder``: where the lab keeps its
        files. ``opt``: all hosts have one /opt, which outlives them. ``kinds``: of hosts that are others than most."""
        self.kinds = kinds or {}
        self.names, self.real = names, real
        self.folder, self.opt = pathlib.Path(folder), pathlib.Path() if opt else None
        self.sockets = pathlib.Path()
        self.bridge, self.network, self.address = "", "", "127.0.0.1"
        self.hosts: dict[str, Host] = {}

    @property
    def isolated(self) -> bool:
        """Whether the hosts have addresses, users and file systems of their own."""
        return bool(self.bridge)

    def start(self) -> Lab:
        if self.real and (os.geteuid() != 0 or os.environ.get("MEMOPS_LAB", "namespaces") != "namespaces"):
            raise Missing(
                "The lab needs root, to give each host a network and a file system of its own. Next: run it as root."
            )
        machine.install({**PROGRAMS, **(ROOT_PROGRAMS if os.geteuid() == 0 else {})})
        machine.sweep()
        if os.geteuid() == 0 and os.environ.get("MEMOPS_LAB", "namespaces") == "namespaces":
            try:
                return self._start(NamespaceHost)
            except (OSError, RuntimeError) as error:
                self.stop()
                why = str(error).strip()[-300:]
            if self.real:
                raise Missing(f"This machine gives root no namespaces: {why}. Next: run the lab on another.")
            print(f"This machine gives no namespaces, so the hosts are processes: {why}")
        return self._start(Host)

    def _start(self, kind: type[Host]) -> Lab:
        if self.folder.name:
            self.folder.mkdir(parents=True)
        else:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memops-lab-"))
        machine.mark(self.folder)
        # Of its own, since the path of a socket has 107 bytes at most, and a checkout may lie deep.
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="memops-lab-"))
        machine.mark(self.sockets)
        if self.opt is not None:
            self.opt = self.folder / "opt"
            self.opt.mkdir(mode=0o755)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key"))
        if kind is NamespaceHost:
            self._connect()
        elif os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        try:
            for number, name in enumerate(self.names, 1):
                self.hosts[name] = self.kinds.get(name, kind)(self, name, number)
                self.hosts[name].boot()
            for host in self.hosts.values():
                host.answering()
        except BaseException:
            self.stop()
            raise
        return self

    def _connect(self) -> None:
        """A bridge for the hosts in a network that nothing here uses yet."""
        with machine.alone():
            used = _ip("-o", "addr") + _ip("-o", "link") + _ip("route")
            self.network = next(n for n in (f"10.{a}.77" for a in range(213, 250)) if f" {n}." not in used)
            names = (f"{machine.BRIDGE}{os.getpid()}{letter}" for letter in "abcdefgh")
            self.address, self.bridge = f"{self.network}.1", next(n for n in names if f" {n}:" not in used)
            _ip("link", "add", self.bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")

    def stop(self) -> None:
        for host in self.hosts.values():
            host.kill()
        self.hosts = {}
        if self.bridge:
            subprocess.run([find("ip"), "link", "del", self.bridge], capture_output=True, check=False)
            self.bridge, self.address = "", "127.0.0.1"
        for folder in (self.sockets, self.folder):
            if folder.name:
                machine.remove(folder)

    def __enter__(self) -> Lab:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
