# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong around another application's JSON Lines files, and what is no damage but should be known.

PRIVATE to the collection. Lines that the application cannot read are damaged records; here they are told in words.
"""
from __future__ import annotations

import contextlib
import os
import re
import sqlite3

from .._errors import MemoryOpsError
from .._model import NamespaceState
from .._words import counted
from .jsonl_connect import is_placing, shown
from .jsonl_fence import LinesFence
from .jsonl_reader import LinesReader
from .jsonl_remarks import states, structure
from .sqlite_connect import sqlite_errors


class LinesStructure(LinesFence):
    """The structural part of ``Store``."""

    def warnings(self) -> list[str]:
        found: list[str] = []
        with sqlite_errors(self.path), contextlib.suppress(sqlite3.DatabaseError):  # damage is told by ``structure``
            for state in states(self.control(), self.files):
                found += self._of(state)
        return found

    def _of(self, state: NamespaceState) -> list[str]:
        name, file = state.name, self.files.of(state.name)
        con = self.control()
        placing = is_placing(con, name)
        found = []
        if shown(state, file).state != state.state:
            found.append(
                f"{name!r:.80}: a step that was cut short keeps its application out; run the same command again, or "
                "the release playbook"
            )
        path = file.source(placing) if state.state == "serving" else None
        if path is not None:
            found += [f"{name!r:.80}: {one}" for one in self._file_remarks(path)]
            with (
                contextlib.suppress(MemoryOpsError),
                LinesReader(self.files, self.layout, self.busy_timeout, None) as reader,
            ):
                found += [f"{name!r:.80}: {one}" for one in reader.remarks(name)]
        elif state.state == "serving" and not file.fenced():
            found.append(
                f"{name!r:.80}: there is no file {file.path}; its server shows an empty memory and makes a new file "
                "with its next write"
            )
        return found

    def _file_remarks(self, path: str) -> list[str]:
        found = []
        status = os.stat(path)
        if self.layout.largest and status.st_size > self.layout.largest * 3 // 4:
            found.append(f"the file has {status.st_size} bytes; the server reads {self.layout.largest} at most")
        if status.st_nlink > 1:
            found.append("the file has several names (hard links): a fence keeps nobody from the others")
        folder, base = os.path.split(path)
        drafts = re.compile(re.escape(base) + self.layout.drafts)
        left = [one for one in os.listdir(folder) if self.layout.drafts and drafts.fullmatch(one)]
        if left:
            found.append(
                f"{counted(len(left), 'draft')} of a server that was killed {'lies' if len(left) == 1 else 'lie'} "
                f"beside it ({sorted(left)[0]}), with memories in {'it' if len(left) == 1 else 'them'}"
            )
        return found

    def repair_structure(self) -> list[str]:
        """Fences that somebody took away; what it did."""
        with sqlite_errors(self.path):
            if not structure(self.control(), self.files):
                return []
        done: list[str] = []
        with self._transaction() as con:
            for state in list(states(con, self.files)):
                if state.state != "serving":
                    done += self._raise_again(con, state, state.incident or "")
        return done
