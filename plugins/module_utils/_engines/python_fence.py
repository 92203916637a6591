# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence around a namespace of an application's own memory object, and its proof.

PRIVATE to the collection. An object with ``quarantine`` and ``release`` makes a fence, as long as the operator's own
object passes it. With the methods of the runbook alone there is none: its TTL can go down to one second, as the runbook
has it, and only where a trial in a namespace of our own shows that operators go on reading and that nothing is lost.
"""
from __future__ import annotations

import contextlib
import secrets
import time
import typing as t

from .._errors import MemoryOpsError
from .._model import Claim
from .._python_values import pack
from .python_access import ObjectAccess
from .python_reader import answered, being_replaced
from .python_remote import Remote
from .sqlite_connect import sqlite_errors

QUARANTINE_TTL = 1.0
PASSED = 1.2  # seconds after which what lives for one is over
TTL = frozenset(("set_ttl", "ttl"))
NO_HOOKS = "the object has no quarantine and release, or memory_store.operator_arguments is not set"


class ObjectFence(ObjectAccess):
    """The fence's part of ``Store``."""

    def fence(self, claim: Claim) -> bool:
        changed = super().fence(claim)  # noted before it is raised
        if self.hooked():
            with self._operating(claim):
                self.remote.call("quarantine", claim.namespace)
        elif self._lowered(claim.namespace) is None:
            self._lower(claim)
        return changed

    def unfence(self, claim: Claim) -> bool:
        if self.moving(claim.namespace):
            raise being_replaced(claim.namespace)
        with self._operating(claim) as con:
            if self._namespace(con, claim.namespace).state != "quarantined":
                return False
            if self.hooked():
                self.remote.call("release", claim.namespace)
            lowered = self._lowered(claim.namespace)
            if lowered is not None:
                if lowered[1] is None:
                    self.remote.call("set_ttl", claim.namespace, lowered[0])
                con.execute("DELETE FROM memops_lowered WHERE namespace = ?", (claim.namespace,))
        return super().unfence(claim)

    # --- the TTL --------------------------------------------------------------------------------------------------
    def _lowered(self, namespace: str) -> tuple[float | None, str | None] | None:
        """(the TTL before, why it was not lowered) where that was decided."""
        with sqlite_errors(self.path):
            row = self._con.execute("SELECT ttl, why FROM memops_lowered WHERE namespace = ?", (namespace,)).fetchone()
        return None if row is None else (row[0], row[1])

    def _lower(self, claim: Claim) -> None:
        former: float | None = None
        try:
            why = trial(self.remote) if self.remote.offers() >= TTL else "the object has no set_ttl and ttl"
            if why is None:
                former = _seconds(self.remote.call("ttl", claim.namespace))
        except MemoryOpsError as exc:
            why = exc.message
        with self._operating(claim) as con:
            con.execute(
                "INSERT OR REPLACE INTO memops_lowered VALUES (?, ?, ?)", (claim.namespace, former, why)
            )
        if why is None:
            self.remote.call("set_ttl", claim.namespace, QUARANTINE_TTL)

    @contextlib.contextmanager
    def writing_lasts(self, namespace: str) -> t.Iterator[None]:
        """What an operator writes in a quarantine outlives the TTL of one second."""
        lowered = self._lowered(namespace)
        if lowered is None or lowered[1] is not None:
            yield
            return
        self.remote.call("set_ttl", namespace, lowered[0])
        try:
            yield
        finally:
            self.remote.call("set_ttl", namespace, QUARANTINE_TTL)

    # --- the proof ------------------------------------------------------------------------------------------------
    def prove(self, namespace: str) -> dict[str, t.Any]:
        closed = self.state_of(namespace).state == "quarantined"
        lowered = self._lowered(namespace)
        detail: list[str] = []
        reads = accepted = writes = False
        try:
            reads, accepted = self._prove_read(namespace, closed, lowered is not None and lowered[1] is None, detail)
            writes = self._prove_write(namespace, closed, detail)
        except MemoryOpsError as exc:
            detail.append(f"not tried: {exc.message}")
        if lowered is not None:
            detail.append("the TTL is 1 s" if lowered[1] is None else f"the TTL was left as it is: {lowered[1]}")
        open_to = [] if self.hooked() else [f"writes through the memory object: {NO_HOOKS}"]
        open_to += [] if self.hooked() or reads else [f"reads through the memory object: {NO_HOOKS}"]
        return {
            "writes_refused": writes,
            "reads_refused": reads,
            "reads_accepted": accepted,
            "detail": detail,
            "not_fenced": [
                *open_to,
                "a program that reaches the storage beneath the memory object without it",
                "a program that keeps copies of memories and does not ask the object",
            ],
        }

    def _prove_read(self, namespace: str, closed: bool, expiring: bool, detail: list[str]) -> tuple[bool, bool]:
        """(refused, accepted)."""
        if not self.remote.ask("operator", "some", namespace, 1):
            detail.append("read: not tried, there is no record")
            return closed and self.hooked(), False
        end = time.monotonic() + PASSED
        while answered(self.remote, namespace) is not None:
            if not expiring or time.monotonic() > end:
                detail.append("read as the application: answered")
                return False, True
            time.sleep(0.1)
        detail.append("read as the application: refused")
        return True, False

    def _prove_write(self, namespace: str, closed: bool, detail: list[str]) -> bool:
        if not (closed and self.hooked()):
            why = "nothing is quarantined" if not closed else NO_HOOKS
            detail.append(f"write as the application: not tried, {why}")
            return False
        key = f"memops-probe-{secrets.token_hex(6)}"
        try:
            self.remote.ask("application", "write", namespace, [(key, pack("a probe"))], "memops probe")
        except MemoryOpsError as exc:
            detail.append(f"write as the application: refused ({exc.message})")
            refused = True
        else:
            detail.append("write as the application: accepted")
            refused = False
        if self.remote.ask("operator", "read", namespace, [key])[0][1] == "value":
            self.remote.ask("operator", "delete", namespace, [key], False)
            if refused:
                detail.append("write as the application: it raised, and stored the record all the same")
            refused = False
        return refused

    def repair_structure(self) -> list[str]:
        done = super().repair_structure()
        if self.hooked():
            with self.reader() as reader:
                closed = [state.name for state in reader.namespaces() if state.state == "quarantined"]
            for name in closed:
                if answered(self.remote, name) is not None:
                    self.remote.call("quarantine", name)
                    done.append(f"raised the fence around {name!r:.80} again")
        return done


def trial(remote: Remote) -> str | None:
    """Why the TTL must not be lowered; None when that does no harm. In a namespace that nobody has."""
    space = f"memops-trial-{secrets.token_hex(6)}"
    before, later = ("before", pack("a trial")), ("later", pack("a trial"))
    former = _seconds(remote.call("ttl", space))

    def there() -> int:
        found = remote.ask("operator", "read", space, ["before", "later"])
        return sum(kind == "value" for _key, kind, _value in found)

    try:
        remote.ask("operator", "write", space, [before], "memops trial")
        remote.call("set_ttl", space, QUARANTINE_TTL)
        remote.call("set_ttl", space, former)  # as repairs are written
        remote.ask("operator", "write", space, [later], "memops trial")
        remote.call("set_ttl", space, QUARANTINE_TTL)
        time.sleep(PASSED)
        if there() < 2:
            return "an operator could not have read the records while it is 1 s"
        remote.call("set_ttl", space, former)
        return None if there() == 2 else "records would have been lost by it"
    finally:
        with contextlib.suppress(MemoryOpsError):
            remote.call("set_ttl", space, former)
        with contextlib.suppress(MemoryOpsError):
            remote.ask("operator", "delete", space, ["before", "later"], False)


def _seconds(ttl: t.Any) -> float | None:
    return float(ttl) if isinstance(ttl, (int, float)) and not isinstance(ttl, bool) else None
