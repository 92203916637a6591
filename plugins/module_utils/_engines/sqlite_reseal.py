# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The bulk path of a key rotation: new payloads for rows that keep everything else.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._model import Claim
from .sqlite_connect import Connected

KEYS_PER_QUERY = 400


class Resealing(Connected):
    """The rotation's part of ``Store``."""

    def reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        s = self.sql
        refused: list[str] = []
        with self._operating(claim, unfenced=True) as con:
            number = self._namespace(con, claim.namespace).generation
            where = f"{s.generation} = {int(number)}"
            # one statement a row, without a look at it first: rows that do not match are rare and looked up after
            done = con.executemany(
                f"UPDATE {s.table} SET {s.key_id} = ?, {s.payload} = ?, {s.checksum} = ? "
                f"WHERE {where} AND {s.key} = ? AND {s.checksum} = ?",
                rows,
            ).rowcount
            if done != len(rows):
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
