# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Choose the snapshots that a rebuild may take copies from.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import KeyUnavailable, SnapshotUnusable
from .._model import KEY, Row
from .other_copies import OtherCopies

MAX_SOURCES = 8
PURPOSES = ("scheduled", "baseline")


class Sources:
    """The good snapshots of a namespace, newest first, and why others were passed over."""

    def __init__(self, snapshots: list[t.Any], passed_over: list[str]) -> None:
        self.snapshots = snapshots
        self.passed_over = passed_over

    def by_id(self) -> dict[str, t.Any]:
        return {snapshot.id: snapshot for snapshot in self.snapshots}

    def drop(self, snapshot_id: str, why: str) -> None:
        self.snapshots = [s for s in self.snapshots if s.id != snapshot_id]
        self.note(f"{snapshot_id}: {why}")

    def note(self, why: str) -> None:
        if why not in self.passed_over:
            self.passed_over.append(why)


class Copies:
    """A snapshot to plan from: what of it cannot be read is noted and left out, the rest still counts.

    Errors: SnapshotUnusable with the attribute ``snapshot`` when nothing of it can be read.
    """

    def __init__(
        self,
        snapshot: t.Any,
        note: t.Callable[[str], None],
        today: t.Callable[[t.Any, t.Iterable[Row]], list[Row]] | None = None,
    ) -> None:
        """``today``: how its rows would be now, where the store's tables have other columns since."""
        self.id: str = snapshot.id
        self.purpose: str = snapshot.info.purpose
        self.position: tuple[int, int] = (snapshot.info.epoch, snapshot.info.sequence)
        self._snapshot = snapshot
        self._today = today
        self._note = note

    def scan(
        self,
        namespace: str,
        first: str | None = None,
        last: str | None = None,
        missed: list[tuple[t.Any, t.Any]] | None = None,
    ) -> t.Iterator[list[Row]]:
        """Rows in key order, of ``first`` to ``last`` where these are given. Of each chunk that cannot be read
        ``missed`` gets the first and last key before anything that comes after it."""
        chunks = self._chunks(namespace)
        if first is not None and last is not None:
            chunks = [chunk for chunk in chunks if not (chunk.last_key < first or last < chunk.first_key)]
        while chunks:
            done = 0
            try:
                for _chunk, rows in self._snapshot.read(chunks):
                    if first is not None and last is not None:
                        rows = tuple(row for row in rows if first <= row[KEY] <= last)
                    yield list(rows) if self._today is None else self._today(self._snapshot, rows)
                    done += 1
                return
            except SnapshotUnusable as exc:
                self._note(f"{self.id}: {exc.message}")
                if missed is not None:
                    missed.append((chunks[done].first_key, chunks[done].last_key))
                chunks = chunks[done + 1 :]

    def get_many(self, namespace: str, keys: t.Sequence[str]) -> dict[str, Row]:
        self._chunks(namespace)
        try:
            found: dict[str, Row] = self._snapshot.get_many(namespace, keys)
            if self._today is None:
                return found
            return {row[0]: row for row in self._today(self._snapshot, found.values())}
        except SnapshotUnusable as exc:
            if len(keys) <= 1:
                self._note(f"{self.id}: {exc.message}")
                return {}
        middle = len(keys) // 2
        return {**self.get_many(namespace, keys[:middle]), **self.get_many(namespace, keys[middle:])}

    def log(self, namespace: str) -> t.Iterator[list[t.Any]]:
        """The access log in it, as far as it can be read."""
        try:
            yield from self._snapshot.log(namespace)
        except SnapshotUnusable as exc:
            self._note(f"{self.id}: {exc.message}")

    def _chunks(self, namespace: str) -> list[t.Any]:
        try:
            return list(self._snapshot.chunks(namespace))
        except SnapshotUnusable as exc:
            exc.snapshot = self.id  # type: ignore[attr-defined]
            raise


def choose(
    repository: t.Any,
    name: str,
    keyring: t.Any,
    namespace: str,
    *,
    others: OtherCopies | None,
    only: t.Sequence[str] = (),
    limit: int = MAX_SOURCES,
) -> Sources:
    """Good snapshots that hold ``namespace``; with ``only``, exactly these ids, whatever their purpose.

    Evidence of a damaged state (forensic), suspect snapshots and those that do not authenticate are never sources.
    ``others`` judges those of other copies of the store; None where there is no store to compare with.
    """
    chosen: list[t.Any] = []
    passed_over: list[str] = []
    for info in repository.snapshots(name, keyring):
        if only and info.id not in only:
            continue
        if info.problem:
            passed_over.append(f"{info.id}: {info.problem}")
            continue
        if not only and info.purpose not in PURPOSES:
            continue
        if len(chosen) >= limit:
            break
        try:
            snapshot = repository.snapshot(name, info.id, keyring)
            if not snapshot.good and not only:
                passed_over.append(f"{info.id}: it is not good (suspect or forensic)")
            elif namespace in snapshot.namespaces():
                why = None if only or others is None else others.strange(snapshot)
                if why is not None:
                    passed_over.append(f"{info.id}: {why}")
                else:
                    chosen.append(snapshot)
        except (SnapshotUnusable, KeyUnavailable) as exc:
            passed_over.append(f"{info.id}: {exc.message}")
    return Sources(chosen, passed_over)


def bring_keys(sources: Sources, keyring: t.Any, *, check: bool) -> list[str]:
    """Record keys that the keyring lost and a snapshot still has come back; their ids. In check mode only in memory."""
    back: list[str] = []
    for snapshot in sources.snapshots:
        wrapped = snapshot.wrapped_keys()
        back += keyring.borrow(wrapped) if check else keyring.adopt(wrapped)
    return back
