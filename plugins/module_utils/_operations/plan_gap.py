# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What neither a readable snapshot nor the write log tells: the writes between the snapshot and the log's beginning.

PRIVATE to the collection. Old entries of writes go once good snapshots hold them. Where these are lost, or a part of
one cannot be read, an older copy says nothing of what was changed or deleted in between.
"""

from __future__ import annotations

import bisect
import typing as t

from .._model import DELETED, EPOCH, SEQUENCE, Row
from .commands import counted, named

Version = t.Tuple[int, int]
Missed = t.List[t.Tuple[t.Any, t.Any]]
NOTHING: t.Final = (0, 0)
LISTED = 100  # keys


class Source(t.Protocol):
    """A verified copy to repair from: a snapshot, taken when the store stood at ``position``."""

    id: str

    @property
    def position(self) -> Version: ...

    def scan(
        self, namespace: str, first: str | None = None, last: str | None = None, missed: Missed | None = None
    ) -> t.Iterator[list[Row]]: ...

    def get_many(self, namespace: str, keys: t.Sequence[str]) -> dict[str, Row]: ...

    def log(self, namespace: str) -> t.Iterator[list[t.Any]]: ...


class Base:
    """The newest snapshot's copies; where a part of it cannot be read, those of the next one that has that part."""

    def __init__(self, sources: t.Sequence[Source]) -> None:
        self._sources = sources
        #: Of each source the ranges of keys (first and last) of which it could not be read, ascending.
        self._firsts: list[list[str]] = [[] for dummy in sources]
        self._lasts: list[list[str]] = [[] for dummy in sources]

    def scan(self, namespace: str) -> t.Iterator[list[Row]]:
        return self._part(namespace, 0, None, None)

    def _part(self, namespace: str, number: int, first: str | None, last: str | None) -> t.Iterator[list[Row]]:
        if number == len(self._sources):
            return
        missed: Missed = []
        for rows in self._sources[number].scan(namespace, first, last, missed):
            yield from self._instead(namespace, number, missed)
            yield rows
        yield from self._instead(namespace, number, missed)

    def _instead(self, namespace: str, number: int, missed: Missed) -> t.Iterator[list[Row]]:
        """The rows of a range that was missed: chunks in a row, as one."""
        ends = [one for one in missed if isinstance(one[0], str) and isinstance(one[1], str)]
        missed.clear()
        if ends:
            self._firsts[number].append(ends[0][0])
            self._lasts[number].append(ends[-1][1])
            yield from self._part(namespace, number + 1, ends[0][0], ends[-1][1])

    def _of(self, key: str) -> Source | None:
        """Whose copy of the key this is; to be asked once the scan has come that far."""
        for source, firsts, lasts in zip(self._sources, self._firsts, self._lasts):
            number = bisect.bisect_right(firsts, key) - 1
            if number < 0 or key > lasts[number]:
                return source
        return None

    def name(self, key: str) -> str | None:
        source = self._of(key)
        return source.id if source is not None else None

    def position(self, key: str) -> Version:
        source = self._of(key)
        return source.position if source is not None else NOTHING

    def used(self) -> list[tuple[str | None, Version]]:
        """(id, position) of every source that had to tell of some keys, and of nothing where the last one could not."""
        count = next((number for number, firsts in enumerate(self._firsts) if not firsts), len(self._sources))
        found: list[tuple[str | None, Version]] = [(one.id, one.position) for one in self._sources[: count + 1]]
        return found if count < len(self._sources) else [*found, (None, NOTHING)]


class Gap:
    """``pruned``: the version up to which entries of writes may be gone in good order."""

    def __init__(self, base: Base, pruned: Version) -> None:
        self.base, self.pruned = base, pruned
        self._kept = 0
        self._keys: list[str] = []

    def _behind(self, position: Version) -> bool:
        # sequences go on in the next epoch; where another copy's begins, its versions lie above what it was filled with
        return position < self.pruned and position[1] < self.pruned[1]

    def open(self, key: str) -> bool:
        """Whether a write or deletion of the key may have been that nobody tells of any more."""
        return self._behind(self.base.position(key))

    def keeps(self, key: str, version: Version) -> bool:
        """Whether an intact row was written then. It stays: a good snapshot proved it when its entry went, and the only
        copy there is now is older. It is listed."""
        position = self.base.position(key)
        if not (self._behind(position) and position < version <= self.pruned):
            return False
        self._kept += 1
        if len(self._keys) < LISTED:
            self._keys.append(key)
        return True

    def action(self, key: str, copy: Row | None, live: Row | None, doubtful: Row | None) -> str | None:
        """What becomes of a key without a good row and without an entry; ``copy``: the good one of the base. None: what
        there is tells as much as ever.

        Nothing is brought back to where nothing is, as it may have been deleted: absent, for a person to decide. What
        is damaged and older or newer than the copy is lost, and the copy served in its place.
        """
        row = live if doubtful is None else doubtful
        if not self.open(key) or (copy is None and (row is None or doubtful is not None)):
            return None
        copied = (copy[EPOCH], copy[SEQUENCE]) if copy is not None else NOTHING
        if row is None:
            return "absent" if copy is not None and copy[DELETED] is None else None
        version = (row[EPOCH], row[SEQUENCE])
        whole = version[0].__class__ is int and version[1].__class__ is int
        if whole and version == copied:
            return None  # as far as what is left can tell, the very version that was copied
        if whole and copy is None and version > self.pruned:
            return None  # nobody acknowledged it
        if doubtful is None and row[DELETED] is not None and not (whole and version < copied):
            return "expired"
        return "lost"

    def facts(self) -> dict[str, t.Any] | None:
        """For the plan's summary; None: there is no gap."""
        open_at = [name for name, position in self.base.used() if self._behind(position)]
        return {"snapshot": open_at[0], "kept": self._kept, "keys": self._keys} if open_at else None


UNKNOWN = "nobody knows what became of it since the snapshot"


def doubt(gap: t.Mapping[str, t.Any]) -> str:
    """The sentence about ``Gap.facts``."""
    since = f"after snapshot {gap['snapshot']} was taken" if gap["snapshot"] else "though no snapshot can be read"
    text = f"the write log begins {since}: nobody can tell what was changed or deleted in between"
    if gap["kept"]:
        text += f"; {counted(gap['kept'], 'record')} of that time kept as found, unproven: {named(gap['keys'])}"
    return text
