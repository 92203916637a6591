# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sessions and transactions of one open PostgreSQL store.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import time
import typing as t

from .._errors import MemoryOpsError, NamespaceUnknown, StoreUnavailable
from .._model import Claim, NamespaceState, Row, StoreIdentity
from .control_rows import astray, astray_why
from .leases import check_claim
from .postgresql_arrays import Blobs
from .postgresql_control import own_generation, refuse_lost
from .postgresql_fence import OPERATING
from .postgresql_rows import columns_of, escaped, lenient, names_of
from .postgresql_schema import SAMPLE_MASK, RecordsSql
from .postgresql_session import BAD_VALUE, SNAPSHOT, WRITING, Address, Session, bad_record

NAMESPACE_COLUMNS: t.Final = (
    "name, state, generation, ttl, serving_ttl, incident, prior_ttl, prior_state, "
    "restored_snapshot, restored_epoch, restored_sequence, restored_at, restored_digest"
)
STANDBY_SECONDS: t.Final = 5.0


def wall_clock() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def identity_query(s: RecordsSql) -> str:
    return f"SELECT store_id, lineage, layout, epoch, sequence FROM {s.store}"


def store_identity(row: tuple[t.Any, ...]) -> StoreIdentity:
    return StoreIdentity(row[0], row[1], "postgresql", row[2], row[3], row[4])


def namespace_state(row: tuple[t.Any, ...]) -> NamespaceState:
    return NamespaceState(lenient(row[0]), *row[1:])


def read_namespace(session: Session, s: RecordsSql, name: str, where: str, lock: str = "") -> NamespaceState:
    """Errors: NamespaceUnknown, NamespaceDamaged."""
    row = session.row(
        f"SELECT {NAMESPACE_COLUMNS}, {own_generation(s)} FROM {s.namespace} n WHERE name = %s {lock}", escaped(name)
    )
    if row is None:
        refuse_lost(session, s, name)
        raise NamespaceUnknown(
            f"The store {where} has no namespace {name!r:.80}.",
            "name one of those that the playbook memops.agent_memory.info lists",
        )
    state = namespace_state(row[:-1])
    why = astray_why(state.state, state.prior_state, state.generation, row[-1])
    if why is not None:
        raise astray(name, why)
    return state


class Connected:
    """The session of one open store, and the two kinds of write transactions that all parts use."""

    def __init__(self, address: Address, sql: RecordsSql) -> None:
        self.address = address
        self.sql = sql
        self.path = address.where  # what messages call this store
        self.clock: t.Callable[[], int] = wall_clock
        self._held: dict[str, int] = {}  # namespace → number of the write lock that this object holds
        # what this object imported last: namespace, the store's log_id after it, the newest (epoch, sequence) of it
        self._imported: tuple[str, int, tuple[int, int]] | None = None
        self._idle: list[Session] = []
        self._main = address.connect()

    def _session(self) -> Session:
        """The one for short questions and for writing; a new one after a fork or when the former was lost."""
        if not self._main.usable:
            self._main.close()
            self._main = self.address.connect()
        return self._main

    def _begun(self, mode: str) -> Session:
        """The main session in a transaction of this mode. One that was lost since its last use is replaced."""
        session = self._session()
        if not session.idle:
            raise RuntimeError("a transaction is open in this store: end it first")
        try:
            session.begin(mode)
        except StoreUnavailable:
            if session.usable:
                raise
            session = self._session()
            session.begin(mode)
        return session

    def _borrow(self, mode: str, *more: str) -> tuple[Session, t.Any]:
        """A session beside the main one, in a transaction of this mode, and what ``Session.begin`` gave; give it back
        with ``_take_back``."""
        while True:
            kept = bool(self._idle)
            session = self._idle.pop() if kept else self.address.connect()
            try:
                if session.idle:
                    return session, session.begin(mode, *more)
            except MemoryOpsError:
                if not kept or session.usable:  # else it was lost since its last use
                    self._take_back(session)
                    raise
            session.close()

    @contextlib.contextmanager
    def _asking(self) -> t.Iterator[Session]:
        """For questions: in the transaction that is open, or in one of their own."""
        if self._main.usable and not self._main.idle:
            yield self._main
            return
        session = self._begun(SNAPSHOT)
        try:
            yield session
        finally:
            session.roll_back()

    def _take_back(self, session: Session) -> None:
        session.roll_back()
        if session.idle and len(self._idle) < 2:
            self._idle.append(session)
        else:
            session.close()

    def close(self) -> None:
        for session in [*self._idle, self._main]:
            session.close()
        self._idle = []

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[Session]:
        """BEGIN … COMMIT; rolled back when the body raises."""
        session = self._begun(WRITING)
        try:
            yield session
            session.commit()
        except BaseException:
            session.roll_back()
            raise

    def _of_operator(self, session: Session) -> None:
        """The commit of this transaction waits for no standby for longer than for another writer."""
        if session.replicated:
            session.patience = min(self.address.busy_timeout, STANDBY_SECONDS)

    @contextlib.contextmanager
    def _operating(
        self, claim: Claim, *, unfenced: bool = False, alone: bool = False, later: bool = False
    ) -> t.Iterator[Session]:
        """A transaction of an operator: the claim holds until its end. ``unfenced`` makes the trigger let it pass;
        ``alone``: no other transaction of this incident at the same time (it changes the incident itself);
        ``later``: a bulk change that ``settle`` or any other commit makes durable."""
        with self._transaction() as session:  # pylint: disable=contextmanager-generator-missing-cleanup
            self._of_operator(session)
            self._check(session, claim, "FOR UPDATE" if alone else "FOR SHARE")
            settings = [f"set_config('{OPERATING}', 'on', true)"] if unfenced else []
            if later:  # and what the trigger is shown of the rows stays in memory
                settings += ["set_config('synchronous_commit', 'off', true)", "set_config('work_mem', '16MB', true)"]
            if settings:
                session.rows(f"SELECT {', '.join(settings)}")
            yield session

    def _check(self, session: Session, claim: Claim, lock: str = "") -> None:
        row = session.row(
            f"SELECT attempt, token, state, owner FROM {self.sql.incident} "
            f"WHERE namespace = %s AND incident = %s {lock}",
            escaped(claim.namespace), claim.incident,
        )  # fmt: skip
        check_claim(claim, None if row is None else tuple(row[:3]))

    def _namespace(self, session: Session, name: str, lock: str = "") -> NamespaceState:
        return read_namespace(session, self.sql, name, self.path, lock)

    def _make_namespace(self, session: Session, name: str, state: str, ttl: float | None) -> bool:
        """Errors: NamespaceDamaged where it was made before."""
        if session.row(f"SELECT 1 FROM {self.sql.namespace} WHERE name = %s", escaped(name)) is None:
            refuse_lost(session, self.sql, name)
        row = session.row(
            f"SELECT {self.sql.schema}.memops_create_namespace(%s, %s::text, %s::double precision, %s::bigint)",
            escaped(name), state, ttl, self.clock(),
        )  # fmt: skip
        return bool(row[0])

    def _put_rows(self, session: Session, generation: int, rows: t.Sequence[Row]) -> None:
        """Insert or replace, and sample the keys."""
        if not rows:
            return
        newest = {row[0]: row for row in rows}  # one statement cannot replace a row twice
        rows = rows if len(newest) == len(rows) else list(newest.values())
        try:
            columns = columns_of(rows)
        except BAD_VALUE as exc:
            raise bad_record(self.path, exc) from None
        session.run(self.sql.upsert(), generation, *columns)
        self._sample(session, generation, rows)

    def _sample(self, session: Session, generation: int, rows: t.Sequence[Row]) -> None:
        sampled = [row[0].encode() for row in rows if not row[2] & SAMPLE_MASK]
        sampled = [key for key in sampled if len(key) < 1000]
        if sampled:
            session.run(
                f"INSERT INTO {self.sql.sample} SELECT %s, w.key FROM unnest(%s) AS w(key) ON CONFLICT DO NOTHING",
                generation, Blobs(sampled),
            )  # fmt: skip

    def _set_aside(
        self, session: Session, namespace: str, incident: str, generation: int, keys: t.Sequence[tuple[str, str]]
    ) -> None:
        """Keep the present rows of these (key, reason) pairs beside."""
        s = self.sql
        session.run(
            f"INSERT INTO {s.aside} (namespace, incident, reason, at, key, epoch, sequence, created, updated, expires, "
            f"deleted, key_id, payload, checksum) SELECT %s, %s, w.reason, %s, {s.whole} FROM "
            f"unnest(%s, %s, %s) WITH ORDINALITY AS w(key, mark, reason, number) {s.probe} ORDER BY w.number",
            escaped(namespace), incident, self.clock(),
            *names_of([key for key, dummy in keys]), Blobs([escaped(reason) for dummy, reason in keys]), generation,
        )  # fmt: skip

    def _remove(self, session: Session, generation: int, keys: t.Sequence[str]) -> int:
        return session.run(
            f"DELETE FROM {self.sql.table} t USING (SELECT r.place FROM unnest(%s, %s) AS w(key, mark) "
            f"{self.sql.probe} OFFSET 0) AS x WHERE t.ctid = x.place",
            *names_of(keys), generation,
        )  # fmt: skip

    def _keep_up(self, session: Session, epoch: int, sequence: int, at: int) -> None:
        """The store's counters never fall behind what it holds, so that its next write is the newest."""
        session.run(
            f"UPDATE {self.sql.store} s SET newest = greatest(s.newest, w.at), "
            "epoch = CASE WHEN (s.epoch, s.sequence) < (w.epoch, w.sequence) THEN w.epoch ELSE s.epoch END, "
            "sequence = CASE WHEN (s.epoch, s.sequence) < (w.epoch, w.sequence) THEN greatest(s.sequence, w.sequence) "
            "ELSE s.sequence END FROM (SELECT %s::bigint, %s::bigint, %s::bigint) AS w(epoch, sequence, at) "
            "WHERE s.newest < w.at OR (s.epoch, s.sequence) < (w.epoch, w.sequence)",
            epoch, sequence, at,
        )  # fmt: skip

    def _keep_up_with(self, session: Session, rows: t.Sequence[Row]) -> None:
        if rows:
            epoch, sequence = max((row[1], row[2]) for row in rows)
            self._keep_up(session, epoch, sequence, max(row[4] for row in rows))
