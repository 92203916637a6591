# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Check the rows of one key range: what an integrity scan does in each of its processes.

PRIVATE to the collection.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t

from .. import _progress
from .._codec import HEAD, namespace_prefix, why_unreadable
from .._errors import KeyUnavailable, StoreDamaged
from .._model import Row
from .._store import Reader

RESERVED = "\0memops/"  # keys of the collection's own
FINDING = ("unopenable", "the payload does not open with the record key {:.60}")
LONGEST = 512  # characters of a key that a summary shows

Damage = t.Tuple[t.Optional[str], str, str]  # key (None: a place, not a record), kind, evidence
Bucket = t.List[t.Any]  # first key, last key, rows, damaged
Send = t.Callable[[str, t.Any], None]


class Range(t.NamedTuple):
    namespace: str
    generation: int
    after: str | None
    until: str | None
    now: int
    buckets: int


def check_range(reader: Reader, job: Range, ring: t.Any, send: Send) -> list[Bucket]:
    """Check the rows of one range; around what cannot be read, from the other end. Returns its buckets."""
    checker = Checker(job, ring, send)
    end = job.until
    reached = job.after
    try:
        for batch in _progress.counted(
            reader.scan(job.namespace, after=job.after, until=job.until, generation=job.generation)
        ):
            checker.check(batch)
            reached = batch[-1][0]
        checker.flush()
        return checker.buckets
    except StoreDamaged as exc:
        reason = exc.message
    back = Checker(job, ring, send)
    low: str | None = None
    scanning = reader.scan(
        job.namespace, after=reached, until=job.until, generation=job.generation, descending=True, batch=200
    )
    try:
        for batch in scanning:
            back.check(batch[::-1])
            low = batch[-1][0]
    except StoreDamaged:
        pass
    gap = _salvage(reader, job, reached, low or end, low is not None, checker)
    where = f"rows after {shown(reached)} up to {shown(low or end)} cannot be read: {reason}"
    send("damage", [(None, "structure", where), *((key, "structure", reason) for key in gap)])
    checker.flush()
    back.flush()
    hole: Bucket = [reached or "", low or end or "", 0, max(1, len(gap))]
    return checker.buckets + [hole] + back.buckets[::-1]


def _salvage(
    reader: Reader, job: Range, after: str | None, until: str | None, open_end: bool, checker: Checker
) -> list[str]:
    """Look up one by one the keys that the log names inside a gap; what is read is checked, the rest is returned."""
    lost: list[str] = []

    def look(keys: list[str]) -> None:
        try:
            rows = reader.get_many(job.namespace, keys, job.generation)
        except StoreDamaged:
            if len(keys) == 1:
                lost.extend(keys)
            else:
                look(keys[: len(keys) // 2])
                look(keys[len(keys) // 2 :])
        else:
            checker.check([rows[key] for key in keys if key in rows])

    try:
        for writes in reader.last_writes(job.namespace, after, until):
            keys = [w.key for w in writes if w.operation == "write" and not (open_end and w.key == until)]
            for first in range(0, len(keys), 256):
                look(keys[first : first + 256])
    except StoreDamaged:
        pass  # the log lies in the damage too; the gap itself is reported
    return lost


class Checker:
    """Checks batches in key order, counts, and keeps a bounded list of buckets by merging neighbours."""

    def __init__(self, job: Range, ring: t.Any, send: Send) -> None:
        self.buckets: list[Bucket] = []
        self._limit = max(2, job.buckets * 2)
        self._step = 16
        self._now = job.now
        self._send = send
        self._ring = ring
        self._prefix = namespace_prefix(job.namespace)
        self._length = len(job.namespace.encode())
        self._openers: dict[str, t.Any] = {}
        self._key_ids: dict[str, bytes] = {}
        self._damage: list[Damage] = []
        self._counts = [0, 0, 0]  # rows, tombstones, expired
        self._invalid: t.Any = None
        self._finding = getattr(ring, "finding", FINDING)
        if ring is not None:
            from cryptography.exceptions import InvalidTag

            self._invalid = InvalidTag

    def check(self, batch: t.Sequence[Row]) -> None:
        step = self._step  # grows while buckets are merged
        for first in range(0, len(batch), step):
            rows = batch[first : first + step]
            before = len(self._damage)
            self._rows(rows)
            self._bucket(rows, len(self._damage) - before)
        if len(self._damage) >= 500:
            self.flush()

    def flush(self) -> None:
        if self._damage:
            self._send("damage", self._damage)
            self._damage = []
        self._send("counts", self._counts)
        self._counts = [0, 0, 0]

    def _rows(self, rows: t.Sequence[Row]) -> None:
        """The inner loop: everything a record costs is here, so it is written flat."""
        pack, sha256, prefix, length, key_ids = HEAD.pack, hashlib.sha256, self._prefix, self._length, self._key_ids
        now, openers, ring = self._now, self._openers, self._ring
        tombstones = expired = 0
        for row in rows:
            key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum = row
            try:
                name = key_ids.get(key_id)
                if name is None:
                    name = key_ids[key_id] = key_id.encode()
                raw = key.encode()
                if deleted is not None:
                    tombstones += 1
                elif expires is not None and expires <= now:
                    expired += 1
                head = (
                    pack(
                        length,
                        len(raw),
                        len(name),
                        epoch,
                        sequence,
                        created,
                        updated,
                        -1 if expires is None else expires if expires != -1 else None,
                        -1 if deleted is None else deleted if deleted != -1 else None,
                    )
                    + prefix
                    + raw
                    + name
                )
                intact = sha256(head + payload).digest() == checksum
            except (TypeError, ValueError, AttributeError, struct.error) as exc:
                self._odd(key, exc)
                continue
            if not intact:
                why = why_unreadable(row)
                evidence = why or "the stored bytes do not have the stored checksum"
                self._damage.append((key, "unreadable" if why else "checksum", evidence))
            elif ring is not None:
                opener = openers.get(key_id)
                if opener is None:
                    opener = openers[key_id] = self._opener(key_id)
                if opener is False:
                    self._damage.append((key, "key-missing", f"the record key {key_id:.60} is not at hand"))
                    continue
                try:
                    opener(payload[:12], payload[12:], head)
                except (self._invalid, ValueError):
                    kind, why = self._finding
                    self._damage.append((key, kind, why.format(key_id)))
        self._counts[0] += len(rows)
        self._counts[1] += tombstones
        self._counts[2] += expired

    def _opener(self, key_id: str) -> t.Any:
        try:
            return self._ring.cipher(key_id).decrypt
        except KeyUnavailable:
            return False

    def _odd(self, key: t.Any, exc: Exception) -> None:
        if isinstance(key, str):
            self._damage.append((key, "checksum", f"a column holds a value of the wrong type ({exc})"))
        else:
            self._damage.append((None, "structure", f"a row has a key that is no text: {key!r:.80}"))

    def _bucket(self, rows: t.Sequence[Row], damaged: int) -> None:
        last = self.buckets[-1] if self.buckets else None
        # a summary for people begins at a key of theirs, not at the canary
        first = next((row[0] for row in rows if not str(row[0]).startswith(RESERVED)), rows[0][0])
        if last is not None and last[2] < self._step:
            if str(last[0]).startswith(RESERVED):
                last[0] = first
            last[1] = rows[-1][0]
            last[2] += len(rows)
            last[3] += damaged
            return
        self.buckets.append([first, rows[-1][0], len(rows), damaged])
        if len(self.buckets) > self._limit:
            self.buckets = halve(self.buckets)
            self._step *= 2


def halve(buckets: list[Bucket]) -> list[Bucket]:
    """Neighbours merged in pairs."""
    return [
        [pair[0][0], pair[-1][1], sum(b[2] for b in pair), sum(b[3] for b in pair)]
        for pair in (buckets[i : i + 2] for i in range(0, len(buckets), 2))
    ]


def shown(key: t.Any) -> str:
    """A key as a summary shows it: cut, and the reserved ones by their readable part."""
    if key is None:
        return "the end"
    text = key if isinstance(key, str) else repr(key)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
