# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Probes: keys that applications read well before the damage, fixed before anything is repaired.

PRIVATE to the collection. Never drawn from what a rebuild takes its copies from alone.
"""

from __future__ import annotations

import hashlib
import heapq
import typing as t

from .._codec import RecordCodec, log_checksum
from .._errors import StoreDamaged
from .._model import CHECKSUM, EPOCH, EXPIRES, SEQUENCE, LastWrite
from .._store import Reader, Store

CANARY = "\0memops/canary"  # the record that every backup writes beside the memories, and validation asks for


def has_canary(store: Store, reader: Reader, namespace: str) -> bool:
    """Whether a backup has put its own record beside the memories."""
    if "log" not in store.capabilities():  # none is written there
        return False
    try:
        return bool(reader.get_many(namespace, [CANARY]))
    except StoreDamaged:
        return False


def fix_probes(
    *,
    reader: Reader,
    namespace: str,
    before_sequence: int | None = None,
    before_at: int | None = None,
    count: int = 200,
) -> list[dict[str, t.Any]]:
    """At most ``count`` keys that an application read well before the onset, each with what it read.

    The onset is a sequence (what was logged before the first write of the namespace with it or a later one), a time
    (µs), or both. Keys are chosen by their hash, so the same log gives the same probes, spread over all keys.
    Returns [{key, digest (hex of the record's checksum), at, epoch, sequence, expires}]; the last three are None when
    neither the log nor the store tells them. Small: the caller keeps it in the incident's facts.
    """
    salt = hashlib.sha256(namespace.encode()).digest()[:16]
    chosen: dict[str, dict[str, t.Any]] = {}
    heap: list[tuple[int, str]] = []  # the largest hash first
    wanted = ("hit",) if before_sequence is None else ("hit", "write", "delete")
    for batch in reader.log(namespace, operations=wanted):
        for entry in batch:
            operation, key, sequence = entry[3], entry[4], entry[6]
            if operation == "write" or operation == "delete":
                if before_sequence is not None and sequence is not None and sequence >= before_sequence:
                    return _with_versions(reader, namespace, chosen)
                continue
            if operation != "hit" or entry[7] is None or not isinstance(key, str):
                continue
            if before_at is not None and entry[1] >= before_at:
                continue
            rank = int.from_bytes(
                hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8, key=salt).digest(), "big"
            )
            if key not in chosen and len(heap) >= count and -heap[0][0] <= rank:
                continue
            if log_checksum(entry) != entry[11]:
                continue  # a damaged entry proves nothing
            if key not in chosen:
                heapq.heappush(heap, (-rank, key))
                if len(heap) > count:
                    del chosen[heapq.heappop(heap)[1]]
            chosen[key] = {"key": key, "digest": bytes(entry[7]).hex(), "at": entry[1]}
    return _with_versions(reader, namespace, chosen)


def _with_versions(reader: Reader, namespace: str, chosen: dict[str, dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Add version and expiry where the log or the live row has the very digest that was read."""
    try:
        rows = reader.get_many(namespace, sorted(chosen))
    except StoreDamaged:
        rows = {}
    codec = RecordCodec(namespace)
    probes = []
    for key, probe in sorted(chosen.items()):
        row, write = rows.get(key), last_write(reader, namespace, key)
        version: tuple[int | None, int | None] = (None, None)
        expires = None
        if row is not None and row[CHECKSUM].hex() == probe["digest"] and codec.intact(row):
            version, expires = (row[EPOCH], row[SEQUENCE]), row[EXPIRES]
        elif write is not None and write.digest is not None and write.digest.hex() == probe["digest"]:
            version = (write.epoch, write.sequence)
        probes.append({**probe, "epoch": version[0], "sequence": version[1], "expires": expires})
    return probes


def last_write(reader: Reader, namespace: str, key: str) -> LastWrite | None:
    """The newest logged write or delete of one key."""
    found: LastWrite | None = None
    try:
        for batch in reader.last_writes(namespace, _just_before(key), key):
            for write in batch:
                if write.key == key:
                    found = write
    except (StoreDamaged, UnicodeEncodeError):
        return None
    return found


def _just_before(key: str) -> str | None:
    """A text that sorts before ``key`` with next to nothing between, as the lower end of a range."""
    last = ord(key[-1]) - 1
    if last < 0:
        return key[:-1] or None
    return key[:-1] + chr(0xD7FF if 0xD800 <= last <= 0xDFFF else last) + "\U0010ffff"
