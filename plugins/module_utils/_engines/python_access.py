# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object, and beside it a SQLite file with what is the collection's own.

PRIVATE to the collection. Incidents, leases, what lies aside and what is staged stand in that file, by the code of the
native layout; it is made with the first thing that an operator changes.
"""
from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import typing as t
import weakref
from dataclasses import replace

from .._errors import InvalidInput, NamespaceUnknown
from .._layouts import Layout, layout
from .._model import Claim, NamespaceState, Row, StoreIdentity
from .leases import busy_timeout
from .python_reader import MOVING, ObjectReader, known_to, moving_of, unknown
from .python_remote import Remote, Spec, spec_of
from .sqlite import SqliteStore, _make, _path
from .sqlite_connect import connect, read_identity, sqlite_errors
from .sqlite_schema import RecordsSql

TABLES: t.Final = (
    "CREATE TABLE IF NOT EXISTS memops_object (one INTEGER PRIMARY KEY CHECK (one = 1), factory TEXT NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS {MOVING} (namespace TEXT PRIMARY KEY, former INTEGER NOT NULL, "
    "target INTEGER NOT NULL, saved INTEGER NOT NULL)",
    # the TTL that was there before a quarantine lowered it; why: it was not lowered
    "CREATE TABLE IF NOT EXISTS memops_lowered (namespace TEXT PRIMARY KEY, ttl REAL, why TEXT)",
)
HOOKS = frozenset(("quarantine", "release"))
BY_HOOKS = frozenset(("fence-reads", "fence-writes"))


class ObjectAccess(SqliteStore):
    """Both of them, opened: what all parts of the store share."""

    remote: Remote
    declared: tuple[str, ...]
    control: str  # the path of the file
    blank: str | None = None  # the folder of one without content, as long as nothing was changed
    gone: t.Callable[[], t.Any]  # takes that folder away

    @classmethod
    def opened(cls, params: t.Mapping[str, t.Any], chosen: Layout) -> t.Any:
        control, seconds, spec = _path(params), busy_timeout(params), spec_of(params)
        declared = params.get("namespaces") or ()
        if isinstance(declared, str) or not all(isinstance(name, str) and name for name in declared):
            raise InvalidInput(
                f"memory_store.namespaces is {declared!r:.80}, not a list of names.", "write it as a list"
            )
        kind, path, blank = replace(layout("native"), name=chosen.name), control, None
        if not os.path.exists(control):
            blank = tempfile.mkdtemp(prefix="memops-")
            path = os.path.join(blank, "store.db")
        try:
            if blank is not None:
                with sqlite_errors(path):
                    _make(path, RecordsSql(kind))
            store = cls(path, kind, seconds)
        except BaseException:
            shutil.rmtree(blank or "", ignore_errors=True)
            raise
        store.control, store.blank = control, blank
        if blank is not None:  # a reader may outlive its store, which nobody closes then
            store.gone = weakref.finalize(store, shutil.rmtree, blank, True)
        store.remote, store.declared = Remote(spec), tuple(declared)
        try:
            store._recognise()
            with sqlite_errors(path):
                if blank is None:
                    store._same_object(spec)
                else:
                    for text in TABLES:
                        store._con.execute(text)
        except BaseException:
            store.close()
            raise
        return store

    def _same_object(self, spec: Spec) -> None:
        """Errors: InvalidInput for the file of another object."""
        there = self._con.execute("SELECT 1 FROM sqlite_master WHERE name = 'memops_object'").fetchone()
        row = self._con.execute("SELECT factory FROM memops_object").fetchone() if there else None
        if row is None:
            raise InvalidInput(
                f"{self.control} is no file of a memory object's own.",
                "name another file in memory_store.path: it is made with the first thing that is changed",
            )
        if row[0] != spec.factory:
            raise InvalidInput(
                f"The file {self.control} belongs to the memory object of {row[0]}, not of {spec.factory}.",
                "correct memory_store.factory, or name another memory_store.path for this object",
            )

    def _make_control(self) -> None:
        if self.blank is None:
            return
        with sqlite_errors(self.control):
            if not os.path.exists(self.control):
                _make(self.control, self.sql)
            con = connect(self.control, self.busy_timeout)
            try:
                con.execute("BEGIN IMMEDIATE")
                for text in TABLES:
                    con.execute(text)
                con.execute("INSERT OR IGNORE INTO memops_object VALUES (1, ?)", (self.remote.spec.factory,))
                con.execute("COMMIT")
            except BaseException:
                con.close()
                raise
        self._forget_blank()
        self.path, self._con, self.blank = self.control, con, None
        self._inode = self._file()
        self._recognise()
        self._same_object(self.remote.spec)

    def _forget_blank(self) -> None:
        super().close()
        self.gone()

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[sqlite3.Connection]:
        self._make_control()
        with super()._transaction() as con:  # pylint: disable=contextmanager-generator-missing-cleanup
            yield con

    def close(self) -> None:
        self.remote.close()
        if self.blank is not None:
            self._forget_blank()
            self.blank = None
        else:
            super().close()

    # --- what it is ---------------------------------------------------------------------------------------------
    def hooked(self) -> bool:
        """Whether the object itself keeps the application away, and lets the operator pass."""
        return bool(self.remote.spec.operator_arguments) and self.remote.offers() >= HOOKS

    def capabilities(self) -> frozenset[str]:
        found = {"generations", "outside-fence", *(BY_HOOKS if self.hooked() else ())}
        return frozenset(found & layout(self.sql.layout).capabilities)

    def identity(self) -> StoreIdentity:
        if self.blank is not None:
            return StoreIdentity("", "", "python", self.sql.layout, 0, 0)
        with sqlite_errors(self.path):
            return replace(read_identity(self._con), engine="python")

    def reader(self, point: str | None = None) -> ObjectReader:
        with sqlite_errors(self.path):
            con = self._idle.pop() if self._idle else connect(self.path, self.busy_timeout, read_only=True)
        made = self.blank is None
        return ObjectReader(con, self.path, self.sql, self._take_back, self.remote, self.declared, made, self.hooked())

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        """The object keeps no former state."""
        yield "now"

    # --- namespaces ---------------------------------------------------------------------------------------------
    def _namespace(self, con: sqlite3.Connection, name: str) -> NamespaceState:
        """A namespace has a control row from the first time that an operator changes something about it."""
        try:
            return super()._namespace(con, name)
        except NamespaceUnknown:
            if not known_to(self.remote, self.declared, name):
                raise unknown(self.remote, name) from None
        self._make_namespace(con, name, "serving", None)
        return super()._namespace(con, name)

    def state_of(self, name: str) -> NamespaceState:
        with self.reader() as reader:
            return reader.namespace(name)

    def moving(self, name: str) -> tuple[int, int, int] | None:
        with sqlite_errors(self.path):
            return moving_of(self._con, name)

    def generations(self, namespace: str) -> list[int]:
        if not self.state_of(namespace).generation:
            return [0]
        return super().generations(namespace)

    # --- what the native layout does and this one need not ------------------------------------------------------
    def _log(self, con: sqlite3.Connection, claim: Claim, operation: str, reason: str) -> None:
        """There is no access log to keep."""

    def _sample(self, con: sqlite3.Connection, generation: int, rows: t.Sequence[Row]) -> None:
        """Nobody cuts what lies in the file into parts."""
