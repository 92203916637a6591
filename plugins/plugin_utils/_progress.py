# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a module is that works on a host, shown while it does.

PRIVATE to the collection. Ansible waits for a module without a word. So the module keeps its numbers in a small file on
its host (module_utils/_progress.py), and a thread beside the wait reads it, over a connection of its own to that host.
"""

from __future__ import annotations

import copy
import json
import threading
import typing as t
import uuid

from ansible.utils.display import Display

from . import _live
from ._report_words import shown, size, span

display = Display()
EVERY = 30.0  # seconds between two lines
ON_TERMINAL = 2.0  # seconds between two looks when only the last line of a terminal changes
LINE = "    {}: {}"


class Watch:
    """Shows how far a module is until ``stop``. A host that does not answer is not asked again."""

    def __init__(self, connection: t.Any, title: str, every: float, expected: t.Optional[int]) -> None:
        self.path = f"/tmp/memops-progress-{uuid.uuid4().hex}"
        self._connection, self._title, self._expected = connection, shown(title, 60), expected
        terminal = _live.on_terminal()
        self._show: t.Callable[[str], None] = _live.show if terminal else display.display
        self._every = min(every, ON_TERMINAL) if terminal else every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(1.0)  # one that waits for a host that is gone is left to itself

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            try:
                lines = self._read()
            except Exception:  # whatever a connection plugin raises: the module is what counts
                return
            told = said(lines, self._expected)
            if told and not self._over.is_set():
                self._show(LINE.format(self._title, told))

    def _read(self) -> t.List[str]:
        if self._connection.transport == "local":
            try:
                with open(self.path, encoding="ascii") as file:
                    return file.read().splitlines()
            except FileNotFoundError:
                return []
        # A copy, as a connection keeps the state of the command that it runs.
        _status, out, _err = copy.copy(self._connection).exec_command(f"cat {self.path}", sudoable=False)
        return out.decode("ascii", "replace").splitlines()


def every(value: t.Any) -> float:
    """memory_progress_seconds as a number; 0 shows nothing."""
    try:
        return max(0.0, float(EVERY if value is None else value))
    except (TypeError, ValueError):
        return EVERY


def said(lines: t.Sequence[str], expected: t.Optional[int] = None) -> str:
    """What the slots of a module's processes say together, "" when they say nothing.

    ``expected``: how many records there are, as an earlier step of the run counted them.
    """
    slots = []
    for line in lines:
        try:
            slots.append(json.loads(line))
        except ValueError:
            continue  # it is being written
    if not slots:
        return ""
    number = max(slot["n"] for slot in slots)
    slots = [slot for slot in slots if slot["n"] == number]
    unit = slots[0]["unit"]
    done = sum(slot["done"] for slot in slots)
    total = max((slot["of"] or 0) for slot in slots)
    about = "" if total else "about "
    if not total and unit == "records":
        total = expected or 0
    show = size if unit == "bytes" else "{:,}".format
    told = f"{slots[0]['phase']}: {show(done)}"
    if total >= done > 0:
        told += f" of {about}{show(total)}"
    told += "" if unit == "bytes" else f" {unit}"
    seconds = max(slot["seconds"] for slot in slots)
    rate = done / seconds if seconds > 0 else 0
    if rate >= 1:
        told += f", {show(int(rate))}/s"
        if total >= done:
            told += f", {span((total - done) / rate)} left"
    return told
