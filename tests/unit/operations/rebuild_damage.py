# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What may damage a store at random, and a model of what it should hold then."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.unit.operations.runbook import COLUMNS, NS, forge_checksum

CANARY = "\0memops/canary"
INTEGERS = ("epoch", "sequence", "created", "updated", "expires", "deleted")
ODD = (-1, 0, 2**63 - 1, "text", 1.5, b"\xff\xfe")


@dataclass
class Version:
    """One write or deletion of one key."""

    value: object  # None: a deletion
    trusted: bool  # locked and logged
    lives: bool = True  # False: it has expired
    row: tuple = ()


@dataclass
class Model:
    history: dict[str, list[Version]] = field(default_factory=dict)
    copies: list[dict[str, Version]] = field(default_factory=list)  # of each good snapshot, oldest first
    live: dict[str, Version] = field(default_factory=dict)  # what lies there intact
    broken: set[str] = field(default_factory=set)  # keys whose row lies there damaged
    touched: set[str] = field(default_factory=set)
    relaxed: set[str] = field(default_factory=set)  # keys whose log entries were damaged
    mislaid: bool = False

    def wrote(self, key, version):
        self.history.setdefault(key, []).append(version)
        self.live[key] = version

    def acknowledged(self, key):
        """The newest version that a locked, logged write or deletion made."""
        return next((v for v in reversed(self.history.get(key, [])) if v.trusted), None)

    def has(self, version, key):
        return any(copy.get(key) is version for copy in self.copies)

    def older(self, key):
        """Values of good copies in snapshots, newest first, up to the last deletion or known expiry."""
        found = []
        for version in reversed(self.history.get(key, [])):
            if version.trusted and (version.value is None or (not version.lives and self.has(version, key))):
                break
            if version.trusted and version.lives and self.has(version, key):
                found.append(version.value)
        return found


def flip_payload(site, model, key, other, n):
    damage_row(site, model, key, lambda row: {"payload": _flipped(row[8], n)})


def flip_checksum(site, model, key, other, n):
    damage_row(site, model, key, lambda row: {"checksum": _flipped(row[9], n)})


def odd_metadata(site, model, key, other, n):
    """A field with another value, or a value of a wrong type."""
    names = (*INTEGERS, "key_id", "payload", "checksum")
    name, value = names[n % len(names)], ODD[n // len(names) % len(ODD)]
    damage_row(site, model, key, lambda row: {name: value} if row[COLUMNS.split(", ").index(name)] != value else None)


def forged_metadata(site, model, key, other, n):
    """A field with another value and a checksum that fits: only the encryption tells."""
    name = INTEGERS[n % len(INTEGERS)]
    damage_row(site, model, key, lambda row: {name: (row[COLUMNS.split(", ").index(name)] or 0) + 1 + n}, forge=True)


def damage_row(site, model, key, change, forge=False):
    if key not in model.live or key in model.broken:
        return
    row, generation = site.rows()[key], site.generation()
    columns = change(row)
    if not columns:
        return
    with site.sql() as con:
        for name, value in columns.items():
            con.execute(
                f"UPDATE memory_records SET {name} = ? WHERE generation = ? AND key = ?", (value, generation, key)
            )
        if forge:
            forge_checksum(con, key, generation)
    del model.live[key]
    model.broken.add(key)


def _flipped(data, n):
    place = n % len(data)
    return data[:place] + bytes([data[place] ^ (1 << n % 8)]) + data[place + 1 :]


def swap(site, model, key, other, n):
    if key not in model.live or other not in model.live or key == other:
        return
    rows = site.rows()
    a, b = rows[key], rows[other]
    damage_row(site, model, key, lambda row: {"payload": b[8]}, forge=bool(n % 2))
    damage_row(site, model, other, lambda row: {"payload": a[8]}, forge=bool(n % 2))


def drop_row(site, model, key, other, n):
    with site.sql() as con:
        con.execute("DELETE FROM memory_records WHERE generation = ? AND key = ?", (site.generation(), key))
    model.live.pop(key, None)
    model.broken.discard(key)


def bulk(site, model, key, other, n):
    """Sealed as it should be and logged, but without the write lock."""
    write_unlocked(site, model, {key, other}, n, True, bool(n % 3 == 0))


def unlogged(site, model, key, other, n):
    write_unlocked(site, model, {key}, n, False, bool(n % 3 == 0))


def write_unlocked(site, model, keys, n, logged, deleted):
    items = {key: {"forged": n} for key in sorted(keys) if key not in model.broken}
    if not items:
        return
    site.unlocked(items, logged=logged, deleted=deleted)
    rows = site.rows()
    for key in items:
        model.wrote(key, Version(None if deleted else items[key], False, True, rows[key]))


def put_back(site, model, key, other, n):
    """A former row of the key, as a file-level restore would leave it."""
    former = [v for v in model.history.get(key, ())[:-1] if v.row]
    if not former or key in model.broken:
        return
    version = former[n % len(former)]
    with site.sql() as con:
        con.execute(
            f"INSERT OR REPLACE INTO memory_records (generation, {COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (site.generation(), *version.row),
        )
    model.live[key] = version


def lost_key(site, model, key, other, n):
    """Written under a record key that then disappears from the keyring and that no snapshot has."""
    ring = site.ring()
    former = ring.active_id
    name = ring.create_key()
    ring.activate(name)
    value = {"under": "a lost key", "n": n}
    with site.memory() as memory:
        memory.write(NS, key, value)
    model.broken.discard(key)
    model.wrote(key, Version(value, True, True, site.rows()[key]))
    ring.activate(former)
    forget_key(site, name)
    del model.live[key]
    model.broken.add(key)


def forget_key(site, name):
    with open(site.keyring["path"], encoding="utf-8") as stream:
        body = json.load(stream)
    body["keys"].pop(name, None)
    with open(site.keyring["path"], "w", encoding="utf-8") as stream:
        json.dump(body, stream)


def mislaid_key(site, model, key, other, n):
    """The keyring forgets the key of everything so far; the snapshots have it, wrapped.

    Once: the key that takes its place came after the last snapshot, and would be gone for good.
    """
    if not model.copies or model.mislaid:
        return
    model.mislaid = True
    ring = site.ring()
    former = ring.active_id
    ring.activate(ring.create_key())
    forget_key(site, former)


def lose_log_entry(site, model, key, other, n):
    with site.sql() as con:
        row = con.execute(
            "SELECT max(id) FROM memory_access_log "
            "WHERE namespace = ? AND key = ? AND operation IN ('write', 'delete')",
            (NS, key),
        ).fetchone()
        if row[0] is None:
            return
        if n % 3 == 0:
            con.execute("DELETE FROM memory_access_log WHERE id = ?", row)
        else:
            column, value = (
                ("sequence", 10**6), ("operation", "delete"), ("digest", b"x"), ("lock", 77), ("key", "altered"),
                ("epoch", 9), ("actor", "somebody"), ("checksum", b"y"),
            )[n // 3 % 8]  # fmt: skip
            changed = con.execute(
                f"UPDATE memory_access_log SET {column} = ? WHERE id = ? AND {column} IS NOT ?", (value, row[0], value)
            ).rowcount
            if not changed:
                return
    model.relaxed |= {key, "altered"}


def drop_index(site, model, key, other, n):
    with site.sql() as con:
        con.execute(f"DROP INDEX IF EXISTS {('memory_access_log_writes', 'memory_records_expires')[n % 2]}")


DAMAGES = (
    flip_payload, flip_checksum, odd_metadata, forged_metadata, swap, drop_row, bulk, unlogged, put_back, lost_key,
    mislaid_key,
    lose_log_entry, drop_index,
)  # fmt: skip
