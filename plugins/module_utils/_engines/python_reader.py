# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading an application's own memory object: its keys once per reader and in order, its values page by page.

PRIVATE to the collection. The object has no former state: what is read is what is there at that moment.
"""
from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from dataclasses import replace
from itertools import chain

from .._codec import RecordCodec
from .._errors import CannotProceed, NamespaceUnknown, StoreDamaged, StoreUnavailable
from .._model import NamespaceState, Row, StoreIdentity
from .._python_values import record, unreadable
from .listed_keys import ListedKeys, walk
from .python_child import Item
from .python_remote import MOST_NAMES, Remote, Stopped
from .sqlite_connect import read_namespace, sqlite_errors
from .sqlite_queries import BATCH_BYTES
from .sqlite_reader import SqliteReader
from .sqlite_schema import RecordsSql

PAGE = 2000
MOST_STOPS = 2  # reads that do not end, after which it is the object and not its records
SOME = 5  # keys that a look at the fence reads
MOVING: t.Final = "memops_moving"


class Listed(ListedKeys):
    """The keys that the object names in one namespace. Errors: as of Remote.ask."""

    def __init__(self, remote: Remote, namespace: str) -> None:
        super().__init__()
        self.odd: list[str] = []  # what is no key
        self.odds = self.twice = 0

        def take(items: list[Item]) -> None:
            good = [(namespace, item[0].encode()) for item in items if item[0] is not None]
            self.twice += len(good) - self.add(good)
            self.odds += len(items) - len(good)
            if len(self.odd) < 3:
                self.odd += [item[1] for item in items if item[0] is None][:3]

        try:
            remote.ask("operator", "keys", namespace, MOST_NAMES, each=take)
        except BaseException:
            self.close()
            raise

    def remarks(self, namespace: str) -> list[str]:
        lines = []
        if self.odds:
            lines.append(f"list_keys({namespace!r:.80}) names {self.odds} that are no keys: {', '.join(self.odd)}")
        if self.twice:
            lines.append(f"list_keys({namespace!r:.80}) names keys twice ({self.twice} too many)")
        return lines


def read_rows(remote: Remote, codec: RecordCodec, namespace: str, keys: t.Sequence[str]) -> t.Iterator[list[Row]]:
    """Of those keys that there are, in their order, a bounded part at a time.

    A read that does not end costs its record; more than MOST_STOPS are the object's own trouble. Errors: Stopped.
    """
    start = stops = 0
    alone = False  # from a read that did not end until it is found
    while start < len(keys):
        items: list[Item] = []
        part = keys[start : start + 1] if alone else keys[start:]
        try:
            remote.ask("operator", "read", namespace, list(part), each=items.extend)
        except Stopped as exc:
            if alone:
                stops += 1
                if stops > MOST_STOPS:
                    raise
                items = [(part[0], "unreadable", exc.message.encode("utf-8", "replace"))]
            alone = not alone
        start += len(items)
        rows = [
            record(codec, key, payload) if kind == "value" else unreadable(key, payload.decode("utf-8", "replace"))
            for key, kind, payload in items
            if kind != "absent"
        ]
        if rows:
            yield rows


def fresh(name: str) -> NamespaceState:
    """Of a namespace about which no operator ever changed anything."""
    return NamespaceState(name, "serving", 0, None, None, None)


def moving_of(con: sqlite3.Connection, namespace: str) -> tuple[int, int, int] | None:
    """(former generation, target, whether the former one is saved) of a switch that was begun."""
    row = con.execute(f"SELECT former, target, saved FROM {MOVING} WHERE namespace = ?", (namespace,)).fetchone()
    return None if row is None else tuple(row)


class ObjectReader(SqliteReader):
    """See _store.Reader. The active generation is the object's; all others lie in the file of the collection's own."""

    def __init__(
        self, con: sqlite3.Connection, path: str, sql: RecordsSql, release: t.Callable[[sqlite3.Connection], None],
        remote: Remote, declared: t.Sequence[str], made: bool, bound: bool,
    ) -> None:  # fmt: skip
        """``made``: whether the file is there; ``bound``: whether a quarantine keeps applications from the object."""
        self._listed: dict[str, Listed] = {}
        super().__init__(con, path, sql, None, release)
        known = self.identity
        self.identity = replace(known, engine="python") if made else StoreIdentity("", "", "python", sql.layout, 0, 0)
        self._remote, self._declared, self._bound = remote, declared, bound
        self._states: dict[str, NamespaceState] = {}
        self._codecs: dict[str, RecordCodec] = {}

    def close(self) -> None:
        for listed in self._listed.values():
            listed.close()
        self._listed = {}
        super().close()

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        found = {name: fresh(name) for name in (*self._declared, *named(self._remote))}
        found.update((state.name, state) for state in super().namespaces())
        self._states.update(found)
        return [found[name] for name in sorted(found)]

    def namespace(self, name: str) -> NamespaceState:
        if name not in self._states:
            try:
                with sqlite_errors(self._path):
                    self._states[name] = read_namespace(self._con, name, self._path)
            except NamespaceUnknown:
                if not known_to(self._remote, self._declared, name):
                    raise unknown(self._remote, name) from None
                self._states[name] = fresh(name)
        return self._states[name]

    def _generation(self, namespace: str, generation: int | None) -> int:
        active = self.namespace(namespace).generation
        if generation in (None, active):
            with sqlite_errors(self._path):
                if moving_of(self._con, namespace):
                    raise being_replaced(namespace)
            return active
        return super()._generation(namespace, generation)

    def _bound_now(self, name: str) -> bool:
        return self._bound and self.namespace(name).state == "quarantined"

    def _live(self, namespace: str, generation: int | None) -> bool:
        return self._generation(namespace, generation) == self.namespace(namespace).generation

    # --- records ------------------------------------------------------------------------------------------------
    def _keys(self, namespace: str) -> Listed:
        if namespace not in self._listed:
            self._listed[namespace] = Listed(self._remote, namespace)
        return self._listed[namespace]

    def _codec(self, namespace: str) -> RecordCodec:
        return self._codecs.setdefault(namespace, RecordCodec(namespace))

    def count(self, namespace: str, generation: int | None = None) -> int:
        if self._live(namespace, generation):
            return self._keys(namespace).count(namespace)
        return super().count(namespace, generation)

    def scan(
        self,
        namespace: str,
        *,
        after: str | None = None,
        until: str | None = None,
        generation: int | None = None,
        batch: int = 2000,
        descending: bool = False,
    ) -> t.Iterator[list[Row]]:
        if self._live(namespace, generation):
            return self._walk(namespace, after, until, batch, descending)
        return super().scan(
            namespace, after=after, until=until, generation=generation, batch=batch, descending=descending
        )

    def _walk(
        self, namespace: str, after: str | None, until: str | None, batch: int, down: bool
    ) -> t.Iterator[list[Row]]:
        return walk(
            lambda first, below: self._keys(namespace).page(namespace, first, until, below, batch, down),
            lambda keys: chain.from_iterable(read_rows(self._remote, self._codec(namespace), namespace, keys)),
            after, batch, BATCH_BYTES, down,
        )  # fmt: skip

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        if not self._live(namespace, generation):
            return super().get_many(namespace, keys, generation)
        fit = []
        for key in keys:
            with contextlib.suppress(UnicodeEncodeError, AttributeError):
                key.encode()
                fit.append(key)
        return {
            row[0]: row
            for start in range(0, len(fit), PAGE)
            for rows in read_rows(self._remote, self._codec(namespace), namespace, fit[start : start + PAGE])
            for row in rows
        }

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        return []  # each process would list all keys for itself

    def moved(self, namespace: str) -> bool:
        """Nobody tells of changes: only a fence of the object's own says that there were none."""
        return not self._bound_now(namespace)

    # --- structure ----------------------------------------------------------------------------------------------
    def structure(self) -> list[str]:
        """Of what this reader has read, and of what is quarantined."""
        lines = super().structure()
        with sqlite_errors(self._path):
            closed = [state.name for state in SqliteReader.namespaces(self) if state.state == "quarantined"]
        for name in sorted({*self._listed, *closed}):
            try:
                lines += self._keys(name).remarks(name)
                if self._bound_now(name) and answered(self._remote, name):
                    lines.append(f"the fence around {name!r:.80} is down: the application reads it")
            except (StoreUnavailable, StoreDamaged) as exc:
                lines.append(exc.message)
        return lines[:100]


# --- which namespaces there are ---------------------------------------------------------------------------------------
def named(remote: Remote) -> list[str]:
    """Those that the object lists, if it can."""
    if "list_namespaces" not in remote.offers():
        return []
    return [item[0] for item in remote.ask("operator", "namespaces", MOST_NAMES) if item[0] is not None]


def answered(remote: Remote, namespace: str) -> str | None:
    """A key that the application reads, of the first that an operator reads; None when it gets nothing."""
    keys = [item[0] for item in remote.ask("operator", "some", namespace, SOME) if item[0] is not None]
    there = [key for key, kind, _value in remote.ask("operator", "read", namespace, keys) if kind == "value"]
    seen = remote.ask("application", "read", namespace, there)
    return next((key for key, kind, _value in seen if kind == "value"), None)


def known_to(remote: Remote, declared: t.Sequence[str], name: str) -> bool:
    remote.need("list_keys", "read")
    return name in declared or bool(remote.ask("operator", "some", name, 1)) or name in named(remote)


def unknown(remote: Remote, name: str) -> NamespaceUnknown:
    return NamespaceUnknown(
        f"The memory object of {remote.spec.factory} has no record in {name!r:.80}, and nobody says that there is such "
        "a namespace.",
        "correct the name, or list it in memory_store.namespaces",
    )


def being_replaced(namespace: str) -> CannotProceed:
    return CannotProceed(
        f"The records of namespace {namespace!r:.80} are in the middle of being replaced.",
        "run the rebuild, restore or undo again that was interrupted",
    )
