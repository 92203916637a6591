# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of generations, and the plan file beside them, as every store in SQLite has them.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
import urllib.parse

from .._errors import InvalidInput
from .._model import Claim
from .sqlite_connect import Opened, sqlite_errors


class NumberedGenerations(Opened):
    """The part of ``Store`` that begins generations."""

    def _prepare(self, con: sqlite3.Connection) -> None:
        """Make what holds rows of generations that are not the active one."""

    def begin_generation(self, claim: Claim) -> int:
        with self._operating(claim) as con:
            self._namespace(con, claim.namespace)
            self._prepare(con)
            number = con.execute(
                "INSERT INTO memops_generation (namespace, created, incident) VALUES (?, ?, ?)",
                (claim.namespace, self.clock(), claim.incident),
            ).lastrowid
        if number is None:
            raise AssertionError("number")
        return number

    @contextlib.contextmanager
    def _attached(self, plan: str) -> t.Iterator[None]:
        """The plan file is there as memops_plan."""
        if not os.path.isfile(plan):
            raise InvalidInput(f"There is no plan file {plan}.", "make the plan first")
        uri = "file:" + urllib.parse.quote(os.path.abspath(plan)) + "?mode=ro"
        with sqlite_errors(plan):
            self._con.execute("ATTACH ? AS memops_plan", (uri,))
        try:
            yield
        finally:
            with sqlite_errors(plan):
                self._con.execute("DETACH memops_plan")
