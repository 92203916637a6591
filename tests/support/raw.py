# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the hands of somebody who changes a store past Memory and the fence can do, whatever the engine."""
from __future__ import annotations

import abc
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

if t.TYPE_CHECKING:
    from .engines import Bench

COLUMNS = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"


class Raw(abc.ABC):
    """What damage is made with. Nothing here asks the engine; what it touches lies as the engine's own files say."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name

    # --- by every engine ----------------------------------------------------------------------------------------
    @abc.abstractmethod
    def put(self, namespace: str, rows: t.Sequence[Row]) -> None:
        """Let these rows be the live ones of their keys, unlogged."""

    @abc.abstractmethod
    def remove(self, namespace: str, keys: t.Sequence[str]) -> None:
        """These keys have no record any more."""

    @abc.abstractmethod
    def forget(self, namespace: str, sequence: int) -> None:
        """The log entry of this write is gone."""

    @abc.abstractmethod
    def forge(self, namespace: str, sequence: int) -> None:
        """The log entry of this write names another actor."""

    @abc.abstractmethod
    def take_sequences(self, count: int) -> None:
        """So many sequences are given out, and nobody logs them."""

    @abc.abstractmethod
    def policy(self, namespace: str, state: str, serving_ttl: float | None) -> None:
        """The namespace's control row says so."""

    @abc.abstractmethod
    def break_fence(self, namespace: str) -> None:
        """Some raw writes are not refused any more."""

    @abc.abstractmethod
    def lose_index(self, namespace: str) -> None:
        """What finds the newest logged writes has lost something."""

    @abc.abstractmethod
    def client(self) -> Client:
        """A program that is connected with the application's rights and does not use Memory."""

    @abc.abstractmethod
    def wipe(self) -> None:
        """Nothing of the store is left."""

    # --- by these -----------------------------------------------------------------------------------------------
    def live(self, namespace: str, keys: t.Sequence[str]) -> list[Row]:
        store = open_store(self.bench.params(self.name))
        try:
            with store.reader() as reader:
                found = reader.get_many(namespace, keys)
                return [found[key] for key in keys]
        finally:
            store.close()

    def set(self, namespace: str, key: str, **fields: t.Any) -> Row:
        """Change fields of the live row as it lies; the row."""
        names = COLUMNS.split(", ")
        row = tuple(fields.get(n, old) for n, old in zip(names, self.live(namespace, [key])[0]))
        self.put(namespace, [row])
        return row

    def flip(self, namespace: str, key: str) -> None:
        """One bit of the payload."""
        payload = self.live(namespace, [key])[0][8]
        self.set(namespace, key, payload=payload[:-1] + bytes([payload[-1] ^ 1]))

    def swap(self, namespace: str, one: str, other: str) -> None:
        """Two records have each other's contents."""
        a, b = self.live(namespace, [one, other])
        self.put(namespace, [(one, *b[1:]), (other, *a[1:])])


class Client(abc.ABC):
    """``writes`` and ``read``: what it does on its open connection."""

    errors: type[Exception]

    @abc.abstractmethod
    def refusal(self, exc: Exception) -> bool:
        """Whether this error is the fence."""

    @abc.abstractmethod
    def writes(self, key: str) -> dict[str, t.Callable[[], t.Any]]:
        """Of a key that is there."""

    @abc.abstractmethod
    def read(self) -> int:
        """How many records it sees."""

    def sees(self) -> bool:
        """Whether it gets to see any record."""
        try:
            return self.read() > 0
        except self.errors as exc:
            if self.refusal(exc):
                return False
            raise

    @abc.abstractmethod
    def close(self) -> None:
        """Let its connection go."""
