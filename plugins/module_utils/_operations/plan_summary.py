# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan comes to, for reports and decisions.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from . import plan_gap
from .commands import counted
from .incident import rfc3339
from .plan_file import UNSURE, PlanFile
from .plan_needed import LACKING

LISTED = 100  # keys of each kind in a diff


def summary(plan: PlanFile, limit: int = 1000) -> dict[str, t.Any]:
    """{records, sources, loss_ratio, lost_keys, lost_total, lost_older, lacking, suspect_keys, gone, unsure, …}.

    ``loss_ratio`` is lost / expected; None (could-not-verify) when nothing was expected.
    """
    meta, found = plan.meta(), plan.counts()
    counts = meta["counts"]
    # good ones, and what is planned for a memory that should be there; deletions and expired records are none
    expected = counts["good_before"] + sum(found[action] for action in ("repair", "suspect", "conflict", "lost"))
    doubts = [] if meta["log_intact"] else ["the access log is damaged: what it does not prove is suspect"]
    if meta.get("gap"):
        doubts.append(plan_gap.doubt(meta["gap"]))
    if meta.get("unlogged"):
        doubts.append(f"{counted(meta['unlogged'], 'record')} without a log entry")
    return {
        "records": {
            "expected": expected,
            "good_before": counts["good_before"],
            "damaged": counts["damaged"],
            "repair": found["repair"],
            "suspect": found["suspect"],
            "conflicted": found["conflict"],
            "lost": found["lost"],
            "expired": found["expired"],
            "absent": found["absent"],
        },
        "sources": [{"snapshot": name, "records": n} for name, n in plan.sources().items()],
        "loss_ratio": found["lost"] / expected if expected else None,
        "lost_keys": plan.keys("lost", limit),
        "lost_total": found["lost"],
        "lost_older": plan.lost_older(),
        "lacking": plan.because(LACKING, limit),
        "newest_recovered_at": rfc3339(meta["newest"] or None),
        "suspect_keys": plan.keys("suspect", limit),
        "gone": plan.gone(limit),
        "unsure": plan.because(UNSURE, LISTED),
        "listed": plan.listed(LISTED),
        "newer_keys": meta.get("changed_keys", []),
        "newer": meta.get("changed", 0),
        "as_saved": meta.get("as_saved", 0),
        "as_saved_keys": meta.get("as_saved_keys", []),
        "newest_snapshot": meta.get("newest_snapshot"),
        "could_not_verify": doubts,
        "plan_file": plan.path,
    }
