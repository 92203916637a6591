# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What records that are an application's own do not have, and what a store of them says when it is asked for that.

PRIVATE to the collection. Put it before the engine's own classes: what they would do to records, these must not.
"""
from __future__ import annotations

import abc
import typing as t

from .._errors import CapabilityMissing
from .._extra_vars import run
from .._log_parts import LogPart
from .._model import Claim, LastWrite, LogEntry, Row
from .._store import Checked

ISOLATED: t.Final = "isolated "  # the beginning of reasons under which records lie aside that come back as they are


class ApplicationsOwn(abc.ABC):
    """The part of ``Store`` that only the native layout carries out."""

    @abc.abstractmethod
    def layout_name(self) -> str: ...

    def _lacks(self, capability: str, what: str, next_step: str) -> CapabilityMissing:
        return CapabilityMissing(f"The layout {self.layout_name()} has no {capability}: {what}.", next_step)

    def writing(self, namespace: str, count: int, wait: float = 30.0) -> t.Any:
        raise self._lacks("sequence", "records are written by their own application", "write through that application")

    def lock(self, namespace: str, actor: str, wait: float, lease: float) -> int:
        raise self._lacks(
            "write-lock",
            f"the application of {namespace!r:.80} cannot be made to wait",
            f"isolate it first by {run('isolate', memory_namespace=namespace)}, then go on with memory_incident",
        )

    def unlock(self, namespace: str, number: int) -> None:
        return  # none is ever given

    def set_ttl(self, namespace: str, ttl: float | None) -> bool:
        raise self._lacks("TTL policy", "each record has its own expiry", "set it in the application")

    def sweep(self, namespace: str, now: int, limit: int = 500) -> int:
        return 0  # the application or its server does it

    def drop_tombstones(self, namespace: str, rows: t.Sequence[Row]) -> int:
        return 0  # there are none

    def reserve(self, claim: Claim, count: int) -> tuple[int, int]:
        raise self._lacks("tombstones", "a record that is deleted is gone", "leave the record out")

    def reseal(self, claim: Claim, rows: t.Sequence[tuple[str, bytes, bytes, str, bytes]]) -> list[str]:
        raise self._lacks("encryption", "values are the application's own", "rotate the keys of the application")

    def import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        return 0  # there is no access log to keep


class WithoutLog(ApplicationsOwn):
    """For a store that keeps no log of what operators do either."""

    def append_log(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        """There is no access log to keep."""

    def log_operation(self, claim: Claim, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        """There is no access log to keep."""

    def prune_log(self, before_id: int, writes_through: tuple[int, int]) -> int:
        return 0


class ReaderWithoutLog:
    """The part of ``Reader`` that tells of a log, where there is none."""

    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        return iter(())

    def log_rows(self, after_id: int, until_id: int, batch: int = 1000) -> t.Iterator[list[Row]]:
        return iter(())

    def log_parts(self, after_id: int, until_id: int, *, compared: bool = False) -> t.Iterator[LogPart | list[Row]]:
        return iter(())

    def log_count(self, after_id: int, until_id: int) -> int:
        return 0

    def log_end(self) -> int:
        return 0

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        return iter(())

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        none = {"entries": 0, "corrupt": 0, "missing": 0, "first_sequence": 0, "last_sequence": 0}
        return {**none, "intact": True, "pruned": (0, 0)}
