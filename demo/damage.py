# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damages one namespace in every way of the runbook while its agent runs, and writes down what it did.

It works as a foreign program would: plain sqlite3 on the store's file. What it writes under valid seals (a legacy
importer, a rotation that died) it seals with the collection's own codec. demo/check.py compares the report with the
ground truth that ends up in .demo/truth.json.
"""
from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import (
    RecordCodec,
    encode_value,
    log_checksum,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring

from . import memories, places
from .agent import COUNTS

COLUMNS = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"
INDEX = "memory_records_expires"
#: How many records of each kind; "note" ones were written after the last backup and have no other copy.
FLIPPED, SWAPPED, RESEALED_SWAPS, DELETED, KEY_GONE = 120, 40, 40, 150, 100
IMPORTED_NEW, IMPORTED_OVER, IMPORT_BATCH = 150, 80, 25
NOTES_FLIPPED, NOTES_DELETED, NOTES_KEY_GONE, AGAIN_FLIPPED = 5, 4, 3, 3
PAUSE = 0.05  # between two transactions: the agent has its turn


class Vandal:
    """A connection to the store's file behind its back."""

    def __init__(self, path: str, namespace: str, keyring: Keyring) -> None:
        self._con = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self._namespace = namespace
        self._keyring = keyring
        self._codec = RecordCodec(namespace)
        self._dice = random.Random(13)
        row = self._con.execute("SELECT generation FROM memops_namespace WHERE name = ?", (namespace,)).fetchone()
        self._generation: int = row[0]

    def close(self) -> None:
        self._con.close()

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[sqlite3.Connection]:
        self._con.execute("BEGIN IMMEDIATE")
        try:
            yield self._con
        except BaseException:
            self._con.execute("ROLLBACK")
            raise
        self._con.execute("COMMIT")
        time.sleep(PAUSE)

    def _row(self, key: str) -> list[t.Any]:
        found = self._con.execute(
            f"SELECT {COLUMNS} FROM memory_records WHERE generation = ? AND key = ?", (self._generation, key)
        ).fetchone()
        if found is None:
            raise LookupError(f"{key} is not in the store")
        return list(found)

    def _put(self, row: t.Sequence[t.Any]) -> None:
        self._con.execute(
            f"INSERT OR REPLACE INTO memory_records (generation, {COLUMNS}) VALUES (?{', ?' * 10})",
            (self._generation, *row),
        )

    # --- the ways -------------------------------------------------------------------------------------------------
    def flip_bytes(self, keys: t.Sequence[str]) -> None:
        """One bit of each stored payload, as a failing disk or memory does it."""
        with self._transaction() as con:
            for key in keys:
                payload = bytearray(self._row(key)[8])
                payload[self._dice.randrange(len(payload))] ^= 1 << self._dice.randrange(8)
                con.execute(
                    "UPDATE memory_records SET payload = ? WHERE generation = ? AND key = ?",
                    (bytes(payload), self._generation, key),
                )

    def swap(self, keys: t.Sequence[str], recompute: bool) -> None:
        """The payloads of neighbours change places; with ``recompute`` the checksums are made to fit again."""
        with self._transaction():
            for one, two in zip(keys[::2], keys[1::2]):
                first, second = self._row(one), self._row(two)
                first[8], second[8] = second[8], first[8]
                for row in (first, second):
                    if recompute:
                        row[9] = self._codec.checksum(tuple(row))
                    self._put(row)

    def lose_key(self, keys: t.Sequence[str]) -> str:
        """A rotation that re-encrypted some records with a new record key and died before it had stored that key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        gone = "k" + os.urandom(8).hex()
        cipher = AESGCM(AESGCM.generate_key(256))
        with self._transaction() as con:
            self._log(con, [("rotate", None, None, None, None, f"start: from {self._keyring.active_id} to {gone}")])
            for key in keys:
                row = self._row(key)
                body = self._keyring.open_payload(row[8], self._codec.head(tuple(row)), row[7])
                row[7] = gone
                nonce = os.urandom(12)
                row[8] = nonce + cipher.encrypt(nonce, body, self._codec.head(tuple(row)))
                row[9] = self._codec.checksum(tuple(row))
                self._put(row)
        return gone

    def bulk_import(self, keys: t.Sequence[str]) -> None:
        """A legacy importer: valid records, logged, but written without the namespace's lock, in the agent's midst."""
        for start in range(0, len(keys), IMPORT_BATCH):
            with self._transaction() as con:
                self._import(con, keys[start : start + IMPORT_BATCH])

    def _import(self, con: sqlite3.Connection, keys: t.Sequence[str]) -> None:
        at = time.time_ns() // 1000
        epoch, last = con.execute("SELECT epoch, sequence FROM memops_store").fetchone()
        entries = []
        for sequence, key in enumerate(keys, last + 1):
            fields = (key, epoch, sequence, at, at, at + 7 * 24 * 3600 * 1_000_000, None, self._keyring.active_id)
            body = encode_value(memories.value(self._namespace, key, version=99))
            payload = self._keyring.seal(body, self._codec.head(fields), fields[7])
            row = (*fields, payload, self._codec.checksum((*fields, payload)))
            self._put(row)
            entries.append(("write", key, epoch, sequence, row[9], "bulk import"))
        con.execute("UPDATE memops_store SET sequence = ?", (last + len(keys),))
        con.execute("INSERT OR REPLACE INTO memops_given VALUES (?, ?, ?)", (epoch, last + 1, last + len(keys)))
        self._log(con, entries)

    def _log(self, con: sqlite3.Connection, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        at = time.time_ns() // 1000
        first = con.execute(
            "SELECT 1 + max(log_id, coalesce((SELECT max(id) FROM memory_access_log), 0)) FROM memops_store"
        ).fetchone()[0]
        for number, (operation, key, epoch, sequence, digest, reason) in enumerate(entries, first):
            entry = (
                number, at, self._namespace, operation, key, epoch, sequence, digest, None, places.IMPORTER, reason, b""
            )  # fmt: skip
            con.execute(
                f"INSERT INTO memory_access_log VALUES (?{', ?' * 11})", (*entry[:11], log_checksum(entry))
            )

    def break_index_and_lose_rows(self, lost: t.Sequence[str], imported: t.Sequence[str]) -> str:
        """Rows vanish and come while the index over expiry is away from the schema: afterwards it does not fit."""
        con = self._con
        with self._transaction():
            try:
                con.execute("PRAGMA writable_schema = ON")
                entry = con.execute("SELECT * FROM sqlite_master WHERE name = ?", (INDEX,)).fetchone()
                con.execute("DELETE FROM sqlite_master WHERE name = ?", (INDEX,))
                con.execute("PRAGMA writable_schema = RESET")
                how = "its entries do not fit the rows"
            except sqlite3.OperationalError:  # a SQLite that defends its schema
                con.execute("PRAGMA writable_schema = OFF")
                con.execute(f"DROP INDEX {INDEX}")
                entry, how = None, "it is gone"
            for key in lost:
                self._row(key)
                con.execute("DELETE FROM memory_records WHERE generation = ? AND key = ?", (self._generation, key))
            self._import(con, imported)
            if entry is not None:
                con.execute("PRAGMA writable_schema = ON")
                con.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", entry)
                con.execute("PRAGMA writable_schema = RESET")
        return how

    def integrity_check(self) -> list[str]:
        return [row[0] for row in self._con.execute("PRAGMA integrity_check(20)")]


def newest_acknowledged(journal: str, namespace: str) -> dict[str, str | None]:
    """Key → digest of the newest acknowledged write; None: its newest acknowledged change is a deletion."""
    newest: dict[str, str | None] = {}
    with open(journal, encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                break  # the agent is about to write it
            one = json.loads(line)
            if one["namespace"] == namespace and one["operation"] != "read" and one["result"] == "ok":
                newest[one["key"]] = one.get("digest")
    return newest


def damage(after_backup: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Do all of it; returns the ground truth. ``after_backup``: what the agent wrote since, {new, again, deleted}."""
    namespace = places.DAMAGED
    newest = newest_acknowledged(places.AGENT_JOURNAL, namespace)
    recent = {*after_backup["new"], *after_backup["again"], *after_backup["deleted"]}
    stable = ("fact/", "conversation/", "preference/", "task/")
    targets = sorted(k for k, digest in newest.items() if k.startswith(stable) and digest and k not in recent)
    targets = _where_it_hurts(targets)
    notes, again = list(after_backup["new"]), list(after_backup["again"])

    def take(source: list[str], count: int) -> list[str]:
        taken = source[:count]
        del source[:count]
        return taken

    lost = {
        "flipped": take(notes, NOTES_FLIPPED) + take(again, AGAIN_FLIPPED),
        "deleted": take(notes, NOTES_DELETED),
        "key_gone": take(notes, NOTES_KEY_GONE),
    }
    kinds = {
        "flipped": take(targets, FLIPPED),
        "swapped": take(targets, SWAPPED),
        "swapped_and_resealed": take(targets, RESEALED_SWAPS),
        "key_gone": take(targets, KEY_GONE),
        "deleted": take(targets, DELETED),
        "imported_over": take(targets, IMPORTED_OVER),
        "imported_new": [f"import/{namespace}/{number:04}" for number in range(IMPORTED_NEW)],
    }
    begun = time.time_ns() // 1000
    vandal = Vandal(places.PRIMARY, namespace, Keyring.open(places.keyring()))
    try:
        vandal.flip_bytes(kinds["flipped"] + lost["flipped"])
        vandal.swap(kinds["swapped"], recompute=False)
        vandal.swap(kinds["swapped_and_resealed"], recompute=True)
        gone = vandal.lose_key(kinds["key_gone"] + lost["key_gone"])
        vandal.bulk_import(kinds["imported_over"] + kinds["imported_new"][IMPORT_BATCH:])
        how = vandal.break_index_and_lose_rows(
            kinds["deleted"] + lost["deleted"], kinds["imported_new"][:IMPORT_BATCH]
        )
        findings = vandal.integrity_check()
    finally:
        vandal.close()
    repairable = [key for kind, keys in kinds.items() if kind != "imported_new" for key in keys]
    return {
        "namespace": namespace,
        "begun": begun,
        "ended": time.time_ns() // 1000,
        "kinds": kinds,
        "lost": {kind: sorted(keys) for kind, keys in lost.items()},
        "missing_key": gone,
        "index": {"name": INDEX, "how": how, "integrity_check": findings},
        "expected": {key: newest[key] for key in repairable},
    }


def _where_it_hurts(targets: list[str]) -> list[str]:
    """Shuffled, and more than half of what the agent works with now is among those that come first."""
    dice = random.Random(17)
    current = set(memories.current(memories.keys(places.DAMAGED, COUNTS[places.DAMAGED]))) & set(targets)
    worst = dice.sample(sorted(current), len(current) * 3 // 5)
    others = [key for key in targets if key not in current]
    dice.shuffle(others)
    count = FLIPPED + SWAPPED + RESEALED_SWAPS + DELETED + KEY_GONE + IMPORTED_OVER
    first = worst + others[: count - len(worst)]
    dice.shuffle(first)
    return first


def main() -> None:
    with open(places.at("after_backup.json"), encoding="utf-8") as file:
        after_backup = json.load(file)
    truth = damage(after_backup)
    with open(places.TRUTH, "w", encoding="utf-8") as file:
        json.dump(truth, file, indent=1)


if __name__ == "__main__":
    main()
