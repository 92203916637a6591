# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Recompute the checksum of every row that passes, and count: for snapshots, their verification and restores.

PRIVATE to the collection.
"""

from __future__ import annotations

import hashlib
import typing as t

from .._codec import HEAD, namespace_prefix
from .._errors import KeyUnavailable
from .._model import Row, is_isolated
from .._repository.chunks import ChunkRef, NamespaceDigest

EXAMPLES = 20  # damaged keys that a result names


class Tally:
    """What one range came to."""

    def __init__(self) -> None:
        self.entries: list[list[t.Any]] = []  # ChunkRef fields but the snapshot
        self.origins: list[str] = []
        self.rows = self.tombstones = self.isolated = self.damaged = self.unopenable = self.overwritten = 0
        self.total = 0  # of the NamespaceDigest
        self.examples: list[str] = []
        self.key_ids: set[str] = set()
        self.holes: list[tuple[str | None, str | None]] = []
        self.sent = self.referenced = 0  # plain bytes
        self.last_id = 0  # of log entries

    def append(self, other: Tally) -> None:
        """Add what the next range of the same log came to."""
        self.entries += other.entries
        self.origins += other.origins
        self.holes += other.holes
        self.rows += other.rows
        self.sent += other.sent
        self.referenced += other.referenced
        self.last_id = max(self.last_id, other.last_id)

    def chunks(self) -> list[ChunkRef]:
        return [ChunkRef(origin, *entry) for origin, entry in zip(self.origins, self.entries)]


class Checker:
    """Recomputes checksums and counts, a batch at a time, into a tally."""

    def __init__(
        self,
        namespace: str,
        tally: Tally,
        before: tuple[int, int, int] | None = None,
        keyring: t.Any = None,
    ) -> None:
        self._prefix = namespace_prefix(namespace)
        self._length = len(namespace.encode())
        self._before = before
        self._keyring = keyring
        self._names: dict[t.Any, bytes] = {}  # record key id → its UTF-8
        self._openers: dict[str, t.Any] = {}
        self._closed: tuple[type[Exception], ...] = ()  # what opening raises
        self._tally = tally
        self.bad: list[int] = []  # positions of the damaged rows of the newest batch

    def __call__(self, rows: t.Sequence[Row]) -> None:
        tally = self._tally
        damaged: list[int] = []
        pack, prefix, length, sha256 = HEAD.pack, self._prefix, self._length, hashlib.sha256
        names, keyring, openers = self._names, self._keyring, self._openers
        for position, (
            key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum
        ) in enumerate(rows):  # fmt: skip
            try:
                text = key.encode()
                name = names.get(key_id)
                if name is None:
                    name = names[key_id] = key_id.encode()
                head = pack(
                    length, len(text), len(name), epoch, sequence, created, updated,
                    -1 if expires is None else expires if expires != -1 else None,
                    -1 if deleted is None else deleted if deleted != -1 else None,
                )  # fmt: skip
                if keyring is None:
                    if sha256(b"".join((head, prefix, text, name, payload))).digest() != checksum:
                        damaged.append(position)
                    continue
                head = b"".join((head, prefix, text, name))
                if sha256(head + payload).digest() != checksum:
                    damaged.append(position)
                    continue
            except Exception:  # fields of a wrong type: damaged, and never in the way
                damaged.append(position)
                continue
            opener = openers.get(key_id) or self._opener(key_id)
            try:
                opener(payload[:12], payload[12:], head)
            except self._closed:
                tally.unopenable += 1
        self.bad = damaged
        good: t.Sequence[Row] = rows
        if damaged:
            tally.damaged += len(damaged)
            room = EXAMPLES - len(tally.examples)
            tally.examples += [str(rows[position][0]) for position in damaged[:room]]
            bad = set(damaged)
            good = [row for position, row in enumerate(rows) if position not in bad]
        digest = NamespaceDigest()
        digest.add(rows, set(damaged))
        tally.rows += len(rows)
        tally.total += digest.total
        graves = len(good) - [row[6] for row in good].count(None)
        if graves:
            tally.tombstones += graves
            tally.isolated += sum(map(is_isolated, good))
        tally.key_ids.update({row[7] for row in good})
        if self._before is not None:
            epoch, sequence, at = self._before
            new = [row for row in good if row[2] > sequence or row[1] != epoch]
            tally.overwritten += sum([row[3] <= at and (row[1], row[2]) > (epoch, sequence) for row in new])

    def _opener(self, key_id: str) -> t.Any:
        from cryptography.exceptions import InvalidTag

        self._closed = (InvalidTag, ValueError)
        try:
            opener = self._keyring.cipher(key_id).decrypt
        except KeyUnavailable:
            opener = _missing
        self._openers[key_id] = opener
        return opener


def _missing(*_what: bytes) -> bytes:
    raise ValueError
