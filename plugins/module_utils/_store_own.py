# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a store may tell and do beyond its interface, where an application's own memory object or framework stands
behind it.

PRIVATE to the collection. An operation asks whether a store is one of these, never which layout it has.
"""
from __future__ import annotations

import contextlib
import typing as t

from ._layouts.tables import Root

#: (operation or None, seconds since 1970 or None, the entry as one line)
Entry = t.Tuple[t.Any, ...]


@t.runtime_checkable
class HasOwnLog(t.Protocol):
    """A store with an access log that the application itself keeps: evidence, not more."""

    def own_log(self, namespace: str, each: t.Callable[[list[Entry]], None]) -> str | None:
        """Give ``each`` the entries in parts; why they could not be read, or None."""


@t.runtime_checkable
class HasUnsavedRows(t.Protocol):
    """A store whose tables may have rows that are no records."""

    def unsaved(self) -> list[str]:
        """Which those are, in words."""


@t.runtime_checkable
class HasOwnBenchmark(t.Protocol):
    """A store whose application can rate a namespace itself."""

    def has_own_benchmark(self) -> bool: ...

    def own_benchmark(self, namespace: str) -> t.Any:
        """What it says, whatever that is. Errors: MemoryOpsError."""


@t.runtime_checkable
class RotatesOwnKeys(t.Protocol):
    """A store whose application rotates its own keys."""

    def check_rotation(self) -> None:
        """Errors: CapabilityMissing where it cannot."""

    def rotate_own_keys(self) -> t.Any:
        """Errors: MemoryOpsError."""


class Framework(t.NamedTuple):
    """How an application's framework is called, and the table of its records."""

    adapter: str  # one of _search_child.ADAPTERS
    root: Root


class Place(t.NamedTuple):
    """From where a framework's own search is asked in its application's place."""

    connection: str  # what the application's factory is given; no secret is in it
    variables: dict[str, str]  # of the environment of that process alone: what its client library needs besides
    secrets: tuple[str, ...]
    within: str | dict[str, str]  # the namespace, as that framework is told of it


@t.runtime_checkable
class HasOwnSearch(t.Protocol):
    """A store that lets a program of the application's read a namespace, quarantined or not, and write nothing."""

    def framework(self) -> Framework: ...

    def searching(self, namespace: str, seconds: float) -> contextlib.AbstractContextManager[Place]:
        """For so long at most. Errors: MemoryOpsError."""
