# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""From where a framework's own search is asked about tables in a SQLite file: the file itself, opened to be read alone.

PRIVATE to the collection. What is quarantined is not in the application's tables, so then it is a copy of the file in
which the quarantine is lifted.
"""
from __future__ import annotations

import contextlib
import os
import typing as t
import urllib.parse

from .._store_own import Framework, Place
from .sqlite_connect import sqlite_errors
from .tables_sqlite_connect import TablesOpened, state_of
from .tables_sqlite_copies import copied


class TablesSearch(TablesOpened):
    """See _store_own.HasOwnSearch."""

    def framework(self) -> Framework:
        return Framework(self.layout.search, self.layout.tables("sqlite")[0])

    @contextlib.contextmanager
    def searching(self, namespace: str, seconds: float) -> t.Iterator[Place]:
        with sqlite_errors(self.path):
            state = state_of(self._con, self.schema(self._con), namespace, self.path)
        if not self.held(state):
            yield Place(address(self.path), {}, (), namespace)
            return
        with copied(self._con, self.path) as copy:  # pylint: disable=contextmanager-generator-missing-cleanup
            lifted = TablesSearch(copy, self.layout, self.busy_timeout)
            try:
                with sqlite_errors(copy), lifted._transaction() as con:
                    lifted._unfence_writes(con, namespace)
                    lifted._put_in(con, namespace, state.generation)
                with sqlite_errors(copy):
                    lifted._con.execute("PRAGMA journal_mode = DELETE")  # it is one file again, which nobody writes
            finally:
                lifted._con.close()
            yield Place(address(copy), {}, (), namespace)


def address(path: str) -> str:
    return "file:" + urllib.parse.quote(os.path.abspath(path)) + "?mode=ro"
