# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Streaming replication of a PostgreSQL server. What a rejoin does on the host is postgresql_rejoin.py's.

PRIVATE to the collection.

The store's owner needs, once on the primary: ``GRANT pg_monitor, pg_checkpoint TO owner`` and, in the store's database,
``GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO owner``; both reach the replicas by themselves.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._engines.leases import busy_timeout
from .._engines.postgresql_errors import NO_RIGHT
from .._engines.postgresql_session import Address, Session
from .._errors import CannotProceed, MemoryOpsError, StoreUnavailable
from . import Standing
from . import postgresql_clients as clients
from .postgresql_rejoin import Rejoin

POLL_SECONDS: t.Final = 0.02
CONFLICT: t.Final = "40001"  # what a replica replays ended the statement that waited; what that began goes on
STANDING: t.Final = """
WITH here AS (SELECT pg_is_in_recovery() AS replica)
SELECT h.replica,
  (pg_wal_lsn_diff(CASE WHEN h.replica THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                        ELSE pg_current_wal_flush_lsn() END, '0/0'))::bigint,
  (SELECT system_identifier FROM pg_control_system())::text,
  (CASE WHEN h.replica THEN coalesce(r.received_tli, (SELECT timeline_id FROM pg_control_checkpoint()))
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END)::bigint,
  r.pid IS NOT NULL, r.status::text, coalesce(r.sender_host, '')::text, coalesce(r.sender_port, 0)::bigint,
  extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)::float8,
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8,
  current_setting('default_transaction_read_only')::text
FROM here h LEFT JOIN pg_stat_wal_receiver r ON true"""
REPLICAS: t.Final = """
SELECT coalesce(host(client_addr), 'local') || ':' || coalesce(client_port, -1),
  coalesce(pg_wal_lsn_diff(replay_lsn, '0/0'), 0)::bigint
FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1"""


class PostgresqlServer:
    """See Server."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params
        self.address = Address(params, busy_timeout(params))
        self.notes: list[str] = []  # what was done that a person wants to know
        self._kept: Session | None = None

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any]) -> PostgresqlServer:
        return cls(params)

    def _session(self) -> Session:
        if self._kept is None or not self._kept.usable:
            self._kept = self.address.connect()
        return self._kept

    def _row(self, text: str, *values: t.Any) -> t.Any:
        """Once more on a new connection when the kept one was lost."""
        try:
            return self._session().row(text, *values)
        except StoreUnavailable:
            if self._kept is not None and self._kept.usable:
                raise
        return self._session().row(text, *values)

    def standing(self) -> Standing:
        row = self._row(STANDING)
        replica, position, system, timeline, receives, status, host, port, silent, behind, read_only = row
        history = f"{system}/{timeline}"
        if not replica:
            replicas = tuple((str(where), int(at)) for where, at in self._session().rows(REPLICAS))
            return Standing("primary", position, history, replicas=replicas, writable=read_only == "off")
        if receives and status is None:
            raise self._needs_monitor()
        return Standing(
            "replica", position, history, upstream=f"{host}:{port}" if receives else None,
            link=status == "streaming", silent_seconds=silent if receives else behind, writable=False,
            behind_seconds=behind,
        )  # fmt: skip

    def follows(self, standing: Standing, other: Standing) -> bool:
        return (
            standing.role == "replica"
            and other.role == "primary"
            and bool(standing.link)
            and standing.history == other.history
        )

    def applied(self, position: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while True:
            row = self._row("SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_replay_lsn(), '0/0'), '0/0')::bigint")
            if row[0] >= position:
                return int(row[0])
            if time.monotonic() > deadline:
                raise CannotProceed(
                    f"The replica {self.address.where} lacks {position - row[0]} bytes of its primary's changes after "
                    f"{timeout:g} s.",
                    "look at pg_stat_wal_receiver there, then run the same command again",
                )
            time.sleep(POLL_SECONDS)

    def appointed(self) -> bool:
        return False

    def promote(self, timeout: float) -> Standing:
        deadline = time.monotonic() + timeout
        if not self._row("SELECT pg_is_in_recovery()")[0]:
            return self.standing()
        session = self._session()
        try:
            done = session.row("SELECT pg_promote(true, %s)", max(1, int(timeout)))[0]
        except MemoryOpsError:
            if session.state == CONFLICT and time.monotonic() < deadline:
                return self.promote(deadline - time.monotonic())
            if session.state != NO_RIGHT:
                raise
            raise CannotProceed(
                f"This user may not promote {self.address.where}.",
                f"on the primary: GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {self._user()}",
            ) from None
        if not done:
            raise StoreUnavailable(
                f"{self.address.where} was told to become a primary and did not within {timeout:g} s.",
                "look at its log, then run the same command again",
            )
        return self.standing()

    def unacknowledged(self) -> tuple[str, str] | None:
        return clients.unacknowledged(self._session())

    def step_aside(self, application: str | None) -> str:
        return clients.step_aside(self._session(), application)

    def step_back(self) -> None:
        clients.step_back(self._session())

    def follow(self, primary: t.Mapping[str, t.Any], timeout: float) -> Standing:
        with contextlib.closing(PostgresqlServer.open(primary)) as source:
            theirs = source.standing()
            if theirs.role != "primary":
                raise CannotProceed(
                    f"{source.address.where} is a replica itself.", "name the primary in memory_store.url there"
                )
            if not self._follows_now(theirs):
                source.checkpoint()  # pg_rewind of 15 looks for the source's timeline in its last checkpoint
                self.close()
                rejoin = Rejoin(self.params, self.address.where, source.address)
                rejoin.run(theirs.history.partition("/")[0])
                self.notes += rejoin.notes
            return self._caught_up(source, timeout)

    def checkpoint(self) -> None:
        session = self._session()
        try:
            session.say("CHECKPOINT")
        except MemoryOpsError:
            if session.state != NO_RIGHT:
                raise
            raise StoreUnavailable(
                f"This user may not run CHECKPOINT on {self.address.where}.",
                f"on the primary: GRANT pg_checkpoint TO {self._user()}",
            ) from None

    def _follows_now(self, theirs: Standing) -> bool:
        try:
            return self.follows(self.standing(), theirs)
        except StoreUnavailable:  # stopped, or killed: that is what a rejoin is for
            return False

    def _caught_up(self, source: PostgresqlServer, timeout: float) -> Standing:
        deadline = time.monotonic() + timeout
        while True:
            theirs, why = source.standing(), "it is not connected"
            try:
                mine = self.standing()
                if self.follows(mine, theirs):
                    self.applied(theirs.position, max(0.0, deadline - time.monotonic()))
                    return self.standing()
            except StoreUnavailable as exc:  # still starting
                why = exc.message
            if time.monotonic() > deadline:
                raise CannotProceed(
                    f"{self.address.where} does not follow {source.address.where} after {timeout:g} s: {why}",
                    "look at the log of its server, then run the same command again",
                )
            time.sleep(0.1)

    def _needs_monitor(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"This user may not see how {self.address.where} replicates.",
            f"on the primary: GRANT pg_monitor TO {self._user()}",
        )

    def _user(self) -> str:
        return str(self.address.arguments.get("user") or "the store's owner")

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
