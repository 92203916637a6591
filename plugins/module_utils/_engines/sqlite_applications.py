# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What applications do with a SQLite store: write under the namespace's lock, live by its TTL.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t

from .._codec import RecordCodec
from .._errors import InvalidInput, NamespaceLocked, NamespaceQuarantined
from .._model import Row
from .leases import POLL_SECONDS, SWEEPER, believed_end, check_sequences, lock_lost, locked, quarantined
from .sqlite_connect import Connected
from .sqlite_control import refuse_astray
from .sqlite_log import append, is_write, note_given, position
from .sqlite_reader import rows_of


class SqliteWrite:
    """See _store.Write."""

    def __init__(
        self,
        owner: Applications,
        con: sqlite3.Connection,
        namespace: str,
        count: int,
        control: tuple[t.Any, ...],
        lock: int,
    ) -> None:
        self._owner, self._con, self._namespace, self._count = owner, con, namespace, count
        self.generation: int = control[0]
        self.ttl: float | None = control[1]
        self.lock = lock
        self.epoch, sequence = position(con)
        self.first_sequence: int = sequence + 1
        self.at: int = max(owner.clock(), con.execute("SELECT newest FROM memops_store").fetchone()[0])
        self._used: list[int] = []
        self._touched = False

    def current(self, keys: t.Sequence[str]) -> dict[str, Row]:
        return rows_of(self._con, self._owner.sql, self.generation, keys)

    def put(
        self, rows: t.Sequence[Row], entries: t.Sequence[tuple[t.Any, ...]], aside: str | None = None
    ) -> None:
        self._touched = True
        used = [entry[6] for entry in entries if is_write(entry)]
        check_sequences(used, self.first_sequence, self._count)
        self._used += used
        if aside is not None:
            keys = [(row[0], aside) for row in rows]
            self._owner._set_aside(self._con, self._namespace, "", self.generation, keys)
        self._owner._put_rows(self._con, self.generation, rows)
        append(self._con, self._owner.sql, entries)

    def finish(self) -> None:
        """Only sequences that were used count as given out: the next write goes on behind them."""
        if not self._touched:
            return
        con = self._con
        con.execute(
            "UPDATE memops_store SET epoch = ?, sequence = max(sequence, ?), newest = max(newest, ?)",
            (self.epoch, max(self._used, default=0), self.at),
        )
        con.execute(
            "UPDATE memops_namespace SET lock_number = max(lock_number, ?) WHERE name = ?", (self.lock, self._namespace)
        )
        note_given(con, self.epoch, self._used)


class Applications(Connected):
    """The applications' part of ``Store``."""

    @contextlib.contextmanager
    def writing(self, namespace: str, count: int, wait: float = 30.0) -> t.Iterator[SqliteWrite]:
        deadline = time.monotonic() + wait
        while True:
            with self._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
                control, blocked = self._serving(con, namespace)
                if blocked is None:
                    held = self._held.get(namespace)
                    number = control[2] + 1 if held is None else held
                    write = SqliteWrite(self, con, namespace, count, control, number)
                    yield write
                    write.finish()
                    return
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    def _serving(
        self, con: sqlite3.Connection, namespace: str
    ) -> tuple[tuple[t.Any, ...], NamespaceLocked | None]:
        """(generation, ttl, lock number) of a namespace that applications may write, and who blocks it if anybody.

        Errors: NamespaceDamaged; NamespaceQuarantined; NamespaceLocked when this object's lock was taken over.
        """
        refuse_astray(con, self.sql, namespace)
        query = (
            "SELECT generation, ttl, lock_number, state, incident, lock_held, lock_actor, lock_since, lock_until "
            "FROM memops_namespace WHERE name = ?"
        )
        row = con.execute(query, (namespace,)).fetchone()
        if row is None:
            self._make_namespace(con, namespace, "serving", None)
            row = con.execute(query, (namespace,)).fetchone()
        if row[3] != "serving":
            raise quarantined(namespace, row[4], row[3])
        mine, held = self._held.get(namespace), row[5]
        if mine is not None and (held != mine or row[2] != mine):  # somebody wrote in between
            del self._held[namespace]
            raise lock_lost(namespace, mine, row[6] if held not in (None, mine) else None)
        now = self.clock()
        if held is None or held == mine or row[8] <= now:
            return row[:3], None
        until = believed_end(row[8], now, row[8] - row[7])
        if until != row[8]:  # a clock that jumped back must not make a lease last for years
            con.execute("UPDATE memops_namespace SET lock_until = ? WHERE name = ?", (until, namespace))
        return row[:3], locked(namespace, row[6], row[7], until)

    def lock(self, namespace: str, actor: str, wait: float, lease: float) -> int:
        deadline = time.monotonic() + wait
        length = int(lease * 1_000_000)
        while True:
            with self._transaction() as con:
                control, blocked = self._serving(con, namespace)
                now = self.clock()
                if blocked is None:
                    number = int(self._held.get(namespace) or control[2] + 1)
                    con.execute(
                        "UPDATE memops_namespace SET lock_number = max(lock_number, ?), lock_held = ?, lock_actor = ?, "
                        "lock_since = ?, lock_until = ? WHERE name = ?",
                        (number, number, actor, now, now + length, namespace),
                    )
            if blocked is None:
                self._held[namespace] = number
                return number
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    def unlock(self, namespace: str, number: int) -> None:
        if self._held.get(namespace) == number:
            del self._held[namespace]
        with self._transaction() as con:
            con.execute(
                "UPDATE memops_namespace SET lock_held = NULL, lock_actor = NULL, lock_since = NULL, lock_until = NULL "
                "WHERE name = ? AND lock_held = ?",
                (namespace, number),
            )

    def set_ttl(self, namespace: str, ttl: float | None) -> bool:
        with self._transaction() as con:
            if self._namespace(con, namespace).ttl == ttl:
                return False
            con.execute("UPDATE memops_namespace SET ttl = ? WHERE name = ?", (ttl, namespace))
        return True

    def sweep(self, namespace: str, now: int, limit: int = 500) -> int:
        s = self.sql
        codec = RecordCodec(namespace)
        try:
            with self.writing(namespace, limit, wait=0.0) as write:
                found = self._con.execute(
                    f"SELECT {s.columns} FROM {s.table} WHERE {s.generation} = ? AND {s.expires} IS NOT NULL "
                    f"AND {s.expires} <= ? AND {s.deleted} IS NULL LIMIT ?",
                    (write.generation, now, limit),
                )
                # a damaged record may only look expired: it stays for the diagnosis
                gone = [(row[0], row[9]) for row in found if codec.intact(row)]
                if not gone:
                    return 0
                self._con.executemany(
                    f"DELETE FROM {s.table} WHERE {s.generation} = ? AND {s.key} = ?",
                    [(write.generation, key) for key, _digest in gone],
                )
                write.put(
                    [],
                    [
                        (0, write.at, namespace, "delete", key, write.epoch, write.first_sequence + number, digest)
                        + (write.lock, SWEEPER, "expired", b"")
                        for number, (key, digest) in enumerate(gone)
                    ],
                )
                return len(gone)
        except (NamespaceQuarantined, NamespaceLocked):
            return 0

    def drop_tombstones(self, namespace: str, rows: t.Sequence[Row]) -> int:
        s = self.sql
        if not rows:
            return 0
        with self.writing(namespace, 1) as write:
            return self._con.executemany(
                f"DELETE FROM {s.table} WHERE {s.generation} = ? AND {s.key} = ? AND {s.epoch} = ? "
                f"AND {s.sequence} = ? AND {s.deleted} = ? AND {s.checksum} = ?",
                [(write.generation, row[0], row[1], row[2], row[6], row[9]) for row in rows],
            ).rowcount

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        if state not in ("serving", "standby"):
            raise InvalidInput(f"A namespace cannot begin as {state!r}.", "use serving or standby")
        with self._transaction() as con:
            row = con.execute("SELECT state FROM memops_namespace WHERE name = ?", (name,)).fetchone()
            if row is not None:
                return False
            self._make_namespace(con, name, state, ttl)
        return True
