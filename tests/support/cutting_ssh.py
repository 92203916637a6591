# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh, in whose middle the network of a lab's host goes: `ansible_ssh_executable` of a run that has to bear that.

    cutting_ssh.py PLAN [ssh's arguments]

PLAN is a file with a JSON list of {"address", "words", "link", "pid", "uid", "delay", "power", "done"}: once a module
whose text has all ``words`` works on the host with this address (a Python of ``uid`` in the process space of ``pid``),
then after ``delay`` seconds the ``link`` of a host goes down, and what works there goes on, unheard. With ``power``,
the first process of a host, that is for a second, and at its end this other host's power goes.
The file ``done`` says that it happened, and that it does not happen again. Standard library only.
"""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing as t


def working(cut: dict[str, t.Any]) -> list[int]:
    """The Python processes of the user on the host."""
    found = []
    with contextlib.suppress(OSError):
        here = os.readlink(f"/proc/{cut['pid']}/ns/pid")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if not pathlib.Path(f"/proc/{entry}/comm").read_text(encoding="utf-8").startswith("python"):
                    continue
                if os.stat(f"/proc/{entry}").st_uid == cut["uid"] and os.readlink(f"/proc/{entry}/ns/pid") == here:
                    found.append(int(entry))
    return found


def sever(cut: dict[str, t.Any], before: set[int]) -> None:
    deadline = time.monotonic() + 300
    while not set(working(cut)) - before and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(cut["delay"])
    subprocess.run(["ip", "link", "set", cut["link"], "down"], check=True)
    if cut.get("power"):
        time.sleep(1)
        os.kill(cut["power"], signal.SIGKILL)
        subprocess.run(["ip", "link", "set", cut["link"], "up"], check=True)
    pathlib.Path(cut["done"]).touch()


def main(plan: str, arguments: list[str]) -> int:
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    ssh = str(shutil.which("ssh"))
    cuts = [cut for cut in json.loads(pathlib.Path(plan).read_text()) if not os.path.exists(cut["done"])]
    cuts = [cut for cut in cuts if cut["address"] in arguments]
    if not cuts:
        os.execv(ssh, [ssh, *arguments])
    before = [set(working(cut)) for cut in cuts]
    with subprocess.Popen([ssh, *arguments], stdin=subprocess.PIPE) as process:
        assert process.stdin
        told = sys.stdin.buffer.read()
        due = [pair for pair in zip(cuts, before) if all(word.encode() in told for word in pair[0]["words"])]
        severing = [threading.Thread(target=sever, args=pair) for pair in due[:1]]
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(told)
            process.stdin.close()
        for thread in severing:
            thread.start()
        for thread in severing:
            thread.join()
        return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
