# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys whose copy in a snapshot has no entry in a log that should have it: written past the log, and backed up since.

PRIVATE to the collection. Unless the log in a snapshot had the entry (a table that was lost, and counts again from an
older state): so both decisions wait, on disk, until those logs were asked.
"""

from __future__ import annotations

import marshal
import sqlite3
import typing as t

from .._codec import log_checksum
from .._model import WRITE_OPERATIONS, LastWrite
from .incident import temporary_files
from .plan_file import Entry

Decision = t.Optional[t.Tuple[bool, t.Optional[Entry]]]
SCHEMA = "CREATE TABLE doubted (key TEXT PRIMARY KEY, proof BLOB, proven INTEGER, decisions BLOB) WITHOUT ROWID"


class Doubted:
    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None

    def add(self, key: str, proof: bytes, proven: Decision, unproven: Decision, write: LastWrite | None) -> None:
        """What to do with the key when a log has the copy's checksum ``proof``, and else; its newest logged write."""
        both = marshal.dumps((_plain(proven), _plain(unproven), None if write is None else tuple(write)))
        with temporary_files():
            if self._db is None:
                self._db = sqlite3.connect("", isolation_level=None)  # a file that goes when it is closed
                self._db.execute(SCHEMA)
                self._db.execute("BEGIN")
            self._db.execute("INSERT INTO doubted VALUES (?, ?, 0, ?)", (key, proof, both))

    def decided(
        self, logs: t.Iterable[t.Iterable[t.Sequence[t.Any]]]
    ) -> t.Iterator[tuple[Decision, LastWrite | None]]:
        """``logs``: those of the snapshots, newest first; each is only read where something is in doubt still."""
        if self._db is None:
            return
        for log in logs:
            if self._db.execute("SELECT 1 FROM doubted WHERE proven = 0 LIMIT 1").fetchone() is None:
                break
            for batch in log:
                with temporary_files():
                    self._db.executemany(
                        "UPDATE doubted SET proven = 1 WHERE key = ? AND proof = ?",
                        [(e[4], e[7]) for e in batch if _written(e)],
                    )
        for proven, both in self._db.execute("SELECT proven, decisions FROM doubted ORDER BY key"):
            yes, no, write = marshal.loads(both)
            yield _decision(yes if proven else no), None if write is None else LastWrite._make(write)
        self._db.close()


def _written(e: t.Sequence[t.Any]) -> bool:
    """Whether an entry says, intact, that something was written under the lock."""
    return e[3] in WRITE_OPERATIONS and isinstance(e[4], str) and e[8] is not None and log_checksum(e) == e[11]


def _plain(decision: Decision) -> t.Any:
    return decision and (decision[0], decision[1] and tuple(decision[1]))


def _decision(plain: t.Any) -> Decision:
    return plain and (plain[0], plain[1] and Entry._make(plain[1]))
