# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing records of an application's own memory object, in place and all at once.

PRIVATE to the collection. The object has no transactions: in place, a change looks, keeps the former row aside, looks
again, calls ``write`` or ``delete`` and reads back. All at once (``switch``): the former records are saved whole in the
file of the collection's own, then what is other is written and what is too much deleted, and all of it read back. The
file says from the first to the last call what is being done: whoever is killed in the middle, the same command goes on.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._codec import UNREADABLE, RecordCodec, why_unreadable
from .._errors import CannotProceed, InvalidInput
from .._extra_vars import for_namespace
from .._model import CHECKSUM, PAYLOAD, Change, Claim, NamespaceState, Row
from .._python_values import MAGIC
from .applications_own import ISOLATED
from .listed_keys import planned
from .python_fence import ObjectFence
from .python_reader import MOVING, PAGE, Listed, being_replaced, read_rows
from .sqlite_generations import DROP_ROWS
from .sqlite_schema import ASIDE_COLUMNS

PART = 20  # records that are changed under one look at the claim


class ObjectRecords(ObjectFence):
    """The parts of ``Store`` that change records."""

    _copying: tuple[str, Listed] | None = None  # the keys that a copy works through

    def close(self) -> None:
        if self._copying is not None:
            self._copying[1].close()
            self._copying = None
        super().close()

    def _live(self, namespace: str, keys: t.Sequence[str]) -> dict[str, Row]:
        codec = RecordCodec(namespace)
        return {row[0]: row for rows in read_rows(self.remote, codec, namespace, keys) for row in rows}

    # --- in place -------------------------------------------------------------------------------------------------
    def change(self, claim: Claim, changes: t.Sequence[Change], generation: int | None = None) -> list[str]:
        if generation is not None and generation != self.state_of(claim.namespace).generation:
            return super().change(claim, changes, generation)
        if self.moving(claim.namespace):
            raise being_replaced(claim.namespace)
        self.remote.need("write", "delete")
        refused: list[str] = []
        part: dict[str, Change] = {}
        for change in changes:
            _check_row(change.row)
            if change.key in part or len(part) >= PART:  # a key's second change sees its first
                refused += self._change_live(claim, part)
                part = {}
            part[change.key] = change
        return refused + (self._change_live(claim, part) if part else [])

    def _change_live(self, claim: Claim, part: t.Mapping[str, Change]) -> list[str]:
        """Changes of distinct keys; the refused ones."""
        name = claim.namespace
        live = self._live(name, list(part))
        refused = [key for key, change in part.items() if not _fits(change, live.get(key))]
        todo = {
            key: change
            for key, change in part.items()
            if key not in refused and not _is_there(change, live.get(key))
        }
        aside = [(change.aside, live[key]) for key, change in todo.items() if change.aside is not None and key in live]
        if aside:  # it is on the disk before the object is asked for anything
            with self._operating(claim) as con:
                self._keep(con, claim, aside)
        if not todo:
            return refused
        with self._operating(claim) as con:
            now = self._live(name, list(todo))
            for key in [key for key in todo if now.get(key) != live.get(key)]:
                change = todo.pop(key)
                refused.append(key)
                if change.aside is not None and key in live:
                    _no_longer_aside(con, claim, change.aside, live[key])
            wanted = {key: change.row for key, change in todo.items()}
            self._put(claim, wanted, now, soft=True)
            for key, row in wanted.items():
                if row is not None and key not in now:
                    _came_back(con, name, row)
        return refused

    def _keep(self, con: sqlite3.Connection, claim: Claim, rows: t.Sequence[tuple[str, Row]]) -> None:
        """Set rows aside under their reasons; one that lies there already (of a run that was killed) once."""
        marks = ", ".join("?" * 10)
        con.executemany(
            f"INSERT INTO memops_aside (namespace, incident, reason, at, {ASIDE_COLUMNS}) SELECT ?, ?, ?, ?, {marks} "
            "WHERE NOT EXISTS (SELECT 1 FROM memops_aside WHERE namespace = ? AND incident = ? AND reason = ? "
            "AND key = ? AND checksum = ?)",
            [
                (claim.namespace, claim.incident, why, self.clock(), *row)
                + (claim.namespace, claim.incident, why, row[0], row[CHECKSUM])
                for why, row in rows
            ],
        )

    def _put(
        self, claim: Claim, wanted: t.Mapping[str, Row | None], now: t.Mapping[str, Row], soft: bool
    ) -> None:
        """Call the object, and read back. ``now``: what is there. Errors: CannotProceed when it is not as wanted."""
        name = claim.namespace
        gone = [key for key, row in wanted.items() if row is None or now.get(key, row)[CHECKSUM] == UNREADABLE]
        rows = [(key, row[PAYLOAD]) for key, row in wanted.items() if row is not None]
        if gone:
            self.remote.ask("operator", "delete", name, gone, soft)
        if rows:
            with self.writing_lasts(name):
                self.remote.ask("operator", "write", name, rows, f"memops {claim.incident}")
        there = self._live(name, list(wanted))
        for key, row in wanted.items():
            if there.get(key) != row:
                called, found = ("delete", "still there") if row is None else ("write", "not what was written")
                raise CannotProceed(
                    f"{called} of the memory object was called for {key!r:.80}, and what read gives then is {found}.",
                    "run the object's conformance suite (docs/python_memory.md), then run the same command again",
                )

    # --- all at once ----------------------------------------------------------------------------------------------
    def load(self, claim: Claim, generation: int, rows: t.Sequence[Row]) -> None:
        for row in rows:
            _check_row(row)
        super().load(claim, generation, rows)

    def copy_generation(
        self, claim: Claim, source: int, target: int, *, after: str | None, limit: int, excluding: str | None
    ) -> str | None:
        """The keys are listed when a copy begins (``after`` is None)."""
        name = claim.namespace
        if source != self.state_of(name).generation:
            raise InvalidInput(f"Generation {source} is not the active one.", "copy the active one")
        if self._copying is None or after is None or self._copying[0] != name:
            if self._copying is not None:
                self._copying[1].close()
            self._copying = (name, Listed(self.remote, name))
        keys = self._copying[1].page(name, after, None, None, min(limit, PAGE), False)
        if not keys:
            self._copying[1].close()
            self._copying = None
            return None
        without = planned(excluding, keys)
        codec = RecordCodec(name)
        for rows in read_rows(self.remote, codec, name, [key for key in keys if key not in without]):
            bad = next((row for row in rows if why_unreadable(row)), None)
            if bad is not None:
                raise CannotProceed(
                    f"The record {bad[0]!r:.80} cannot be read any more, and the plan does not know: "
                    f"{why_unreadable(bad)}.",
                    "run the diagnose step again with memory_again=true",
                )
            super().load(claim, target, rows)
        return keys[-1]

    def switch(self, claim: Claim, generation: int, expected: int) -> bool:
        name = claim.namespace
        moving = self.moving(name)
        if moving:
            self.finish_switch(claim)
            if moving[1] == generation:
                return True
        self.remote.need("list_keys", "read", "write", "delete")
        with self._operating(claim) as con:
            space = self._namespace(con, name)
            if space.generation == generation:
                return False
            self._own(con, claim, generation)
            if space.generation != expected:
                raise CannotProceed(
                    f"Namespace {name!r:.80} is at generation {space.generation}, not {expected}.",
                    "make the plan again from the present state",
                )
            self._needs_fence(space)
            con.execute(f"INSERT INTO {MOVING} VALUES (?, ?, ?, 0)", (name, expected, generation))
        self.finish_switch(claim)
        return True

    def _needs_fence(self, space: NamespaceState) -> None:
        if space.state == "serving" and self.remote.ask("operator", "some", space.name, 1):
            raise CannotProceed(
                f"Applications can reach the records of namespace {space.name!r:.80}; they are not replaced under "
                "their hands.",
                f"isolate it first: ansible-playbook memops.agent_memory.isolate {for_namespace(space.name)}",
            )

    def finish_switch(self, claim: Claim) -> None:
        """Carry a switch that was begun to its end."""
        name = claim.namespace
        moving = self.moving(name)
        if moving is None:
            return
        former, target, saved = moving
        if not saved:
            self._clear(claim, former)
            self._save(claim, former)
            with self._operating(claim) as con:
                con.execute(f"UPDATE {MOVING} SET saved = 1 WHERE namespace = ?", (name,))
        self._carry(claim, target)
        self._same(claim, target)
        with self._operating(claim) as con:
            con.execute("UPDATE memops_namespace SET generation = ? WHERE name = ?", (target, name))
            con.execute(f"DELETE FROM {MOVING} WHERE namespace = ?", (name,))
        self._clear(claim, target)  # the object has it

    def _listed(self, name: str) -> t.Iterator[list[str]]:
        listed, after = Listed(self.remote, name), None
        try:
            while keys := listed.page(name, after, None, None, PAGE, False):
                yield keys
                after = keys[-1]
        finally:
            listed.close()

    def _save(self, claim: Claim, former: int) -> None:
        """Every record as it is, those too that nobody can read: for these stands why."""
        codec = RecordCodec(claim.namespace)
        for keys in self._listed(claim.namespace):
            for rows in read_rows(self.remote, codec, claim.namespace, keys):
                with self._operating(claim, unfenced=True) as con:
                    self._put_rows(con, former, rows)

    def _staged(self, generation: int, keys: t.Sequence[str]) -> set[str]:
        s, found = self.sql, set()
        for start in range(0, len(keys), 400):
            part = keys[start : start + 400]
            found |= {
                key
                for (key,) in self._con.execute(
                    f"SELECT {s.key} FROM {s.table} WHERE {s.generation} = ? AND {s.key} IN "
                    f"({', '.join('?' * len(part))})", (generation, *part),
                )
            }  # fmt: skip
        return found

    def _pages(self, generation: int, size: int) -> t.Iterator[list[Row]]:
        s, after = self.sql, ""
        while True:
            rows = self._con.execute(
                f"SELECT {s.columns} FROM {s.table} WHERE {s.generation} = ? AND {s.key} > ? ORDER BY {s.key} LIMIT ?",
                (generation, after, size),
            ).fetchall()
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def _carry(self, claim: Claim, target: int) -> None:
        """Write what is other, delete what is too much."""
        name = claim.namespace
        for rows in self._pages(target, PART):
            with self._operating(claim):
                now = self._live(name, [row[0] for row in rows])
                # what nobody could read when it was saved cannot be written
                other = {r[0]: r for r in rows if now.get(r[0]) != r and why_unreadable(r) is None}
                if other:
                    self._put(claim, other, now, soft=False)
        for keys in self._listed(name):
            staged = self._staged(target, keys)
            extra = [key for key in keys if key not in staged]
            for start in range(0, len(extra), PART):
                with self._operating(claim):
                    self._put(claim, dict.fromkeys(extra[start : start + PART]), {}, soft=False)

    def _same(self, claim: Claim, target: int) -> None:
        """Errors: CannotProceed unless the object holds the records of the target, and nothing else. Each was compared
        when it was carried; where nothing keeps applications away all of them are once more."""
        name, s = claim.namespace, self.sql
        wanted = found = 0
        for rows in self._pages(target, 500):
            good = [row for row in rows if why_unreadable(row) is None]
            wanted += len(good)
            if self.hooked():
                found += len(good)
                continue
            now = self._live(name, [row[0] for row in good])
            found += sum(now.get(row[0]) == row for row in good)
        unread = self._con.execute(
            f"SELECT count(*) FROM {s.table} WHERE {s.generation} = ? AND {s.checksum} = ?", (target, UNREADABLE)
        ).fetchone()[0]
        listed = sum(map(len, self._listed(name)))
        if found != wanted or not wanted <= listed <= wanted + unread:
            raise CannotProceed(
                f"The memory object holds {found} of {wanted} records of {name!r:.80} as they were to be, and lists "
                f"{listed}; the quarantine stays.",
                "see to it that no application writes, then run the same command again, which goes on",
            )

    def _clear(self, claim: Claim, generation: int) -> None:
        """Take what lies in the file of a generation away."""
        s = self.sql
        while True:
            with self._operating(claim, unfenced=True) as con:
                rows = con.execute(
                    f"DELETE FROM {s.table} WHERE {s.generation} = ? AND {s.key} IN "
                    f"(SELECT {s.key} FROM {s.table} WHERE {s.generation} = ? LIMIT ?)",
                    (generation, generation, DROP_ROWS),
                ).rowcount
            if not rows:
                return

    def drop_generation(self, claim: Claim, generation: int) -> int:
        if self.moving(claim.namespace):
            raise being_replaced(claim.namespace)
        return super().drop_generation(claim, generation)


def _check_row(row: Row | None) -> None:
    """Errors: InvalidInput for what no record of an object can be."""
    if row is not None and (row[6] is not None or row[7] or not bytes(row[PAYLOAD]).startswith(MAGIC)):
        raise InvalidInput(
            f"The record {row[0]!r:.80} is none of this layout, or its value was never read.",
            "take it from a snapshot of this store",
        )


def _is_there(change: Change, live: Row | None) -> bool:
    return live is None if change.row is None else live == tuple(change.row)


def _fits(change: Change, live: Row | None) -> bool:
    """Whether the change may be made, or was made already."""
    if _is_there(change, live):
        return True
    if live is not None and why_unreadable(live) and (change.aside or "").startswith(ISOLATED):
        return False  # what nobody can read would not come back
    return (live is None and change.expected is None) or (live is not None and live[CHECKSUM] == change.expected)


def _no_longer_aside(con: sqlite3.Connection, claim: Claim, reason: str, row: Row) -> None:
    con.execute(
        "DELETE FROM memops_aside WHERE namespace = ? AND incident = ? AND reason = ? AND key = ? AND checksum = ?",
        (claim.namespace, claim.incident, reason, row[0], row[CHECKSUM]),
    )


def _came_back(con: sqlite3.Connection, namespace: str, row: Row) -> None:
    """What was isolated and is back in its place lies aside no more: the application may delete it now."""
    con.execute(
        "DELETE FROM memops_aside WHERE namespace = ? AND substr(reason, 1, ?) = ? AND key = ? AND checksum = ?",
        (namespace, len(ISOLATED), ISOLATED, row[0], row[CHECKSUM]),
    )
