# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence around a memory that is a JSON Lines file, and its proof.

PRIVATE to the collection. An application that reads the file with each call gets an error with each call, which it
tells its client; it neither believes in an empty memory nor writes a new one.
"""
from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import typing as t

from .._errors import CapabilityMissing
from .._model import Claim, NamespaceState
from .jsonl_connect import LinesOpened, shown, state_of
from .jsonl_file import file_errors
from .jsonl_rows import LineRows
from .leases import settable
from .sqlite_connect import sqlite_errors
from .sqlite_schema import ASIDE_COLUMNS

QUARANTINE_TTL: t.Final = 1.0
PAST: t.Final = "written past the fence"
BESIDE: t.Final = -1  # the generation under which a file is looked at that came past the fence


class LinesFence(LinesOpened):
    """The fence's part of ``Store``."""

    def fence(self, claim: Claim) -> bool:
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            if space.state == "quarantined":
                changed = bool(self._raise_again(con, space, claim.incident))
                if space.incident != claim.incident:  # left by an incident that was closed without a release
                    con.execute(
                        "UPDATE memops_namespace SET incident = ? WHERE name = ?", (claim.incident, claim.namespace)
                    )
                    changed = True
                return changed
            if not self.held(space):
                self._take_in(con, space)
                self._after.append(self.files.of(claim.namespace).clean)
            con.execute(
                "UPDATE memops_namespace SET prior_state = state, prior_ttl = serving_ttl, state = 'quarantined', "
                "serving_ttl = ?, incident = ? WHERE name = ?",
                (QUARANTINE_TTL, claim.incident, claim.namespace),
            )
        return True

    def unfence(self, claim: Claim) -> bool:
        file = self.files.of(claim.namespace)
        with self._operating(claim) as con:
            fenced = file.fenced()
            space = self._namespace(con, claim.namespace)
            if space.state != "quarantined":
                if self.held(space) or not file.fenced():
                    return fenced and not self.held(space)  # what was ready has taken its place
                with file_errors(file.path):
                    file.give_back()  # a step that was cut short had taken it
                return True
            self._raise_again(con, space, claim.incident)
            if space.prior_state == "serving":
                self._put_back(con, space)
            con.execute(
                "UPDATE memops_namespace SET state = prior_state, serving_ttl = prior_ttl, incident = NULL, "
                "prior_state = NULL, prior_ttl = NULL WHERE name = ?",
                (claim.namespace,),
            )
        return True

    def set_state(self, claim: Claim, state: str) -> bool:
        """In a quarantine this sets the state that the release brings back: nothing is served in between."""
        if settable(state) == "reading":
            raise CapabilityMissing(
                f"{claim.namespace} cannot be served read-only: its application replaces the file with each write.",
                "leave memory_secondary_writes out",
            )
        with self._operating(claim) as con:
            space = self._namespace(con, claim.namespace)
            column = "prior_state" if space.state == "quarantined" else "state"
            if getattr(space, column) == state:
                return False
            con.execute(f"UPDATE memops_namespace SET {column} = ? WHERE name = ?", (state, claim.namespace))
            if column == "state" and state == "serving":
                self._raise_again(con, space, claim.incident)
                self._put_back(con, space)
            elif column == "state" and space.state == "serving":
                self._take_in(con, space)
                self._after.append(self.files.of(claim.namespace).clean)
        return True

    def _raise_again(self, con: sqlite3.Connection, space: NamespaceState, incident: str) -> list[str]:
        """Where somebody took the fence away. What was written since is set aside; in words what was done."""
        file = self.files.of(space.name)
        if file.fenced():
            return []
        with file_errors(file.path):
            if file.holds_taken():
                file.clean()  # its lines are in the control file
            status = file.take()
            kept = 0
            if status is not None:
                rows = self.rows(con)
                rows.clear(BESIDE)
                with open(file.taken, "rb") as stream:
                    rows.load(BESIDE, stream)
                kept = self._keep_beside(con, rows, space, incident)
                rows.clear(BESIDE)
                self._after.append(file.clean)
        return [f"raised the fence of {space.name!r:.80} again; {kept} records that came past it lie aside"]

    def _keep_beside(self, con: sqlite3.Connection, rows: LineRows, space: NamespaceState, incident: str) -> int:
        kept = 0
        for found in rows.scan(BESIDE, space.name):
            known = rows.get_many(space.generation, space.name, [row[0] for row in found])
            new = [row for row in found if row[0] and not row[0].startswith("\0") and known.get(row[0]) != row]
            con.executemany(
                f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) "
                f"VALUES ({', '.join('?' * 14)})",
                [(space.name, incident, PAST, self.clock(), *row) for row in new],
            )
            kept += len(new)
        return kept

    # --- the proof ----------------------------------------------------------------------------------------------
    def prove(self, namespace: str) -> dict[str, t.Any]:
        file = self.files.of(namespace)
        detail: list[str] = []
        with sqlite_errors(self.path), file_errors(file.path):
            con = self.control()
            state = shown(state_of(con, self.files, namespace), file)
            fenced = state.state != "serving" and file.fenced()
            reads = fenced and _refused("read", file.path, detail, lambda: open(file.path, "rb").close())
            writes = False
            if fenced:  # only what cannot do harm is tried
                writes = _refused("write", file.path, detail, lambda: open(file.path, "r+b").close())
                writes = _refused("replace", file.path, detail, lambda: self._replace(file.path)) and writes
            else:
                detail.append(f"the namespace is {state.state}; {'a file' if file.there() else 'no file'} is there")
        return {
            "writes_refused": writes,
            "reads_refused": reads,
            "reads_accepted": state.state == "serving" and file.there(),
            "detail": detail,
            "not_fenced": [
                "a program that removes the directory that stands in the file's place",
                f"a program of this user or root that reads {self.files.control}",
                "a program in a container into which the file by itself is mounted (mount its directory)",
                "a program that reads the draft of a killed server beside the file",
            ],
        }

    def _replace(self, path: str) -> None:
        """As an application does that writes a new file and renames it."""
        probe = f"{path}.memops-probe-{secrets.token_hex(4)}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            os.rename(probe, path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)
            raise


def _refused(what: str, path: str, detail: list[str], act: t.Callable[[], None]) -> bool:
    try:
        act()
    except OSError as exc:
        detail.append(f"{what} {os.path.basename(path)}: {errno.errorcode.get(exc.errno or 0, str(exc))}")
        return exc.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM)
    detail.append(f"{what} {os.path.basename(path)}: accepted")
    return False
