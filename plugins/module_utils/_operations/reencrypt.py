# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Open rows with the key that they name and seal them with another: what a rotation's processes do.

PRIVATE to the collection. Each process reads, encrypts and writes its own ranges, and no payload goes from process to
process. Where an engine has one lock for all writers a gate lets one write at a time: the others encrypt meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import typing as t

from .._codec import HEAD, namespace_prefix
from .._errors import KeyUnavailable
from .._model import KEY_ID, Claim, Row
from .._store import ManyWriters, Resealer, open_store
from .integrity_rows import shown
from .workers import Parent

PIECE = 500  # rows that are read and encrypted at once: more of them fall out of the processor's cache
SMALL_BATCH = 2000  # rows of a transaction where others need not wait for it
BATCH_BYTES = 8 << 20  # of new payloads in one transaction: it holds the store for some hundredths of a second

Sealed = t.Tuple[str, bytes, bytes, str, bytes]  # key id, payload, checksum, key, checksum that the row must still have


def resealing(
    parent: Parent,
    gate: t.Any,
    store_params: dict[str, t.Any],
    ring: t.Any,
    claim: Claim,
    target: str,
    batch: int,
    limit: int,
) -> None:
    """A worker: encrypts the ranges that it is given and writes them. Sends "begin" and waits before its first write,
    "written" (rows, refused rows, bytes) after each, "range" (already, unopenable, examples, key ids) after a range."""
    store = open_store(store_params)
    alone = not isinstance(store, ManyWriters)
    if isinstance(store, ManyWriters):
        store.take_turns(gate)
        batch = min(batch, SMALL_BATCH)
    encryptor = Encryptor(claim.namespace, ring, target)
    begun = False
    for after, until in iter(parent.receive, None):
        already = unopenable = 0
        examples: list[dict[str, t.Any]] = []
        more = True
        while more:
            changes: list[Sealed] = []
            former: dict[str, Row] = {}
            size = read = 0
            more = False
            with store.reader() as reader:  # a new one for each batch: a long read keeps the engine from cleaning up
                for rows in reader.scan(claim.namespace, after=after, until=until, batch=min(PIECE, batch)):
                    parent.check()
                    todo = [row for row in rows if row[KEY_ID] != target]
                    already += len(rows) - len(todo)
                    sealed, failed = encryptor.encrypt(todo)
                    changes += sealed
                    if isinstance(store, Resealer):
                        former.update((row[0], row) for row in todo)
                    unopenable += len(failed)
                    examples += failed[: limit - len(examples)]
                    after = rows[-1][0]
                    read += len(rows)
                    size += sum([len(one[1]) for one in sealed])
                    if read >= batch or size >= BATCH_BYTES:
                        more = True
                        break
            if not changes:
                continue
            if not begun:
                begun = True
                parent.send("begin", None)
                parent.receive()
            with _turn(parent, gate) if alone else contextlib.nullcontext():
                if isinstance(store, Resealer):
                    refused = store.replace(claim, [former[change[3]] for change in changes], changes)
                else:
                    refused = store.reseal(claim, changes)
            parent.send("written", (len(changes), len(refused), size))
        parent.send("range", (already, unopenable, examples, encryptor.key_ids()))
    parent.send("done", None)


@contextlib.contextmanager
def _turn(parent: Parent, gate: t.Any) -> t.Iterator[None]:
    while not gate.acquire(timeout=1.0):
        parent.check()
    try:
        yield
    finally:
        gate.release()


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
        for key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum in rows:
            opener = openers.get(key_id)
            if opener is None:
                opener = openers[key_id] = self._opener(key_id)
            try:
                raw, name = key.encode(), key_id.encode()
                ends = -1 if expires is None else expires if expires != -1 else None
                gone = -1 if deleted is None else deleted if deleted != -1 else None
                head = pack(length, len(raw), len(name), epoch, sequence, created, updated, ends, gone)
                body = prefix + raw
                plain = opener(payload[:12], payload[12:], head + body + name)
            except (self._invalid, KeyUnavailable, TypeError, ValueError, AttributeError, struct.error) as exc:
                missing = isinstance(exc, KeyUnavailable)
                why = "the record key is not at hand" if missing else "the payload does not open with its record key"
                failed.append(
                    {"namespace": self._namespace, "key": shown(key), "key_id": shown(key_id), "evidence": why}
                )
                continue
            if len(name) != len(target_raw):
                head = pack(length, len(raw), len(target_raw), epoch, sequence, created, updated, ends, gone)
            head += body + target_raw
            nonce = nonces[at : at + 12]
            at += 12
            payload = nonce + seal(nonce, plain, head)
            changes.append((target, payload, sha256(head + payload).digest(), key, checksum))
        return changes, failed

    def key_ids(self) -> set[str]:
        """Those of all rows seen so far."""
        return set(map(str, self._openers))

    def _opener(self, key_id: t.Any) -> t.Any:
        try:
            return self._ring.cipher(key_id).decrypt
        except KeyUnavailable as exc:
            error = exc

            def refuse(*_args: t.Any) -> bytes:
                raise error

            return refuse
