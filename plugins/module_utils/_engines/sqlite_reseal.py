# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The bulk path of a key rotation: new payloads for rows that keep everything else.

PRIVATE to the collection. Its transactions are safe, but not durable one by one: ``settle`` or any later commit makes
them so. A power cut takes the newest of them back, whole, and the rotation does them again.
"""

from __future__ import annotations

import sqlite3
import typing as t

from .._model import Claim
from .sqlite_connect import Connected, sqlite_errors
from .sqlite_schema import PAGE_SIZE

KEYS_PER_QUERY = 400
WAL_BOUND = 192 << 20  # bytes; a write-ahead log that grew beyond it is begun anew
PATIENCE_MS = 250  # how long that may hold up writers, while readers of the log end

Sealed = t.Tuple[str, bytes, bytes, str, bytes]


class Resealing(Connected):
    """The rotation's part of ``Store``."""

    def reseal(self, claim: Claim, rows: t.Sequence[Sealed]) -> list[str]:
        with self._relaxed(), self._operating(claim, unfenced=True) as con:
            where = f"{self.sql.generation} = {int(self._namespace(con, claim.namespace).generation)}"
            if self._write_in_passing(con, where, rows) == len(rows):
                return []
            self._write_by_key(con, where, rows)
            return self._left(con, where, rows)

    def _write_in_passing(self, con: sqlite3.Connection, where: str, rows: t.Sequence[Sealed]) -> int:
        """Change the rows in one pass over their stretch of keys, half the work of looking each one up; how many.

        A row is known by the checksum that it must still have, which covers its key too. Rows that have another one
        get no value, which their columns refuse: they are passed over.
        """
        s = self.sql
        payloads = {row[4]: row[1] for row in rows if row[4].__class__ is bytes}
        if len(payloads) != len(rows):
            return 0  # damage: checksums of a wrong type, or twice the same
        checksums = {row[4]: row[2] for row in rows}
        con.create_function("memops_payload", 1, payloads.get)
        con.create_function("memops_checksum", 1, checksums.get)
        try:
            return con.execute(
                f"UPDATE OR IGNORE {s.table} SET {s.key_id} = ?, "
                f"{s.payload} = memops_payload(CAST({s.checksum} AS BLOB)), "
                f"{s.checksum} = memops_checksum(CAST({s.checksum} AS BLOB)) "
                f"WHERE {where} AND {s.key} >= ? AND {s.key} <= ? AND {s.key_id} <> ?",
                (rows[0][0], rows[0][3], rows[-1][3], rows[0][0]),
            ).rowcount
        finally:
            con.create_function("memops_payload", 1, None)
            con.create_function("memops_checksum", 1, None)

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
