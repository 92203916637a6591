# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with an sshd of their own on this machine, and the faults of real ones. Standard library only.

    with Lab(count=3) as lab:
        lab.hosts["h1"].variables        # what an inventory needs to reach it
        lab.hosts["h1"].cut()            # nobody reaches it any more, and it goes on working

Root with the right to make namespaces gets hosts with addresses, processes and file systems of their own. Anybody else
gets one sshd per host on a loopback port, with a HOME and folders of its own. MEMOPS_LAB=processes chooses the latter.
Either way a host keeps what lies in ``folder`` (``Host.root`` there) and loses the rest when it is killed.
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

from s3_server import free_ports

PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
ROOT_PROGRAMS = {"sudo": "sudo", "ip": "iproute2"}
SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
# How a controller finds out within seconds that a host is gone, in place of waiting for ever.
ALIVE = "-o ConnectTimeout=2 -o ServerAliveInterval=1 -o ServerAliveCountMax=2"
LOGIN, OWNER = "deploy", "agents"  # who connects, and whose the memory is, where a host has users of its own

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
# The root of a host: this machine's files below, a tmpfs for what it changes, /srv to keep.
BOOT = r"""
set -eu
home=$1 name=$2 address=$3
echo up
read -r connected
mount -t tmpfs -o mode=755 memops "$home/root"
mkdir "$home/root/upper" "$home/root/work" "$home/root/top"
mount -t overlay overlay -o "lowerdir=/,upperdir=$home/root/upper,workdir=$home/root/work" "$home/root/top"
cd "$home/root/top"
mkdir -p srv run tmp dev proc sys
mount --bind "$home/srv" srv
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mkdir dev/pts dev/shm .before
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
hostname "$name"
pivot_root . .before
umount -l /.before
cd /
mkdir -p /run/sshd /etc/sudoers.d
for user in LOGIN:4701 OWNER:4702; do
    echo "${user%%:*}:x:${user##*:}:${user##*:}::/srv/home/${user%%:*}:/bin/sh" >>/etc/passwd
    echo "${user%%:*}:x:${user##*:}:" >>/etc/group
    echo "${user%%:*}:*:19000:0:99999:7:::" >>/etc/shadow
    mkdir -p -m 700 "/srv/home/${user%%:*}"
    chown "${user##*:}:${user##*:}" "/srv/home/${user%%:*}"
done
echo "$address $name" >>/etc/hosts
echo "LOGIN ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/lab
sed -i 's/^root:!/root:*/' /etc/shadow
exec "$4" -D -e -f /srv/sshd/config
""".replace("LOGIN", LOGIN).replace("OWNER", OWNER)  # fmt: skip


class Missing(Exception):
    """A program that a host needs is not here, and cannot be installed by this user."""


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
            "ansible_control_path_dir": str(self.lab.folder / "cp"),
            "ansible_pipelining": True,
        }

    def start(self) -> Host:
        self._boot()
        deadline = time.monotonic() + 20
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

    def _boot(self) -> None:
        settings = SSHD.format(address=self.address, port=self.port, home=self.root)
        settings += f"SetEnv HOME={self.root}/home TMPDIR={self.root}/tmp MEMOPS_LAB_HOST={self.home}\n"
        self._spawn([_find("sshd"), "-D", "-e", "-f", self._config(settings)])

    def _config(self, settings: str) -> str:
        (self.folder / "sshd" / "config").write_text(settings, encoding="utf-8")
        return str(self.folder / "sshd" / "config")

    def _spawn(self, command: list[str], **pipes: t.Any) -> subprocess.Popen[bytes]:
        # Not one of these may outlive the tests, even when they are killed.
        dying = [_find("setpriv"), "--pdeathsig", "KILL", "--"] if shutil.which("setpriv", path=SEARCH) else []
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
            if (name == "sshd") is servers and name not in ("unshare", "setpriv"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def freeze(self) -> None:
        """Stop what works on the host, and wait until it stands; its sshd goes on."""
        self.signal(signal.SIGSTOP, servers=False)
        for pid, name in self.processes().items():
            while name not in ("sshd", "unshare", "setpriv") and os.path.exists(f"/proc/{pid}"):
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
        """The power goes."""
        for pid in sorted(self.processes(), reverse=True):
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
        settings = {"capture_output": True, "text": True, "timeout": 60, **settings}
        done = subprocess.run([_find("ssh"), *line], check=False, **settings)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)} exited with {done.returncode}: {done.stderr[-500:]}")
        return done


class NamespaceHost(Host):
    """A host with its own network address, processes and file system; /srv is what it keeps."""

    sudo = True

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.root = "/srv"
        self.address, self.port = f"{lab.network}.{10 + number}", 22
        self.link = f"{lab.bridge}{number}"
        (self.home / "root").mkdir()

    @property
    def variables(self) -> dict[str, t.Any]:
        return {**super().variables, "ansible_user": LOGIN}

    def _boot(self) -> None:
        self._config(SSHD.format(address=self.address, port=self.port, home=self.root))
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "--kill-child=KILL"]
        arguments = [str(self.home), self.name, self.address, _find("sshd")]
        process = self._spawn(
            [_find("unshare"), *spaces, "sh", "-c", BOOT, "sh", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin and process.stdout
        if process.stdout.readline() != b"up\n":
            raise OSError(f"{self.name} has no namespaces")
        # The same hardware address at each start, or who talked to the host before would miss it for a while.
        card = ["name", "eth0", "address", f"02:00:00:00:77:{self.number:02x}", "netns", str(process.pid)]
        _ip("link", "add", self.link, "type", "veth", "peer", *card)
        _ip("link", "set", self.link, "master", self.lab.bridge, "up")
        process.stdin.write(b"connected\n")
        process.stdin.close()

    def kill(self) -> None:
        super().kill()
        with contextlib.suppress(OSError):  # it goes with the host, but not at once
            _ip("link", "del", self.link)

    def cut(self) -> None:
        _ip("link", "set", self.link, "down")

    def heal(self) -> None:
        _ip("link", "set", self.link, "up")


class Lab:
    """``count`` hosts, h1 and on. ``address`` is where they reach this machine."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.folder = pathlib.Path()
        self.bridge, self.network, self.address = "", "", "127.0.0.1"
        self.hosts: dict[str, Host] = {}

    @property
    def isolated(self) -> bool:
        """Whether the hosts have addresses, users and file systems of their own."""
        return bool(self.bridge)

    def start(self) -> Lab:
        _install({**PROGRAMS, **(ROOT_PROGRAMS if os.geteuid() == 0 else {})})
        if os.geteuid() == 0 and os.environ.get("MEMOPS_LAB", "namespaces") == "namespaces":
            try:
                return self._start(NamespaceHost)
            except (OSError, RuntimeError) as why:
                self.stop()
                print(f"This machine gives no namespaces, so the hosts are processes: {str(why).strip()[-300:]}")
        return self._start(Host)

    def _start(self, kind: type[Host]) -> Lab:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memops-lab-"))
        (self.folder / "cp").mkdir(mode=0o700)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key"))
        if kind is NamespaceHost:
            self._connect()
        elif os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        try:
            for number in range(1, self.count + 1):
                self.hosts[f"h{number}"] = kind(self, f"h{number}", number).start()
        except BaseException:
            self.stop()
            raise
        return self

    def _connect(self) -> None:
        """A bridge for the hosts in a network that nothing here uses yet."""
        used = _ip("-o", "addr") + _ip("route")
        self.network = next(n for n in (f"10.{a}.77" for a in range(213, 250)) if f" {n}." not in used)
        self.address, self.bridge = f"{self.network}.1", f"mo{os.getpid()}"
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def stop(self) -> None:
        for host in self.hosts.values():
            host.kill()
        self.hosts = {}
        if self.bridge:
            subprocess.run([_find("ip"), "link", "del", self.bridge], capture_output=True, check=False)
            self.bridge, self.address = "", "127.0.0.1"
        if self.folder.name.startswith("memops-lab-"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Lab:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _install(programs: t.Mapping[str, str]) -> None:
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=SEARCH)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"These tests need {', '.join(missing)}. Next: sudo apt install {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0 and command[0] == "install":
            raise Missing(
                f"apt-get cannot install {', '.join(missing)}: {(done.stderr.strip() or done.stdout.strip())[-300:]} "
                "Next: install them by hand."
            )


def _find(program: str) -> str:
    found = shutil.which(program, path=SEARCH)
    if not found:
        raise OSError(f"{program} is missing")
    return found


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([_find(program), *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)
