# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real terminal of a chosen size, by tmux: what a person would see of a command, now and when it has ended."""
from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import time
import typing as t
import uuid

from tests.support.debian import need

DEADLINE = 900.0


class Terminal:
    """One command in a server of tmux that is its own. Use it as a context."""

    def __init__(
        self, command: t.Sequence[str], environment: t.Mapping[str, str], folder: pathlib.Path, columns: int
    ) -> None:
        self._tmux = [need("tmux", "tmux"), "-L", f"memops-{uuid.uuid4().hex[:12]}", "-f", "/dev/null"]
        self._status = folder / f"status-{uuid.uuid4().hex[:8]}"
        script = f"{shlex.join(command)}; echo $? > {self._status}.new; mv {self._status}.new {self._status}; sleep 600"
        clean = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR", "COLUMNS")}
        self._environment = {**clean, **environment}
        size = ["-x", str(columns), "-y", "50", "-c", str(folder)]
        self._run("set-option", "-g", "history-limit", "5000", ";", "new-session", "-d", *size, script)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self, colours: bool = False) -> str:
        """All that was printed and still stands, with the lines that scrolled away; long lines as one."""
        return self._run("capture-pane", "-p", "-J", "-S", "-", *(["-e"] if colours else []))

    def seen(self, text: str) -> str:
        """The screen as soon as it shows ``text``. Errors: AssertionError when the command ends without it."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            ended, screen = self._status.exists(), self.screen()
            if text in screen:
                return screen
            assert not ended, screen
            time.sleep(0.05)
        raise AssertionError(f"{text!r} never came:\n{self.screen()}")

    def status(self) -> int:
        """The exit status, once the command has ended."""
        end = time.monotonic() + DEADLINE
        while not self._status.exists():
            assert time.monotonic() < end, self.screen()
            time.sleep(0.05)
        return int(self._status.read_text())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)
