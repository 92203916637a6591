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
from itertools import repeat
from operator import add, itemgetter

from .._codec import HEAD, namespace_prefix
from .._errors import KeyUnavailable
from .._model import CHECKSUM, KEY, KEY_ID, PAYLOAD, Claim, Row
from .._store import open_store
from .._store_optional import ManyWriters, Resealer
from .integrity_rows import shown
from .workers import Parent

PIECE = 500  # rows that are read and encrypted at once: more of them fall out of the processor's cache
SMALL_BATCH = 2000  # rows of a transaction where others need not wait for it
BATCH_BYTES = 8 << 20  # of new payloads in one transaction: it holds the store for some hundredths of a second

NONCE, CIPHERTEXT = itemgetter(slice(12)), itemgetter(slice(12, None))
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
            former: list[Row] = []
            size = read = 0
            more = False
            with store.reader() as reader:  # a new one for each batch: a long read keeps the engine from cleaning up
                for rows in reader.scan(claim.namespace, after=after, until=until, batch=min(PIECE, batch)):
                    parent.check()
                    todo = [row for row in rows if row[KEY_ID] != target]
                    already += len(rows) - len(todo)
                    sealed, failed = encryptor.encrypt(todo)
                    changes += sealed
                    if failed:
                        kept = {one[3] for one in sealed}
                        todo = [row for row in todo if row[KEY] in kept]
                    former += todo
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
                    refused = store.replace(claim, former, changes)
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
    """Opens rows with the key that they name and seals them with ``target``.

    Column by column, in loops that the interpreter has built in: one in Python takes a quarter more time.
    """

    def __init__(self, namespace: str, ring: t.Any, target: str) -> None:
        from cryptography.exceptions import InvalidTag

        self._errors = (InvalidTag, KeyUnavailable, TypeError, ValueError, AttributeError, struct.error)
        self._namespace = namespace
        self._prefix = namespace_prefix(namespace)
        self._length = len(namespace.encode())
        self._pack = struct.Struct(f"{HEAD.format}{len(self._prefix)}s").pack
        self._ring = ring
        self._target = target
        self._name = target.encode()  # as heads have it
        self._seal = ring.cipher(target).encrypt
        self._openers: dict[t.Any, tuple[t.Callable[..., bytes], bytes]] = {}

    def encrypt(self, rows: t.Sequence[Row]) -> tuple[list[Sealed], list[dict[str, t.Any]]]:
        """(what Store.reseal takes, in the order of the rows' keys; what no key opens)."""
        changes: list[Sealed] = []
        failed: list[dict[str, t.Any]] = []
        key_ids = dict.fromkeys([row[KEY_ID] for row in rows])
        for key_id in key_ids:
            part = rows if len(key_ids) == 1 else [row for row in rows if row[KEY_ID] == key_id]
            sealed, errors = self._encrypt(key_id, part)
            changes += sealed
            for position, error in errors.items():
                missing = isinstance(error, KeyUnavailable)
                why = "the record key is not at hand" if missing else "the payload does not open with its record key"
                key = shown(part[position][KEY])
                failed.append({"namespace": self._namespace, "key": key, "key_id": shown(key_id), "evidence": why})
        if len(key_ids) > 1:
            changes.sort(key=itemgetter(3))
        return changes, failed

    def _encrypt(self, key_id: t.Any, rows: t.Sequence[Row]) -> tuple[list[Sealed], dict[int, Exception]]:
        """Rows of one key: what is sealed anew, and why the others (their positions) are not."""
        if key_id not in self._openers:
            self._openers[key_id] = self._opener(key_id)
        opened, name = self._openers[key_id]
        payloads = [row[PAYLOAD] for row in rows]
        starts = self._starts(rows, len(name))
        plain, failed = self._each(
            opened,
            self._each(NONCE, payloads)[0],
            self._each(CIPHERTEXT, payloads)[0],
            self._each(add, starts, repeat(name))[0],
        )
        if failed:
            rows, starts, plain = (
                [one for position, one in enumerate(column) if position not in failed]
                for column in (rows, starts, plain)
            )
        if len(name) != len(self._name):
            starts = self._starts(rows, len(self._name))
        heads = list(map(add, starts, repeat(self._name)))
        nonces = [nonce for (nonce,) in struct.iter_unpack("12s", os.urandom(12 * len(rows)))]
        sealed = list(map(add, nonces, map(self._seal, nonces, plain, heads)))
        sha256 = hashlib.sha256
        digests = [sha256(body).digest() for body in map(add, heads, sealed)]
        keys, checksums = map(itemgetter(KEY), rows), map(itemgetter(CHECKSUM), rows)
        return list(zip(repeat(self._target), sealed, digests, keys, checksums)), failed

    def _starts(self, rows: t.Sequence[Row], name_length: int) -> list[t.Any]:
        """Their heads up to the key id; None of a row with fields that no head can have."""
        keys, epochs, sequences, created, updated, expires, deleted = list(zip(*rows))[:KEY_ID] or [()] * KEY_ID
        raw, _failed = self._each(str.encode, keys)
        lengths, _failed = self._each(len, raw)
        fields = (epochs, sequences, created, updated, _times(expires), _times(deleted))
        fixed, _failed = self._each(
            self._pack, repeat(self._length), lengths, repeat(name_length), *fields, repeat(self._prefix)
        )
        return self._each(add, fixed, raw)[0]

    def _each(
        self, function: t.Callable[..., t.Any], *columns: t.Iterable[t.Any]
    ) -> tuple[list[t.Any], dict[int, Exception]]:
        """(what ``function`` makes of each row's values, None where it fails; the errors by position)."""
        found: list[t.Any] = []
        failed: dict[int, Exception] = {}
        values = map(function, *columns)
        while True:
            try:
                found.extend(values)  # keeps what came before an error
                return found, failed
            except self._errors as exc:
                failed[len(found)] = exc
                found.append(None)

    def key_ids(self) -> set[str]:
        """Those of all rows seen so far."""
        return set(map(str, self._openers))

    def _opener(self, key_id: t.Any) -> tuple[t.Callable[..., bytes], bytes]:
        """What opens the payloads of a record key, and its id as heads have it."""
        try:
            return self._ring.cipher(key_id).decrypt, key_id.encode()
        except KeyUnavailable as exc:
            error = exc

            def refuse(*_args: t.Any) -> bytes:
                raise error

            return refuse, b""


def _times(times: tuple[t.Any, ...]) -> t.Iterable[t.Any]:
    """As heads have them: -1 is none. A stored -1 could be taken for that: it is refused."""
    if times.count(None) == len(times):
        return repeat(-1)
    return [-1 if one is None else one if one != -1 else None for one in times]
