# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The buffer between reads and the access log: bounded in age and size, and never a reason for a read to fail.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import logging
import threading
import time
import typing as t

from ._errors import MemoryOpsError

LOG = logging.getLogger("memops.agent_memory")
Entry = t.Tuple[t.Any, ...]
Append = t.Callable[[t.Dict[str, t.Any], t.List[Entry]], None]
HELD = 20  # so many times ``size`` entries are kept while a store takes none; then the oldest are dropped
KEY_CHARACTERS = 1 << 20  # keys may be long: so much text of keys makes a flush due, HELD times it is kept


class ReadLog:
    """Entries per store. Safe for threads."""

    def __init__(self, seconds: float, size: int) -> None:
        self.dropped = 0
        self._seconds, self._size = max(0.0, float(seconds)), max(1, int(size))
        self._lock = threading.Lock()
        self._entries: list[tuple[dict[str, t.Any], Entry]] = []
        self._characters = 0
        self._since = 0.0  # monotonic time of the oldest entry
        self._not_before = 0.0  # after a failure: no new try before

    def add(self, params: dict[str, t.Any], entry: Entry) -> None:
        with self._lock:
            if not self._entries:
                self._since = time.monotonic()
            self._entries.append((params, entry))
            self._characters += _length(entry)
            self._bound()

    def due(self) -> bool:
        """Whether the next flush should come now."""
        if not self._entries:
            return False
        now = time.monotonic()
        return now >= self._not_before and (
            len(self._entries) >= self._size or self._characters >= KEY_CHARACTERS or now - self._since >= self._seconds
        )

    def flush(self, append: Append) -> int:
        """Hand everything to ``append``, store by store; how many were taken. Never raises MemoryOpsError."""
        with self._lock:
            entries, self._entries, self._characters = self._entries, [], 0
        groups: dict[str, tuple[dict[str, t.Any], list[Entry]]] = {}
        for params, entry in entries:
            groups.setdefault(json.dumps(params, sort_keys=True, default=str), (params, []))[1].append(entry)
        taken = 0
        for params, group in groups.values():
            try:
                append(params, group)
                taken += len(group)
            except MemoryOpsError as exc:
                LOG.warning("%d read entries wait for the access log: %s", len(group), exc.message)
                with self._lock:
                    self._entries[:0] = [(params, entry) for entry in group]
                    self._characters += sum(map(_length, group))
                    self._since = time.monotonic()
                    self._not_before = self._since + max(1.0, self._seconds)
                    self._bound()
        return taken

    def give_up(self) -> None:
        """Drop what no store took."""
        with self._lock:
            self.dropped += len(self._entries)
            self._entries, self._characters = [], 0

    def after_fork(self) -> None:
        """In the child: the parent writes what it has buffered."""
        self._lock = threading.Lock()
        self._entries, self._characters = [], 0

    def _bound(self) -> None:
        excess = len(self._entries) - self._size * HELD
        while excess > 0 or self._characters > KEY_CHARACTERS * HELD:
            self._characters -= _length(self._entries.pop(0)[1])
            self.dropped += 1
            excess -= 1


def _length(entry: Entry) -> int:
    return len(entry[4] or "")
