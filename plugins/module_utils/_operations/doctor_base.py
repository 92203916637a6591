# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What every check of the doctor has: its limits, its verdicts, its one sentence and the next command.

PRIVATE to the collection.
"""

from __future__ import annotations

import time
import typing as t

from .._errors import MemoryOpsError
from . import incident as incidents

PASS, FAIL, UNKNOWN, NONE = "pass", "fail", "could-not-verify", "not-applicable"


class Limits(t.NamedTuple):
    """Seconds, but for ``free``: the share of a disk."""

    rpo: float = 900.0
    drill: float = 2 * 86400.0
    scrub: float = 2 * 86400.0
    key: float = 90 * 86400.0
    skew: float = 30.0
    free: float = 0.10


def worst_of(checks: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """{verdict, faults [names]}; the verdict is the worst of the checks."""
    order = [verdict for verdict in (FAIL, UNKNOWN, PASS) if any(one["verdict"] == verdict for one in checks)]
    faults = [one["check"] for one in checks if one["verdict"] == FAIL]
    return {"verdict": order[0] if order else PASS, "faults": faults}


class Examination:
    """The checks, each of which says one sentence."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        now: float,
        store_params: t.Mapping[str, t.Any],
        work_dir: str | None,
        only: t.Collection[str] = (),
    ) -> None:
        self.name, self.limits, self.now = name, limits, now
        self.only = only
        self.began = time.time()
        self.store_params = store_params
        self.folder = work_dir or incidents.base(store_params)
        self.checks: list[dict[str, t.Any]] = []
        self.urgent = 0

    def add(self, check: str, verdict: str, says: str, following: str = "", *, urgent: bool = False) -> None:
        """``urgent``: memories are damaged or out of service now, which comes before what is only not rehearsed."""
        found = {"check": check, "verdict": verdict, "says": says, "next": following}
        self.checks.insert(self.urgent if urgent else len(self.checks), found)
        self.urgent += urgent

    def wanted(self, *checks: str) -> bool:
        """Whether any of these checks is asked for."""
        return not self.only or any(one in self.only for one in checks)

    def opened(self, check: str, opener: t.Callable[[], t.Any], what: str, otherwise: str) -> t.Any:
        """What the opener opens; None when it does not, which is a failed check."""
        try:
            thing = opener()
        except MemoryOpsError as exc:
            self.add(check, FAIL, exc.message, exc.next_step or otherwise)
            return None
        if self.wanted(check):
            self.add(check, PASS, f"{what[0].upper()}{what[1:]} opens.")
        return thing

    def check(self, name: str, look: t.Callable[..., None], *arguments: t.Any) -> None:
        if not self.wanted(name):
            return
        try:
            look(*arguments)
        except MemoryOpsError as exc:
            self.add(name, UNKNOWN, exc.message, exc.next_step)
        except OSError as exc:
            self.add(name, UNKNOWN, f"The memory host refused to tell: {exc.strerror or exc}.", "mend that")

    def without(self, check: str, thing: t.Any, what: str) -> bool:
        """Whether the thing is missing; then nobody can tell."""
        if thing is None:
            self.add(check, UNKNOWN, f"Without {what} nobody can tell.", f"mend {what} first, then run doctor again")
        return thing is None
