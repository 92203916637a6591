# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How far a long step is, for who waits for it on the controller: numbers in a small file on the memory host.

PRIVATE to the collection. Each process of the step has a slot of its own in the file and rewrites it about once a
second, so nobody waits for anybody. A step that is done within ``QUIET`` seconds writes nothing, and so does one that
has no file. The file holds counts alone, no key and no value: whoever connects to the host may read it.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

QUIET = 1.0  # seconds before anything is written
EVERY = 1.0  # seconds between two writes of a process
SLOT = 160  # bytes of one line

Batch = t.TypeVar("Batch", bound=t.Sized)


class _Teller:
    """The state of one process; a forked one goes on with a copy."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.due = time.monotonic() + QUIET
        self.number = 0  # of the phase: a step that reads twice begins anew
        self.phase, self.unit = "", "records"
        self.of: int | None = None
        self.begun = time.monotonic()
        self.done = 0
        self.pid = os.getpid()
        self.slot = -1

    def write(self) -> None:
        now = time.monotonic()
        if self.path is None or now < self.due:
            return
        self.due = now + EVERY
        line = {"n": self.number, "phase": self.phase, "unit": self.unit, "done": self.done, "of": self.of}
        text = json.dumps({**line, "seconds": round(now - self.begun, 1)}, separators=(",", ":"))
        try:
            self._put(text.encode("ascii", "replace").ljust(SLOT - 1)[: SLOT - 1] + b"\n")
        except OSError:
            self.path = None  # nobody's work fails because nobody can see it

    def _put(self, line: bytes) -> None:
        path = t.cast(str, self.path)
        if self.slot >= 0 and self.pid == os.getpid():
            with open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
                os.pwrite(file.fileno(), line, self.slot)
            return
        # Lines that are appended at the same time lie one behind the other: where it ends is this process's slot.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o644), "wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(line)
            self.slot, self.pid = file.tell() - SLOT, os.getpid()


_teller = _Teller(None)


def start(path: str | None) -> None:
    """Tell of this process's work, and of its children's, in ``path``. None: of nothing."""
    global _teller
    _teller = _Teller(path)


def finish() -> None:
    """Take the file away."""
    if _teller.path is not None:
        try:
            os.unlink(_teller.path)
        except OSError:
            pass  # it was over before anything was written


def begin(phase: str, of: int | None = None, unit: str = "records") -> None:
    """A part of the step begins; call it before its workers are forked. ``of``: how much there is, if that is known."""
    _teller.number += 1
    _teller.phase, _teller.unit, _teller.of = phase, unit, of
    _teller.done, _teller.begun = 0, time.monotonic()


def add(count: int) -> None:
    """So much more of this part is done, in this process."""
    _teller.done += count
    _teller.write()


def tell(done: int) -> None:
    """So much of this part is done in this process by now."""
    _teller.done = done
    _teller.write()


def counted(batches: t.Iterable[Batch]) -> t.Iterator[Batch]:
    """The same batches; each counts when the next one is asked for."""
    for batch in batches:
        yield batch
        add(len(batch))
