# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the clock of a memory host.

PRIVATE to the collection. The host compares its clock with the repository's; with the controller's only the controller
can, since it alone knows how long the way to the host and back took.
"""

from __future__ import annotations

import typing as t

from .commands import ago, run
from .doctor_base import FAIL, PASS, UNKNOWN, worst_of

Check = t.Dict[str, t.Any]


def clock_check(limit: float, differences: t.Mapping[str, float]) -> Check:
    """``differences``: whose clock, and how far this host's is from it in seconds."""
    if not differences:
        says = "There is no other clock to compare this host's with."
        return {"check": "clock", "verdict": UNKNOWN, "says": says, "next": run("doctor")}
    whose, worst = max(differences.items(), key=lambda one: one[1])
    skewed = worst > limit
    says = f"This host's clock and {whose} differ by {ago(worst)}; the limit is {ago(limit)}."
    following = "chronyc makestep (as root, on the host that is wrong)" if skewed else ""
    return {"check": "clock", "verdict": FAIL if skewed else PASS, "says": says, "next": following}


def settle(result: t.Dict[str, t.Any], sent: float, answered: float) -> None:
    """Put the controller's clock into what doctor() returned on the host.

    ``sent`` and ``answered`` (seconds since 1970) are when the controller asked and had the answer. What the host's
    work took is taken off, and of the way there and back the middle is meant; half that way is no difference.
    """
    told = result.get("clock")
    checks = result.get("checks")
    if not isinstance(told, dict) or not isinstance(checks, list):
        return
    way = max(0.0, answered - sent - told["took"])
    apart = abs(told["at"] - (sent + way / 2))
    differences = {**told["differences"], "the controller's": max(0.0, apart - way / 2)}
    result["checks"] = [clock_check(told["limit"], differences) if c["check"] == "clock" else c for c in checks]
    result.update(worst_of(result["checks"]))
