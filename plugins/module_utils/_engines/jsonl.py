# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON Lines files of another application: one file is one namespace.

PRIVATE to the collection. Incidents, leases and claims are those of the native layout, by the same code.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from .._layouts.lines import LinesLayout
from .._model import IncidentState, StoreIdentity
from .applications_own import WithoutLog
from .jsonl_connect import identity_of, is_placing
from .jsonl_file import file_errors
from .jsonl_files import Files
from .jsonl_generations import LinesGenerations
from .jsonl_reader import LinesReader, copy_file, prepare_copy
from .jsonl_structure import LinesStructure
from .leases import busy_timeout
from .sqlite_connect import sqlite_errors
from .sqlite_incidents import Incidents
from .tables_sqlite_copies import private_file

CAPABILITIES = frozenset(("fence-reads", "fence-raw-reads", "fence-writes", "generations"))


class LinesStore(WithoutLog, LinesGenerations, LinesStructure, Incidents):
    """See _store.Store. One connection writes the control file; every reader has connections of its own."""

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: LinesLayout, *, create: bool = False) -> LinesStore:
        """The application makes its files itself, whatever ``create``; with it none need be there yet."""
        seconds = busy_timeout(params)
        files = Files(params.get("path"), seconds)
        with file_errors(files.path):
            files.look(create)
        with sqlite_errors(files.control):
            return cls(files, layout, seconds)

    def layout_name(self) -> str:
        return self.layout.name

    def capabilities(self) -> frozenset[str]:
        return CAPABILITIES & self.layout.capabilities

    def identity(self) -> StoreIdentity:
        with sqlite_errors(self.path):
            return identity_of(self.control(), self.layout)

    def reader(self, point: str | None = None) -> LinesReader:
        return LinesReader(self.files, self.layout, self.busy_timeout, point)

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        with contextlib.ExitStack() as held:
            copy = held.enter_context(private_file(self.files.control))
            with sqlite_errors(self.path):
                control = self.control()
                if control is not None:
                    control.execute("BEGIN IMMEDIATE")  # no operator changes anything while the readers begin
                    held.callback(control.execute, "ROLLBACK")
                with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as con, self.reader() as reader:
                    prepare_copy(con)
                    for state in reader.namespaces():
                        path = self.files.of(state.name).source(is_placing(control, state.name))
                        if path is not None:
                            copy_file(con, self.layout, path, state.name, self.busy_timeout)
            yield copy

    def incidents(self, namespace: str | None = None) -> list[IncidentState]:
        return [] if self.control() is None else super().incidents(namespace)

    def create_namespace(self, name: str, state: str = "serving", ttl: float | None = None) -> bool:
        self.files.of(name)
        with self._transaction() as con:
            if con.execute("SELECT 1 FROM memops_namespace WHERE name = ?", (name,)).fetchone():
                return False
            self._make_namespace(con, name, "serving")
            if state != "serving":
                self._take_in(con, self._namespace(con, name))
                con.execute("UPDATE memops_namespace SET state = ? WHERE name = ?", (state, name))
                self._after.append(self.files.of(name).clean)
        return True

    def settle(self) -> None:
        """Every commit is on the disk already."""

    def close(self) -> None:
        self._con.close()
