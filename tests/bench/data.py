# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The stores that are measured: records of 400 stored bytes and the log entries that an application leaves."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.stores import keyring_params

NAMESPACE = "agent-7"
STORED_BYTES = 400
SEALING_BYTES = 28  # nonce and tag
BATCH = 5000
WORDS = (  # noqa: SIM905 - a text is easier to read
    "user prefers answers short long formal friendly meeting moved Tuesday Friday project budget review deadline "
    "address phone number changed remember that customer order refund ticket closed open escalated summary language"
).split()


class Place:
    """A folder with a keyring and the stores in it."""

    def __init__(self, folder: str, records: int) -> None:
        self.folder, self.records = folder, records
        os.makedirs(folder, exist_ok=True)
        self.keyring = keyring_params(folder)
        Keyring.open(self.keyring, create=True)

    def ring(self) -> Keyring:
        return Keyring.open(self.keyring)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def params(self, name: str) -> dict[str, t.Any]:
        return {"engine": "sqlite", "layout": "native", "path": self.path(name), "name": "memory"}

    def copy(self, name: str, target: str) -> dict[str, t.Any]:
        """A store of its own for one round."""
        self.remove(target)
        shutil.copyfile(self.path(name), self.path(target))
        return self.params(target)

    def remove(self, name: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path(name) + suffix):
                os.unlink(self.path(name) + suffix)
        shutil.rmtree(self.path(name) + ".memops", ignore_errors=True)

    def fill(
        self, params: t.Mapping[str, t.Any], namespaces: t.Sequence[str], sealed: bool = True,
        records: int | None = None, reads: bool = False,
    ) -> None:  # fmt: skip
        """The same for any engine."""
        open_store(params, create=True).close()
        each = (self.records if records is None else records) // len(namespaces)
        ring = self.ring()
        for namespace in namespaces:
            for start in range(0, each, BATCH):
                write(params, ring, namespace, range(start, min(start + BATCH, each)), sealed=sealed, reads=reads)

    def build(
        self, name: str, namespaces: t.Sequence[str], sealed: bool = True, records: int | None = None,
        reads: bool = False,
    ) -> dict[str, t.Any]:  # fmt: skip
        """A store with ``records`` records in all; one read in ten is logged where ``reads``."""
        params = self.params(name)
        self.fill(params, namespaces, sealed, records, reads)
        con = sqlite3.connect(params["path"])
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.close()
        return params


def key_of(number: int) -> str:
    return f"user/{number:09d}/note"


def text(number: int, size: int) -> bytes:
    """Some JSON as a memory holds it: it compresses about as prose does."""
    chance = random.Random(number)
    body = f'j{{"n":{number},"text":"{" ".join(chance.choices(WORDS, k=size // 5))}'.encode()
    return body[: size - 2].ljust(size - 2, b".") + b'"}'


def write(params: t.Mapping[str, t.Any], ring: Keyring, namespace: str, numbers: t.Sequence[int], *,
          sealed: bool = True, reads: bool = False, locked: bool = True, actor: str = "agent") -> None:  # fmt: skip
    codec = RecordCodec(namespace)
    cipher, key_id = ring.cipher(ring.active_id), ring.active_id
    store = open_store(params)
    try:
        with store.writing(namespace, len(numbers)) as write_:
            rows, entries = [], []
            for offset, number in enumerate(numbers):
                at, sequence = write_.at, write_.first_sequence + offset
                row: tuple[t.Any, ...] = (key_of(number), write_.epoch, sequence, at, at, None, None, key_id, b"", b"")
                if sealed:
                    nonce = os.urandom(12)
                    payload = nonce + cipher.encrypt(nonce, text(number, STORED_BYTES - SEALING_BYTES), codec.head(row))
                else:
                    payload = text(number, STORED_BYTES)
                row = (*row[:8], payload, b"")
                digest = codec.checksum(row)
                rows.append((*row[:9], digest))
                lock = write_.lock if locked else None
                entries.append(
                    (0, at, namespace, "write", row[0], write_.epoch, sequence, digest, lock, actor, None, b"")
                )
            write_.put(rows, entries)
        if reads:
            now = time.time_ns() // 1000
            store.append_log(
                [(0, now, namespace, "hit", *(row[i] for i in (0, 1, 2, 9)), None, actor, None, b"")
                 for row in rows[::10]]
            )  # fmt: skip
    finally:
        store.close()


def damage(params: t.Mapping[str, t.Any], ring: Keyring, records: int) -> int:
    """One record in a hundred: payloads flipped and swapped, rows lost, and one bulk write without a lock."""
    numbers = list(range(0, records, 100))
    random.Random(7).shuffle(numbers)
    part = max(1, len(numbers) // 10)
    bulk, lost, swapped, flipped = (
        numbers[:part],
        numbers[part : 4 * part],
        numbers[4 * part : 6 * part],
        numbers[6 * part :],
    )
    for start in range(0, len(bulk), BATCH):
        write(params, ring, NAMESPACE, bulk[start : start + BATCH], locked=False, actor="importer")
    con = sqlite3.connect(params["path"])
    payload = "SELECT payload FROM memory_records WHERE generation = 1 AND key = ?"
    with con:
        con.executemany("DELETE FROM memory_records WHERE generation = 1 AND key = ?", [(key_of(n),) for n in lost])
        for left, right in zip(swapped[::2], swapped[1::2]):
            both = [con.execute(payload, (key_of(n),)).fetchone()[0] for n in (left, right)]
            for number, other in ((left, both[1]), (right, both[0])):
                con.execute(
                    "UPDATE memory_records SET payload = ? WHERE generation = 1 AND key = ?", (other, key_of(number))
                )
        for number in flipped:
            old = con.execute(payload, (key_of(number),)).fetchone()[0]
            new = old[:50] + bytes([old[50] ^ 4]) + old[51:]
            con.execute("UPDATE memory_records SET payload = ? WHERE generation = 1 AND key = ?", (new, key_of(number)))
    con.close()
    return len(numbers)
