# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the runbook in which everything went well, as the controller writes it; tests spoil one thing of it.

Also the shipped JSON Schema as a validator.
"""

from __future__ import annotations

import copy
import datetime
import json
import pathlib
import typing as t

import jsonschema

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _report

SCHEMA = json.loads(pathlib.Path(_report.__file__).with_name("report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())

START = datetime.datetime(2025, 3, 4, 3, 12, 0, tzinfo=datetime.timezone.utc)
ATTEMPT = "ops:100:1"


def at(seconds: float) -> str:
    return (START + datetime.timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


_GOOD: t.List[t.Tuple[str, bool, t.Dict[str, t.Any]]] = [
    (
        "preflight",
        False,
        {
            "incident": "INC-1",
            "namespace": "agent-7",
            "cluster": "memory",
            "store": {"engine": "sqlite", "path": "/srv/a.db", "password": "hunter2"},
        },
    ),
    (
        "isolate",
        True,
        {
            "fenced_at": at(10),
            "proof": {
                "writes_refused": True,
                "reads_refused": True,
                "detail": ["INSERT was refused"],
                "not_fenced": ["raw readers"],
            },
        },
    ),
    (
        "snapshot",
        True,
        {
            "snapshot": "F-1",
            "purpose": "forensic",
            "damaged": {"agent-7": 30},
            "namespaces": {"agent-7": {"records": 990}},
            "bytes": {"stored": 4096, "sent": 4096},
        },
    ),
    (
        "diagnose",
        False,
        {
            "causes": [
                {"cause": "storage-failure", "confidence": 0.3, "evidence": ["a"]},
                {"cause": "unlocked-bulk-write", "confidence": 0.9, "evidence": ["b"]},
            ],
            "onset": {"at": at(-60), "sequence": 77},
            "strategy": "soft",
            "findings": {"checksum": 30},
            "damage_map": [
                {"first_key": f"k{i:03d}0", "last_key": f"k{i:03d}9", "rows": 10, "damaged": i % 7 == 0, "suspect": 0}
                for i in range(100)
            ],
            "hit_rate": {
                "before": 0.91,
                "samples": 400,
                "series": [{"at": at(-60 + i), "hits": 9, "misses": 1, "corrupt": 0} for i in range(40)],
            },
        },
    ),
    (
        "plan",
        False,
        {
            "records": {
                "expected": 1000,
                "good_before": 968,
                "damaged": 30,
                "repair": 28,
                "suspect": 2,
                "conflicted": 0,
                "lost": 2,
            },
            "sources": [{"snapshot": "S-1", "records": 28}],
            "loss_ratio": 0.002,
            "lost_keys": ["k0007", "k0501"],
            "lost_total": 2,
            "could_not_verify": [],
            "escalate": False,
            "newest_recovered_at": at(-20),
        },
    ),
    ("apply", True, {"applied": 30, "method": "hard", "generation": {"from": 1, "to": 2}}),
    (
        "validate",
        False,
        {
            "verdict": "pass",
            "findings": 0,
            "probes": {"checked": 50, "passed": 50},
            "benchmark": {"baseline": 0.7, "after": 0.93, "threshold": 0.91, "cases": 40},
            "canary": True,
        },
    ),
    ("release", True, {"released_at": at(70), "first_write_at": at(72)}),
    ("baseline", True, {"snapshot": "B-1", "purpose": "baseline"}),
    (
        "monitor",
        False,
        {
            "verdict": "pass",
            "samples": [{"at": at(90 + i), "hits": 95, "misses": 5, "corrupt": 0} for i in range(5)],
            "breaches": [],
        },
    ),
]


def good(upto: t.Optional[str] = None, attempt: str = ATTEMPT) -> t.List[t.Dict[str, t.Any]]:
    """Fresh steps of a passing run; ``upto`` is the last of them."""
    steps = [
        {
            "name": name,
            "verdict": "pass",
            "changed": changed,
            "started": at(9 * i),
            "seconds": 1.5,
            "host": "mem-a",
            "attempt": attempt,
            "detail": f"{name} is done.",
            "result": copy.deepcopy(result),
        }
        for i, (name, changed, result) in enumerate(_GOOD)
    ]
    names = [s["name"] for s in steps]
    return steps[: names.index(upto) + 1] if upto else steps


def find(steps: t.List[t.Dict[str, t.Any]], name: str) -> t.Dict[str, t.Any]:
    return next(s for s in steps if s["name"] == name)


def extra(
    name: str, verdict: str = "pass", /, changed: bool = False, attempt: str = ATTEMPT, **result: t.Any
) -> t.Dict[str, t.Any]:
    return {
        "name": name,
        "verdict": verdict,
        "changed": changed,
        "started": at(200),
        "seconds": 2.0,
        "host": "mem-a",
        "attempt": attempt,
        "detail": f"{name}: {verdict}.",
        "result": result,
    }


def build(steps: t.Any, **more: t.Any) -> t.Dict[str, t.Any]:
    report = _report.build_report(steps, **more)
    VALIDATOR.validate(json.loads(json.dumps(report, allow_nan=False)))
    return report
