# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Open rows with the key that they name and seal them with another: what a rotation's processes do.

PRIVATE to the collection.
"""

from __future__ import annotations

import hashlib
import os
import struct
import typing as t

from .._codec import HEAD, namespace_prefix
from .._errors import KeyUnavailable
from .._model import KEY_ID, Row
from .._store import open_store
from .integrity_rows import shown
from .workers import Parent

PER_READER = 20_000  # rows read through one reader: a long read would keep the engine from cleaning its log

Sealed = t.Tuple[str, bytes, bytes, str, bytes]  # key id, payload, checksum, key, checksum that the row must still have


def encrypting(
    parent: Parent, store_params: dict[str, t.Any], ring: t.Any, namespace: str, target: str, batch: int, limit: int
) -> None:
    """A worker: sends what is to be written for the ranges that it is given."""
    store = open_store(store_params)
    encryptor = Encryptor(namespace, ring, target)
    for after, until in iter(parent.receive, None):
        already = unopenable = 0
        examples: list[dict[str, t.Any]] = []
        old: set[str] = set()
        more = True
        while more:
            more = False
            with store.reader() as reader:
                rows_read = 0
                for rows in reader.scan(namespace, after=after, until=until, batch=batch):
                    parent.check()
                    todo = [row for row in rows if row[KEY_ID] != target]
                    already += len(rows) - len(todo)
                    old.update(str(row[KEY_ID]) for row in todo)
                    changes, failed = encryptor.encrypt(todo)
                    if changes:
                        parent.send("changes", changes)
                    unopenable += len(failed)
                    examples += failed[: limit - len(examples)]
                    after = rows[-1][0]
                    rows_read += len(rows)
                    if rows_read >= PER_READER:
                        more = True
                        break
        parent.send("range", (already, unopenable, examples, old))
    parent.send("done", None)


class Encryptor:
    """Opens rows with the key that they name and seals them with ``target``."""

    def __init__(self, namespace: str, ring: t.Any, target: str) -> None:
        from cryptography.exceptions import InvalidTag

        self._invalid = InvalidTag
        self._namespace = namespace
        self._ring = ring
        self._target = target
        self._seal = ring.cipher(target).encrypt
        self._openers: dict[str, t.Any] = {}

    def encrypt(self, rows: t.Sequence[Row]) -> tuple[list[Sealed], list[dict[str, t.Any]]]:
        """(what Store.reseal takes, what no key opens)."""
        changes: list[Sealed] = []
        failed: list[dict[str, t.Any]] = []
        prefix, length = namespace_prefix(self._namespace), len(self._namespace.encode())
        target, seal, pack, sha256, openers = self._target, self._seal, HEAD.pack, hashlib.sha256, self._openers
        target_raw = target.encode()
        nonces = os.urandom(12 * len(rows))
        at = 0
        for row in rows:
            key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum = row
            opener = openers.get(key_id)
            if opener is None:
                opener = openers[key_id] = self._opener(key_id)
            try:
                raw, name = key.encode(), key_id.encode()
                ends = -1 if expires is None else expires if expires != -1 else None
                gone = -1 if deleted is None else deleted if deleted != -1 else None
                body = prefix + raw
                head = pack(length, len(raw), len(name), epoch, sequence, created, updated, ends, gone) + body + name
                plain = opener(payload[:12], payload[12:], head)
            except (self._invalid, KeyUnavailable, TypeError, ValueError, AttributeError, struct.error) as exc:
                missing = isinstance(exc, KeyUnavailable)
                why = "the record key is not at hand" if missing else "the payload does not open with its record key"
                failed.append(
                    {"namespace": self._namespace, "key": shown(key), "key_id": shown(key_id), "evidence": why}
                )
                continue
            head = (
                pack(length, len(raw), len(target_raw), epoch, sequence, created, updated, ends, gone)
                + body
                + target_raw
            )
            nonce = nonces[at : at + 12]
            at += 12
            payload = nonce + seal(nonce, plain, head)
            changes.append((target, payload, sha256(head + payload).digest(), key, checksum))
        return changes, failed

    def _opener(self, key_id: t.Any) -> t.Any:
        try:
            return self._ring.cipher(key_id).decrypt
        except KeyUnavailable as exc:
            error = exc

            def refuse(*_args: t.Any) -> bytes:
                raise error

            return refuse
