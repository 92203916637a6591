# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What applications do with a PostgreSQL store: write under the namespace's lock, live by its TTL.

PRIVATE to the collection.

A write holds the row of its namespace (the write lock) and the store's row (sequences and log ids) until it ends:
sequences become visible in their order, and a snapshot that has one has all before it.
"""
from __future__ import annotations

import contextlib
import time
import typing as t

from .._codec import RecordCodec
from .._errors import InvalidInput, NamespaceLocked, NamespaceQuarantined
from .._model import CHECKSUM, DELETED, EPOCH, KEY, SEQUENCE, Row
from .control_rows import astray, astray_why
from .leases import POLL_SECONDS, SWEEPER, believed_end, check_sequences, lock_lost, locked, quarantined
from .postgresql_arrays import Blobs, Ints
from .postgresql_connect import Connected
from .postgresql_control import own_generation
from .postgresql_log import insert_entries, is_write, note_given
from .postgresql_rows import bounded, decoded, escaped, lenient, names_of, payload_fetcher, rows_of
from .postgresql_session import Session


class PostgresqlWrite:
    """See _store.Write."""

    def __init__(
        self, owner: Applications, session: Session, namespace: str, count: int, control: tuple[t.Any, ...], lock: int
    ) -> None:
        self._owner, self._session, self._namespace, self._count = owner, session, namespace, count
        self.generation: int = control[0]
        self.ttl: float | None = control[1]
        self.lock = lock
        # Counters that went back are passed over: what is given out twice would count as older than a snapshot's.
        row = session.row(
            "SELECT s.epoch, s.sequence, s.newest, s.log_id, g.epoch, g.last "
            f"FROM {owner.sql.store} s LEFT JOIN LATERAL (SELECT epoch, last FROM {owner.sql.given} "
            "ORDER BY epoch DESC, first DESC LIMIT 1) g ON true FOR NO KEY UPDATE OF s"
        )
        self.epoch, sequence = max((row[0], row[1]), (row[4] or 0, row[5] or 0))
        self.first_sequence: int = sequence + 1
        self.at: int = max(owner.clock(), row[2])
        self._log_id: int = row[3]
        self._used: list[int] = []
        self._touched = False

    def current(self, keys: t.Sequence[str]) -> dict[str, Row]:
        return rows_of(self._session, self._owner.sql, self.generation, keys)

    def put(
        self, rows: t.Sequence[Row], entries: t.Sequence[tuple[t.Any, ...]], aside: str | None = None
    ) -> None:
        self._touched = True
        used = [entry[6] for entry in entries if is_write(entry)]
        check_sequences(used, self.first_sequence, self._count)
        self._used += used
        if aside is not None:
            keys = [(row[0], aside) for row in rows]
            self._owner._set_aside(self._session, self._namespace, "", self.generation, keys)
        self._owner._put_rows(self._session, self.generation, rows)
        bare = [(*entry[:11], b"") for entry in entries]
        insert_entries(self._session, self._owner.sql, self._log_id + 1, bare, self._owner.path)
        self._log_id += len(bare)

    def finish(self) -> None:
        """Only sequences that were used count as given out: the next write goes on behind them."""
        if not self._touched:
            return
        s = self._owner.sql
        self._session.run(
            f"WITH control AS (UPDATE {s.namespace} SET lock_number = greatest(lock_number, %s) WHERE name = %s) "
            f"UPDATE {s.store} SET sequence = greatest(sequence, %s), newest = greatest(newest, %s), log_id = %s",
            self.lock, escaped(self._namespace), max(self._used, default=0), self.at, self._log_id,
        )  # fmt: skip
        note_given(self._session, s, self.epoch, self._used)


class Applications(Connected):
    """The applications' part of ``Store``."""

    @contextlib.contextmanager
    def writing(self, namespace: str, count: int, wait: float = 30.0) -> t.Iterator[PostgresqlWrite]:
        deadline = time.monotonic() + wait
        while True:
            with self._transaction() as session:  # pylint: disable=contextmanager-generator-missing-cleanup
                control, blocked = self._serving(session, namespace)
                if blocked is None:
                    held = self._held.get(namespace)
                    number = control[2] + 1 if held is None else held
                    write = PostgresqlWrite(self, session, namespace, count, control, number)
                    yield write
                    write.finish()
                    return
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    def _serving(self, session: Session, namespace: str) -> tuple[tuple[t.Any, ...], NamespaceLocked | None]:
        """(generation, ttl, lock number) of a namespace that applications may write, and who blocks it if anybody.

        The namespace's row is held from now on. Errors: NamespaceQuarantined; NamespaceLocked when this object's lock
        was taken over.
        """
        query = (
            "SELECT generation, ttl, lock_number, state, incident, lock_held, lock_actor, lock_since, lock_until, "
            f"prior_state, {own_generation(self.sql)} FROM {self.sql.namespace} n WHERE name = %s FOR NO KEY UPDATE"
        )
        row = session.row(query, escaped(namespace))
        if row is None:
            self._make_namespace(session, namespace, "serving", None)
            row = session.row(query, escaped(namespace))
        why = astray_why(row[3], row[9], row[0], row[10])
        if why is not None:
            raise astray(namespace, why)
        if row[3] != "serving":
            raise quarantined(namespace, row[4], row[3])
        mine, held, actor = self._held.get(namespace), row[5], lenient(row[6])
        if mine is not None and (held != mine or row[2] != mine):  # somebody wrote in between
            del self._held[namespace]
            raise lock_lost(namespace, mine, actor if held not in (None, mine) else None)
        now = self.clock()
        if held is None or held == mine or row[8] <= now:
            return row[:3], None
        until = believed_end(row[8], now, row[8] - row[7])
        if until != row[8]:  # a clock that jumped back must not make a lease last for years
            session.run(f"UPDATE {self.sql.namespace} SET lock_until = %s WHERE name = %s", until, escaped(namespace))
        return row[:3], locked(namespace, actor, row[7], until)

    def lock(self, namespace: str, actor: str, wait: float, lease: float) -> int:
        deadline = time.monotonic() + wait
        length = int(lease * 1_000_000)
        while True:
            with self._transaction() as session:
                control, blocked = self._serving(session, namespace)
                now = self.clock()
                if blocked is None:
                    number = int(self._held.get(namespace) or control[2] + 1)
                    session.run(
                        f"UPDATE {self.sql.namespace} SET lock_number = greatest(lock_number, %s), lock_held = %s, "
                        "lock_actor = %s, lock_since = %s, lock_until = %s WHERE name = %s",
                        number, number, escaped(actor), now, now + length, escaped(namespace),
                    )  # fmt: skip
            if blocked is None:
                self._held[namespace] = number
                return number
            if time.monotonic() >= deadline:
                raise blocked
            time.sleep(POLL_SECONDS)

    def unlock(self, namespace: str, number: int) -> None:
        if self._held.get(namespace) == number:
            del self._held[namespace]
        with self._transaction() as session:
            session.run(
                f"UPDATE {self.sql.namespace} SET lock_held = NULL, lock_actor = NULL, lock_since = NULL, "
                "lock_until = NULL WHERE name = %s AND lock_held = %s",
                escaped(namespace), number,
            )  # fmt: skip

    def set_ttl(self, namespace: str, ttl: float | None) -> bool:
        with self._transaction() as session:
            if self._namespace(session, namespace).ttl == ttl:
                return False
            session.run(f"UPDATE {self.sql.namespace} SET ttl = %s WHERE name = %s", ttl, escaped(namespace))
        return True

    def sweep(self, namespace: str, now: int, limit: int = 500) -> int:
        codec = RecordCodec(namespace)
        try:
            with self.writing(namespace, limit, wait=0.0) as write:
                session = self._session()
                page = session.rows(
                    f"SELECT {self.sql.long} FROM {self.sql.table} r WHERE r.generation = %s AND r.expires <= %s "
                    "AND r.deleted IS NULL LIMIT %s",
                    write.generation, now, limit,
                )  # fmt: skip
                fetch = payload_fetcher(session, self.sql, write.generation)
                # a damaged record may only look expired: it stays for the diagnosis
                gone = [
                    (row[0], row[9]) for part in bounded(page, fetch) for row in decoded(part) if codec.intact(row)
                ]
                if not gone:
                    return 0
                self._remove(session, write.generation, [key for key, dummy in gone])
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
        keys, epochs, sequences, deleted, checksums = (
            [row[column] for row in rows] for column in (KEY, EPOCH, SEQUENCE, DELETED, CHECKSUM)
        )
        with self.writing(namespace, 1) as write:
            return self._session().run(
                f"DELETE FROM {s.table} t USING (SELECT r.place FROM unnest(%s, %s, %s, %s, %s, %s) "
                f"AS w(key, mark, epoch, sequence, deleted, checksum) {s.probe} WHERE r.epoch = w.epoch "
                "AND r.sequence = w.sequence AND r.deleted = w.deleted AND r.checksum = w.checksum OFFSET 0) AS x "
                "WHERE t.ctid = x.place",
                *names_of(keys), Ints(epochs), Ints(sequences), Ints(deleted), Blobs(checksums), write.generation,
            )  # fmt: skip

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        if state not in ("serving", "standby"):
            raise InvalidInput(f"A namespace cannot begin as {state!r}.", "use serving or standby")
        with self._transaction() as session:
            return self._make_namespace(session, name, state, ttl)
