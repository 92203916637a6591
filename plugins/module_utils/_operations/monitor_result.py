# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a watch says in the end, from what it noted.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .incident import rfc3339

MAX_KEPT = 200  # samples in the facts; older ones are merged in pairs


def told(note: t.Mapping[str, t.Any], rate: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """``rate``: the hit rate, of which the counts of this store's own log or probes are a part."""
    hits, misses, corrupt = note["reads"]
    return {
        "verdict": note["verdict"],
        "fenced": bool(note.get("fenced")),
        "breaches": list(note["breaches"]),
        "reasons": [*note["breaches"], *note["doubts"]],
        "started": rfc3339(note["started"]),
        "deadline": rfc3339(note["deadline"]),
        "ended": rfc3339(note["ended"]),
        "hit_rate": {**rate, "hits": hits, "misses": misses, "corrupt": corrupt},
        "watch_seconds": note.get("enough"),
        "findings": dict(note["findings"]),
        "examples": list(note["examples"]),
        "errors": dict(note["errors"]),
        "error_samples": list(note["error_samples"]),
        "first_write_at": rfc3339(note["first_write"]),
        "samples": list(note["samples"]),
        "gaps": [{"from": rfc3339(start), "to": rfc3339(end)} for start, end in note["gaps"]],
    }


def thinned(samples: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """At most MAX_KEPT samples: older neighbours are merged, counts are never lost."""
    if len(samples) <= MAX_KEPT:
        return samples
    merged = []
    for first in range(0, len(samples) - 1, 2):
        one, two = samples[first], samples[first + 1]
        merged.append({name: two[name] if name in ("at", "rate") else one[name] + two[name] for name in two})
    return merged + samples[len(merged) * 2 :]
