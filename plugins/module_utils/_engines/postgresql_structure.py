# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What PostgreSQL itself can tell about the health of a store, and what it can rebuild alone.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._codec import encodable
from .._errors import MemoryOpsError, StoreDamaged, StoreUnavailable
from .._words import counted
from .postgresql_connect import Connected
from .postgresql_control import lead_back, told
from .postgresql_errors import read_only
from .postgresql_fence import OPERATING, missing
from .postgresql_log import newest_given
from .postgresql_rows import lenient, split
from .postgresql_schema import RecordsSql, quoted
from .postgresql_session import WRITING, Session

MOST_LINES = 100
BEHIND = "the store's counters stand at {}.{}, behind {}.{}, which was given out"


def structure(session: Session, s: RecordsSql) -> list[str]:
    """Findings in words, at most MOST_LINES. Without amcheck (or the right to use it) indexes are not looked into."""
    lost = missing(session, s)
    lines = [f"{kind} {name} is missing or changed" for kind, name, dummy in lost]
    lines += [f"index {name} is invalid" for name in invalid_indexes(session, s)]
    if not any(kind == "table" for kind, dummy_name, dummy in lost):
        lines += behind(session, s) + told(session, s)
        lines += [f"index {name}: {text}" for name, text in damaged_indexes(session, s)]
        try:
            found = unreadable(session, s)
        except StoreDamaged as exc:
            found = {}
            lines.append(exc.message)
        lines += [
            f"generation {generation} holds {counted(len(keys), 'row whose key is', 'rows whose keys are')} no text"
            for generation, keys in sorted(found.items())
        ]
    return lines[:MOST_LINES]


def behind(session: Session, s: RecordsSql) -> list[str]:
    """A line when the store's counters are behind what was given out, as after a restore of single tables."""
    row, given = session.row(f"SELECT epoch, sequence FROM {s.store}"), newest_given(session, s)
    if row is None or (row[0], row[1]) >= given:
        return []
    return [BEHIND.format(row[0], row[1], *given)]


def invalid_indexes(session: Session, s: RecordsSql) -> list[str]:
    rows = session.rows(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND NOT (i.indisvalid AND i.indisready) "
        "ORDER BY 1",
        s.plain_schema,
    )
    return [row[0] for row in rows]


def index_check(session: Session) -> str | None:
    """The function of amcheck that looks into a B-tree, where it is there and may be called."""
    home = session.row(
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE e.extname = 'amcheck'"
    )
    if home is None:
        return None
    check = f"{quoted(home[0])}.bt_index_check"
    allowed = session.row("SELECT has_function_privilege(to_regprocedure(%s), 'EXECUTE')", f"{check}(regclass,boolean)")
    return check if allowed and allowed[0] else None


def damaged_indexes(session: Session, s: RecordsSql) -> list[tuple[str, str]]:
    """(index, what amcheck says) of every damaged B-tree; each row of a table must be in its index."""
    check = index_check(session)
    if check is None:
        return []
    rows = session.rows(
        "SELECT c.oid::bigint, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam "
        "WHERE n.nspname = %s AND a.amname = 'btree' AND i.indisvalid AND i.indisready ORDER BY 2",
        s.plain_schema,
    )
    found = []
    for number, name in rows:
        try:
            session.rows(f"SELECT {check}(%s::oid::regclass, true)", number)
        except StoreDamaged as exc:
            found.append((name, exc.message))
        except MemoryOpsError as exc:
            if not session.usable:
                raise ended(session, s.name(name)) from None
            if "transaction snapshot" not in exc.message:  # made after this reader began: nothing is wrong with it
                found.append((name, exc.message))
    return found


def ended(session: Session, index: str) -> MemoryOpsError:
    """Without data checksums nothing keeps a server's process from a damaged page, which may end it."""
    return StoreUnavailable(
        f"The connection to the store {session.where} was lost while amcheck looked into the index {index}.",
        "run the same command again when the server is back; where it ends there again, the index is damaged: "
        f"REINDEX INDEX {index}, as its owner",
    )


def unreadable(session: Session, s: RecordsSql) -> dict[int, list[bytes]]:
    """Rows whose key is no valid UTF-8, per generation. Most keys are plain ASCII: only the others come here."""
    found: dict[int, list[bytes]] = {}
    last: tuple[int, bytes, bytes] = (-(1 << 63), b"", b"")
    while True:
        rows = session.rows(
            f"SELECT generation, key, key_mark, key || key_rest FROM {s.table} WHERE (generation, key, key_mark) > "
            "(%s, %s, %s) AND position('\\' IN encode(key || key_rest, 'escape')) > 0 "
            "ORDER BY generation, key, key_mark LIMIT 2000",
            *last,
        )
        for row in rows:
            if not encodable(lenient(row[3])):
                found.setdefault(row[0], []).append(row[3])
        if len(rows) < 2000:
            return found
        last = rows[-1][:3]


class Structure(Connected):
    """The structural part of ``Store``."""

    application_user: str | None
    native = True  # the live records are rows of generations, too

    def need_primary(self) -> None:
        """See _store_optional.MayFollow."""
        with self._asking() as session:
            follows = session.row("SELECT pg_is_in_recovery()")[0]
        if follows:
            raise read_only(self.address.where)

    def warnings(self) -> list[str]:
        """See _store.Store. What applications set for themselves is not known here."""
        with self._asking() as session:
            row = session.row(
                "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
                "current_setting('synchronous_commit'), current_setting('data_checksums'), "
                "current_setting('synchronous_standby_names') <> '' AND NOT EXISTS (SELECT 1 FROM pg_stat_replication)"
            )
        lines = []
        if "off" in row[:2]:
            name = "fsync" if row[0] == "off" else "full_page_writes"
            lines.append(f"{name} is off: a crash of the server's machine may damage the whole store")
        if row[2] == "off":
            lines.append("synchronous_commit is off: a crash of the server may lose the last acknowledged writes")
        if row[4]:
            lines.append(
                "no standby of synchronous_standby_names is there: applications' writes wait for one without end, and "
                "what operators decide is on this server alone"
            )
        if row[3] == "off":
            lines.append(
                "data_checksums is off: damage on the server's disk may be read as data, or end the server's processes"
            )
        return lines

    def repair_structure(self) -> list[str]:
        session = self.address.connect()
        try:
            return self._mend(session)
        finally:
            session.close()

    def _mend(self, session: Session) -> list[str]:
        s = self.sql
        done: list[str] = []
        with _transaction(session):
            lost = missing(session, s)
            led = False  # an index that is lost cannot be made while two rows lead to one generation
            for kind, name, text in lost:  # tables come first
                if kind != "table" and not led:
                    led, done = True, done + self._lead_back(session)
                session.say(text)
                done.append(f"made the {kind} {name} again")
            done += [] if led else self._lead_back(session)
            if behind(session, s):
                epoch, sequence = newest_given(session, s)
                self._keep_up(session, epoch, sequence, 0)
                done.append(f"set the store's counters to {epoch}.{sequence}")
            if self.application_user and any(kind in ("table", "function") for kind, dummy_name, dummy in lost):
                for text in s.grants(self.application_user):
                    session.say(text)
        damaged = {name for name, dummy in damaged_indexes(session, s)} | set(invalid_indexes(session, s))
        for name in sorted(damaged):
            with contextlib.suppress(StoreDamaged):  # its table is broken
                session.say(f"REINDEX INDEX {s.name(name)}")
                done.append(f"rebuilt the index {name}")
        with contextlib.suppress(StoreDamaged):
            done += self._set_unreadable_aside(session)
        return done

    def lead_back(self) -> list[str]:
        """See _store_optional.ControlRows."""
        with self._transaction() as session:
            return self._lead_back(session)

    def _lead_back(self, session: Session) -> list[str]:
        session.rows(f"SELECT set_config('{OPERATING}', 'on', true)")
        return lead_back(session, self.sql, self.clock(), self.native)

    def _set_unreadable_aside(self, session: Session) -> list[str]:
        """Such rows cannot be reached by a key and would count for ever; their bytes are kept beside."""
        s = self.sql
        done = []
        for generation, keys in sorted(unreadable(session, s).items()):
            with _transaction(session):
                session.rows(f"SELECT set_config('{OPERATING}', 'on', true)")
                for head, _rest, mark in map(split, keys):
                    same = "r.generation = %s AND r.key = %s AND r.key_mark = %s"
                    session.run(
                        f"INSERT INTO {s.aside} (namespace, incident, reason, at, key, epoch, sequence, created, "
                        "updated, expires, deleted, key_id, payload, checksum) SELECT coalesce((SELECT g.namespace "
                        f"FROM {s.generation} g WHERE g.id = %s), ''), 'structure', 'the key is no text'::bytea, %s, "
                        f"{s.whole} FROM {s.table} r WHERE {same}",
                        generation, self.clock(), generation, head, mark,
                    )  # fmt: skip
                    session.run(f"DELETE FROM {s.table} r WHERE {same}", generation, head, mark)
            were = "key was" if len(keys) == 1 else "keys were"
            done.append(f"set {counted(len(keys), 'row')} of generation {generation} aside whose {were} no text")
        return done


@contextlib.contextmanager
def _transaction(session: Session) -> t.Iterator[None]:
    session.begin(WRITING)
    try:
        yield
        session.commit()
    except BaseException:
        session.roll_back()
        raise
