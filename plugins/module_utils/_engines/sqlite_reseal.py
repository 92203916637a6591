# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The bulk path of a key rotation: new payloads for rows that keep everything else.

PRIVATE to the collection. Its transactions are safe, but not durable one by one: ``settle`` or any later commit makes
them so. A power cut takes the newest of them back, whole, and the rotation does them again.
"""

from __future__ import annotations

import itertools
import sqlite3
import typing as t

from .._model import Claim
from .sqlite_connect import Connected, sqlite_errors
from .sqlite_schema import PAGE_SIZE

KEYS_PER_QUERY = 400
STRETCH = 500  # rows of one statement
WAL_BOUND = 192 << 20  # bytes; a write-ahead log that grew beyond it is begun anew
PATIENCE_MS = 250  # how long that may hold up writers, while readers of the log end

Sealed = t.Tuple[str, bytes, bytes, str, bytes]


class Resealing(Connected):
    """The rotation's part of ``Store``."""

    def reseal(self, claim: Claim, rows: t.Sequence[Sealed]) -> list[str]:
        with self._relaxed(), self._undo_in_memory(), self._operating(claim, unfenced=True) as con:
            where = f"{self.sql.generation} = {int(self._namespace(con, claim.namespace).generation)}"
            refused: list[str] = []
            for start in range(0, len(rows), STRETCH):
                stretch = rows[start : start + STRETCH]
                if self._write_in_passing(con, where, stretch) < len(stretch):
                    self._write_by_key(con, where, stretch)
                    refused += self._left(con, where, stretch)
            return refused

    def _write_in_passing(self, con: sqlite3.Connection, where: str, rows: t.Sequence[Sealed]) -> int:
        """Change the rows in one pass over their stretch of keys, a third of the work of looking each one up; how many.

        Each row that the pass meets is given the next key id, payload and checksum. Where it does not have the checksum
        that the next one expects, which covers its key too, it is given no key id: its column refuses that, and the row
        is passed over. So one row too many or too few leaves the rest of the stretch as it is.
        """
        s = self.sql
        if len({row[4] for row in rows}) < len(rows):
            return 0  # damage: twice the same checksum
        after: t.Iterator[None] = itertools.repeat(None)
        for name, column in (("expected", 4), ("payload", 1), ("checksum", 2)):
            values = itertools.chain([row[column] for row in rows], after)
            con.create_function(f"memops_{name}", 0, values.__next__)
        try:
            return con.execute(
                f"UPDATE OR IGNORE {s.table} SET {s.key_id} = CASE memops_expected() WHEN {s.checksum} THEN ? END, "
                f"{s.payload} = memops_payload(), {s.checksum} = memops_checksum() "
                f"WHERE {where} AND {s.key} >= ? AND {s.key} <= ? AND {s.key_id} <> ?",
                (rows[0][0], rows[0][3], rows[-1][3], rows[0][0]),
            ).rowcount
        finally:
            for name in ("expected", "payload", "checksum"):
                con.create_function(f"memops_{name}", 0, None)

    def _write_by_key(self, con: sqlite3.Connection, where: str, rows: t.Sequence[Sealed]) -> None:
        s = self.sql
        con.executemany(
            f"UPDATE {s.table} SET {s.key_id} = ?, {s.payload} = ?, {s.checksum} = ? "
            f"WHERE {where} AND {s.key} = ? AND {s.checksum} = ?",
            rows,
        )

    def _left(self, con: sqlite3.Connection, where: str, rows: t.Sequence[Sealed]) -> list[str]:
        s = self.sql
        refused: list[str] = []
        for start in range(0, len(rows), KEYS_PER_QUERY):
            wanted = {row[3]: row[2] for row in rows[start : start + KEYS_PER_QUERY]}
            live = con.execute(
                f"SELECT {s.key}, {s.checksum} FROM {s.table} "
                f"WHERE {where} AND {s.key} IN ({', '.join('?' * len(wanted))})",
                list(wanted),
            )
            found = dict(live.fetchall())
            refused += [key for key, checksum in wanted.items() if found.get(key) != checksum]
        return refused

    def settle(self) -> None:
        with sqlite_errors(self.path):
            pages = self._con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            if pages * PAGE_SIZE > WAL_BOUND:
                self._con.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
                try:
                    self._con.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                finally:
                    self._con.execute(f"PRAGMA busy_timeout = {int(self.busy_timeout * 1000)}")
