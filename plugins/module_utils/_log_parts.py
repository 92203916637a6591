# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries of the access log as an engine itself can put them together: what a log chunk of format 2 is made of.

PRIVATE to the collection. docs/snapshot_format.md states the same in words; tests/decoder/ proves it.
"""
from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from ._model import Row

BLOCK = 1024  # ids; a part never reaches over a multiple of it
CHECKSUM_BYTES = 16


@dataclass(frozen=True)
class LogPart:
    """Some entries of one namespace, as one value for each kind of bytes instead of twelve for each entry."""

    namespace: str
    rows: int
    first: int  # ids
    last: int
    #: JSON: of each entry [id, at, operation, key, epoch, sequence, length of the digest or null, lock, actor, reason]
    text: bytes
    digests: bytes  # one after the other
    checksums: bytes  # 16 bytes each

    def fields(self) -> dict[str, t.Any]:
        """What a chunk holds of it."""
        return {
            "namespace": self.namespace,
            "entries": self.text,
            "digests": self.digests,
            "checksums": self.checksums,
        }


def entries_of(part: t.Mapping[str, t.Any]) -> list[Row]:
    """The entries of what ``fields`` gave, in the order of LogEntry. Errors: KeyError, TypeError, ValueError."""
    namespace, digests, checksums = part["namespace"], part["digests"], part["checksums"]
    rows: list[Row] = []
    digest_at = checksum_at = 0
    for number, at, operation, key, epoch, sequence, length, lock, actor, reason in json.loads(part["entries"]):
        digest = None
        if length is not None:
            digest = digests[digest_at : digest_at + length]
            digest_at += length
        checksum = checksums[checksum_at : checksum_at + CHECKSUM_BYTES]
        checksum_at += CHECKSUM_BYTES
        rows.append((number, at, namespace, operation, key, epoch, sequence, digest, lock, actor, reason, checksum))
    if digest_at != len(digests) or checksum_at != len(checksums):
        raise ValueError("the digests or checksums of log entries are of another number")
    return rows


def in_blocks(
    after: int,
    until: int,
    part: t.Callable[[int, int], LogPart | None],
    rows: t.Callable[[int, int], t.Iterator[list[Row]]],
    least: t.Callable[[int, int], int | None],
) -> t.Iterator[LogPart | list[Row]]:
    """All entries with after < id <= until, block by block; each of the functions is given such bounds. ``part`` tries
    to put a block together, ``rows`` gives the entries of one that it cannot, ``least`` tells the lowest id."""
    while after < until:
        end = min(until, after + BLOCK - (after + 1) % BLOCK)  # to the next multiple
        made = part(after, end)
        if made is not None:
            yield made
        else:
            found = False
            for some in rows(after, end):
                found = True
                yield some
            if not found:  # entries were pruned: on to the next one
                number = least(end, until)
                end = until if number is None else number - 1
        after = end
