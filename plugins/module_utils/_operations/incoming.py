# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How the rows of a snapshot go into a store that is not as it was then: time has passed, its tables have more columns,
or the namespace has another name.

PRIVATE to the collection. By default nothing of that is so, and rows come back bit by bit.
"""
from __future__ import annotations

import typing as t

from .._application_ciphers import FERNET
from .._application_seals import OPEN, SHUT, seals_of
from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._layouts import layout
from .._model import EXPIRES, KEY, PAYLOAD, Row
from .._repository import Snapshot
from .._store import Store
from .._table_moved import SECOND, rebased, renamed, resealed

EXPIRY: t.Final = ("keep", "rebase")


@t.runtime_checkable
class Widening(t.Protocol):
    """A store whose tables the application may have given more columns since a snapshot was taken."""

    def with_todays_columns(self, namespace: str, rows: t.Sequence[Row]) -> list[Row]:
        """The rows with the defaults of columns that came since. Errors: CannotProceed."""


def checked(store: Store, expiry: str) -> bool:
    """Whether expiries are to be moved. Errors: InvalidInput, CapabilityMissing."""
    if expiry not in EXPIRY:
        raise InvalidInput(
            f"memory_restore_expiry is {expiry!r:.40}.", f"set it to one of: {', '.join(EXPIRY)}"
        )
    if expiry == "keep":
        return False
    capabilities = store.capabilities()
    if "expiry" not in capabilities:
        raise CapabilityMissing(
            f"The records of the layout {store.identity().layout} have no expiry that could be moved.",
            "leave memory_restore_expiry at keep",
        )
    if "encryption" in capabilities:
        raise CapabilityMissing(
            "The expiry of a native record is sealed with it, and its write log vouches for it.",
            "leave memory_restore_expiry at keep, and set a longer TTL or write the records anew",
        )
    return True


class Incoming:
    """Rows of one snapshot on their way into ``store``. ``now``: µs, to which expiries are moved (None: they stay)."""

    def __init__(
        self,
        store: Store,
        store_params: t.Mapping[str, t.Any],
        namespace: str,
        target: str | None = None,
        now: int | None = None,
    ) -> None:
        self._store, self._namespace, self._target, self._now = store, namespace, target or namespace, now
        self._described = store_params.get("layout") or "native", store_params.get("tables")
        self._seals = seals_of(store_params) if self._target != namespace else None
        self._altering: dict[str, bool] = {}  # by snapshot
        self._widening = store if isinstance(store, Widening) else None

    @property
    def fixed(self) -> bool:
        """Whether the same rows come out whenever it is done."""
        return self._now is None

    def alters(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot's rows come out other than they are; looks at the first of them."""
        return self._now is not None or self._target != self._namespace or self._widens(snapshot)

    def _widens(self, snapshot: Snapshot) -> bool:
        if self._widening is None:
            return False
        if snapshot.id not in self._altering:
            widen, first = self._widening.with_todays_columns, snapshot.chunks(self._namespace)[:1]
            self._altering[snapshot.id] = any(
                widen(self._namespace, rows) != [*map(tuple, rows)] for _chunk, rows in snapshot.read(first)
            )
        return self._altering[snapshot.id]

    def today(self, snapshot: Snapshot, rows: t.Iterable[Row]) -> list[Row]:
        """The rows in the columns that the tables have today, and else as they are. Errors: CannotProceed."""
        out = [*map(tuple, rows)]
        if self._widening is None or not self._widens(snapshot):
            return out
        return self._widening.with_todays_columns(self._namespace, out)

    def __call__(self, snapshot: Snapshot, rows: t.Iterable[Row]) -> list[Row]:
        """Errors: CannotProceed."""
        out = self.today(snapshot, rows)
        if self._target != self._namespace:
            known = layout(*self._described)
            out = [self._as_sealed(row, renamed(row, known, self._namespace, self._target)) for row in out]
        return self.later(snapshot, out)

    def _as_sealed(self, row: Row, moved: Row) -> Row:
        """``moved``, a row under its other name, with its value encrypted for that name where the application does so:
        left as it was, the Agents SDK would show an empty memory. Errors: CannotProceed."""
        seals = self._seals
        if seals is None or seals.cipher != FERNET:
            return moved
        found = seals.look(row[PAYLOAD])
        if found.state == SHUT:
            raise CannotProceed(
                f"The application encrypted {row[KEY]!r:.80} for the name of its session, and no key that is given "
                "opens it.",
                "set memory_store.application_key_file, or restore under the same name",
            )
        if found.state != OPEN:
            return moved
        payload = seals.reseal(moved[PAYLOAD], found.plain, seals.keys[found.key])
        return resealed(moved, self._target, payload, moved[EXPIRES])

    def later(self, snapshot: Snapshot, rows: t.Sequence[Row]) -> list[Row]:
        """The rows with their expiry moved, if it is to be. Errors: CannotProceed."""
        if self._now is None:
            return [*rows]
        shift = max(0, self._now - snapshot.info.at) // SECOND * SECOND
        known = layout(*self._described)
        return [rebased(row, known, self._target, shift) for row in rows]
