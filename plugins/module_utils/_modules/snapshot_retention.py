# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module snapshot_retention does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, diff, execute
from .._operations import retention_clock
from .._operations.retention import PERIODS
from .._operations.retention import apply as retain


def operate(context: Context) -> dict[str, t.Any]:
    repository = context.made_repository()
    if repository is None:
        return {"changed": False, "removed": [], "kept": []}
    now, doubt = retention_clock.moment(
        repository, context.store_params, context.name, context.params["work_dir"], context.check
    )
    result = retain(
        repository=repository,
        keyring=context.keyring(),
        name=context.name,
        keep_last=context.params["keep_last"],
        keep_within=context.params["keep_within"],
        keep_forensic=context.params["keep_forensic"],
        keep_suspect=context.params["keep_suspect"],
        grace=context.params["grace"],
        periods={period: context.params[f"keep_{period}"] for period in PERIODS},
        expected=context.params["expected"] or (),
        now=now,
        check=context.check,
    )
    result["warnings"] += [f"{doubt[0].upper()}{doubt[1:]}."] if doubt else []
    before = sorted([*(kept["snapshot"] for kept in result["kept"]), *result["removed"]])
    after = sorted(kept["snapshot"] for kept in result["kept"])
    return {**result, "diff": diff({"snapshots": before}, {"snapshots": after}, context.name)}


def main() -> None:
    options = {
        "keep_last": {"type": "int", "default": 96},
        "keep_within": {"type": "float", "default": 604800.0},
        "keep_hourly": {"type": "int", "default": 0},
        "keep_daily": {"type": "int", "default": 0},
        "keep_weekly": {"type": "int", "default": 0},
        "keep_monthly": {"type": "int", "default": 0},
        "keep_yearly": {"type": "int", "default": 0},
        "keep_forensic": {"type": "float", "default": 7776000.0},
        "keep_suspect": {"type": "float", "default": 2592000.0},
        "grace": {"type": "float", "default": 86400.0},
        "expected": {"type": "list", "elements": "str"},
    }
    execute(operate, options)
