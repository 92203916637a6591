# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make lab`, `make lab-do` and `make lab-down`: the clusters of memory_lab.py in .lab/, kept up by one process.

    lab.py up                            brings it up and says how to use it
    lab.py down                          removes all of it, also what a killed one left
    lab.py do VERB HOST                  cut | heal | kill | start | damage: what happens to a host
    lab.py do look HOST                  does its application find what it wrote
"""
from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import traceback

import machine
from memory_lab import MemoryLab
from ssh_hosts import Missing

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".lab"
READY = FOLDER / "ready"
SOCKET = pathlib.Path(".lab", "socket")  # from the checkout: the path of a socket has 107 bytes at most
WHY, LOG = ROOT / ".ansible" / "lab.why", ROOT / ".ansible" / "lab.log"
NAMESPACES, MEMORIES = ("agent-7", "agent-8"), 200


class Refused(Exception):
    """The sentence that a person gets."""


def up() -> None:
    if machine.owned(FOLDER):
        raise Refused("The lab is up already. Next: make lab-down, then make lab.")
    down()
    LOG.parent.mkdir(exist_ok=True)
    WHY.unlink(missing_ok=True)
    print("Bringing the lab up: eight hosts, two PostgreSQL and two Valkey stores, three Sentinels, S3 …", flush=True)
    print("(a minute or two; the first time some more, for the hosts' packages)", flush=True)
    with open(LOG, "wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, __file__, "keep"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
    while not READY.exists():
        if keeper.poll() is not None:
            why = WHY.read_text(encoding="utf-8") if WHY.exists() else f"The lab did not come up. Next: read {LOG}."
            raise Refused(why)
        time.sleep(0.1)
    print(READY.read_text(encoding="utf-8"))


def keep() -> int:
    """The process above all others of the lab."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        with MemoryLab(folder=str(FOLDER), memory_monitor_seconds=10, memory_monitor_interval="2") as lab:
            for namespace in NAMESPACES:
                lab.fill_all(namespace, MEMORIES)
                lab.read(namespace, 150)
            with lab.working(*NAMESPACES):
                threading.Thread(target=listen, args=(lab,), daemon=True).start()
                READY.write_text(how(lab), encoding="utf-8")
                ended.wait()
    except Missing as why:
        WHY.write_text(str(why), encoding="utf-8")
        return 1
    except Exception as error:
        traceback.print_exc()
        said = str(error).strip().splitlines() or [repr(error)]
        why = next((line for line in said if "fatal:" in line), said[-1])[:300]
        WHY.write_text(f"The lab did not come up: {why}. Next: read {LOG}.", encoding="utf-8")
        return 1
    return 0


def how(lab: MemoryLab) -> str:
    inventory, play = lab.inventory, ".venv/test/bin/ansible-playbook"
    words = f"{play} -i {inventory}"
    return f"""\
The lab is up. Its inventory is {inventory}; groups: {", ".join(lab.engines)}.
An application reads agent-7 and agent-8 of each all the time.

  export ANSIBLE_COLLECTIONS_PATH={ROOT}/.ansible/collections
  {words} memops.agent_memory.backup
  make lab-do WHAT="damage postgresql-1"
  {words} memops.agent_memory.rebuild -e memory_namespace=agent-7
  {words} memops.agent_memory.rebuild -e memory_namespace=agent-7 --limit valkey
  make lab-do WHAT="cut valkey-1"        (heal, kill, start; in the middle of a playbook, from another terminal)
  ssh -i {lab.lab.folder}/key -o UserKnownHostsFile={lab.lab.folder}/known_hosts deploy@{lab.primary("sqlite").address}

docs/lab.md says more. It ends with: make lab-down"""


def listen(lab: MemoryLab) -> None:
    """Do to hosts what ``do`` asks for; an answer is one line, empty when it was done."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            said = self.rfile.readline().decode().strip().partition(" ")
            verb, name = said[0], said[2]
            try:
                done = change(lab, verb, name)
            except Exception as error:
                done = f"{name}: {verb} failed: {str(error).strip()[-300:]}"
            self.wfile.write(done.replace("\n", " ").encode())

    SOCKET.unlink(missing_ok=True)
    with socketserver.UnixStreamServer(str(SOCKET), Handler) as server:
        SOCKET.chmod(0o600)
        server.serve_forever()


def change(lab: MemoryLab, verb: str, name: str) -> str:
    if not name:
        return 'It is not said what is to happen to which host. Next: make lab-do WHAT="cut valkey-1".'
    if name not in lab.lab.hosts:
        return f"There is no host {name}. Next: choose from {', '.join(lab.lab.hosts)}."
    host, engine = lab.host(name), name.partition("-")[0]
    if verb == "damage":
        if not name.endswith("-1"):
            return f"Only the stores of the primaries are damaged. Next: damage {engine}-1."
        lab.flip_all("agent-7", [f"key-{number:05}" for number in range(3, 9)], [engine])
        lab.own(engine)
    elif verb == "look":
        return look(lab, engine)
    elif verb in ("cut", "heal"):
        getattr(host, verb)()
    elif verb == "kill":
        host.kill()
    elif verb == "start":
        if host.process:
            return f"{name} runs. Next: kill {name}."
        lab.boot(name)
    else:
        return f"Nobody knows what {verb or 'nothing'} is. Next: cut, heal, kill, start, damage or look."
    return ""


def look(lab: MemoryLab, engine: str) -> str:
    """What its application does not find as it wrote it; "" when all is there."""
    wrong = []
    with lab.application(engine) as memory:
        for namespace in NAMESPACES:
            for key, value in lab.memories(namespace, MEMORIES).items():
                try:
                    found = memory.read(namespace, key)
                except MemoryOpsError as error:
                    found = error
                if found != value:
                    wrong.append(f"{namespace} {key}: {found!s:.100}")
    return f"{len(wrong)} memories are not what was written, such as {wrong[0]}" if wrong else ""


def do(words: list[str]) -> None:
    if not machine.owned(FOLDER):
        raise Refused("The lab is not up. Next: make lab.")
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(SOCKET))
        link.sendall((" ".join(words) + "\n").encode())
        link.shutdown(socket.SHUT_WR)
        said = link.makefile(encoding="utf-8").read()
    if said:
        raise Refused(said)


def down() -> None:
    """Nothing of the lab is left, whatever became of who kept it."""
    with contextlib.suppress(OSError, ValueError):
        if machine.owned(FOLDER):
            keeper = int((FOLDER / "owner").read_text(encoding="ascii").split()[0])
            began = machine.born(keeper)
            os.kill(keeper, signal.SIGTERM)
            deadline = time.monotonic() + 300
            while machine.born(keeper) == began:
                if time.monotonic() > deadline:
                    os.kill(keeper, signal.SIGKILL)
                time.sleep(0.05)
    if FOLDER.exists():
        machine.remove(FOLDER)
    if os.geteuid() == 0:
        machine.sweep()


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    try:
        if arguments == ["up"]:
            up()
        elif arguments == ["down"]:
            down()
        elif arguments == ["keep"]:
            return keep()
        elif arguments[:1] == ["do"]:
            do(arguments[1:])
        else:
            raise Refused("Nobody knows what that is. Next: up, down, or do VERB HOST.")
    except (Refused, Missing) as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
