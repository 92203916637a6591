# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What every decision of a plan rests on: the windows of the damage, the log, the keys.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t
from types import MappingProxyType

from .._codec import RecordCodec
from .._errors import KeyUnavailable, RecordCorrupt
from .._model import CHECKSUM, EPOCH, KEY, KEY_ID, PAYLOAD, SEQUENCE, LastWrite, Row, Window, is_isolated
from .acknowledged import Acknowledged
from .plan_copies import unexplained
from .plan_gap import Base, Gap

Version = t.Tuple[int, int]


class Opener(t.Protocol):
    def open_payload(self, payload: bytes, head: bytes, key_id: str) -> bytes: ...

    def created(self, key_id: str) -> int | None: ...


class Evidence:
    """What the diagnosis knows and every decision needs."""

    def __init__(
        self,
        namespace: str,
        windows: t.Sequence[Window],
        keyring: Opener | None,
        *,
        log_intact: bool,
        rotated_to: t.Mapping[str, Version] = MappingProxyType({}),
        now: int,
        acknowledged: Acknowledged | None = None,
        settled: Version | None = None,
        held: frozenset[str] = frozenset(),
        gap: Gap | None = None,
    ) -> None:
        """``rotated_to``: as of Review. ``settled``: the version up to which a closed incident judged the writes and
        the newest snapshot, taken later, says what came of them. ``held``: the groups of isolated records that are not
        back. ``gap``: of what time neither the log nor the sources tell."""
        self.codec = RecordCodec(namespace)
        self.windows = windows
        self.keyring = keyring
        self.log_intact = log_intact
        self.rotated_to = rotated_to
        self.now = now
        self.acknowledged = acknowledged or Acknowledged()
        self.settled = settled
        self.held = held
        self.gap = gap or Gap(Base([]), (0, 0))
        self.logged_from: Version | None = None  # set by make()

    def distrusted(self, key: str, version: Version, write: LastWrite | None) -> str | None:
        """The cause of the window that covers this version, if one does."""
        for window in self.windows:
            if not window.covers(version[0], version[1], None, window.actor):
                continue  # most versions lie outside, and their entry need not be looked up
            known = self.acknowledged.entry(key, version, write)
            # a version without an entry that can be believed cannot prove which actor wrote it
            if window.covers(version[0], version[1], known.lock if known else None, window.actor):
                return window.cause
        return None

    def good(self, row: Row, write: LastWrite | None) -> bool:
        """Whether a row of a source may be served again: intact, opens, as the log has it, and no window covers it."""
        if not self.codec.intact(row) or self.distrusted(row[KEY], (row[EPOCH], row[SEQUENCE]), write):
            return False
        if self.keyring is None or self.rewritten(row, write):
            return False
        try:
            self.keyring.open_payload(row[PAYLOAD], self.codec.head(row), row[KEY_ID])
        except (RecordCorrupt, KeyUnavailable):
            return False
        return True

    def rewritten(self, row: Row, write: LastWrite | None) -> bool:
        """Whether the log has another checksum for this very version, and no rotation explains that: the row was
        changed under its own version. A key that came after the write tells of a rotation, too."""
        version = (row[EPOCH], row[SEQUENCE])
        entry = self.acknowledged.entry(row[KEY], version, write)
        if entry is None or entry.digest == row[CHECKSUM] or self.keyring is None or is_isolated(row):
            return False
        created, rotated = self.keyring.created(row[KEY_ID]), self.rotated_to.get(row[KEY_ID])
        return created is not None and created <= entry.at and (rotated is None or version > rotated)

    def unexplained(self, row: Row, write: LastWrite | None) -> bool:
        """Whether a log that should have this version's entry lacks it."""
        return unexplained((row[EPOCH], row[SEQUENCE]), write, self.logged_from)
