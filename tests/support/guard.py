# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a test server that never outlives its test run: as soon as standard input ends (however the run ended), the
server is stopped and its folder removed. Standard library only.

    python guard.py FOLDER USER COMMAND [ARGUMENT …]      (USER "" is this one)
"""
from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t


class Guarded:
    """One server in a temporary folder of its own, started through the guard."""

    def __init__(self, name: str) -> None:
        self.directory = tempfile.mkdtemp(prefix=f"memops-{name}-")
        self.log = os.path.join(self.directory, "log")
        self._guard: subprocess.Popen[bytes] | None = None
        self._former: list[subprocess.Popen[bytes]] = []  # of servers that were killed; they keep the folder

    def run(self, command: t.Sequence[str], user: str = "") -> None:
        if self._guard is not None:
            self._former.append(self._guard)
        with open(self.log, "ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), self.directory, user, *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process above all of the server's."""
        if self._guard is None:
            raise RuntimeError("The server was not started")
        return self._guard.pid

    def ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def said(self) -> str:
        """The end of the server's log."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-1000:]

    def wait_until(self, answers: t.Callable[[], bool], what: str, timeout: float) -> None:
        """Returns when it answers. Errors: AssertionError with the end of its log."""
        ends = time.monotonic() + timeout
        while not answers():
            if self.ended() or time.monotonic() > ends:
                raise AssertionError(f"{what} did not start: {self.said()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Nothing of the server is left afterwards."""
        guards = [guard for guard in (self._guard, *self._former) if guard is not None]
        self._guard, self._former = None, []
        for guard in guards:  # the present server ends first
            if guard.stdin is not None:
                guard.stdin.close()
            guard.wait(300)
        if not guards:
            shutil.rmtree(self.directory, ignore_errors=True)

    def child(self) -> int:
        """The process id of the server that runs now."""
        guard = 0 if self._guard is None else self._guard.pid
        with open(f"/proc/{guard}/task/{guard}/children", encoding="ascii") as file:
            return int(file.read().split()[0])


def listens(port: int) -> bool:
    """Whether somebody takes connections on this port of the machine."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def kill(pid: int) -> None:
    """SIGKILL to a process and then to all its children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        family = [pid, *map(int, file.read().split())]
    for one in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def identity(user: str) -> dict[str, t.Any]:
    """What makes ``subprocess`` start a program as this user."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": ()} if user else {}


def main(directory: str, user: str, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would the server
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, **identity(user))

    def watch() -> None:
        sys.stdin.buffer.read()
        server.send_signal(signal.SIGINT)  # both servers end at once, whoever is connected
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()

    watching = threading.Thread(target=watch)
    watching.start()
    code = server.wait()
    watching.join()  # a server that ended by itself leaves its log to be read
    shutil.rmtree(directory, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
