# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A quarantine that the store has forgotten with all else that it had, as a server without persistence does when it is
started again: what an application began anew there is not what was quarantined, and nothing keeps it away.

PRIVATE to the collection. Only the journal on the memory host still knows.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import CannotProceed
from .._store import Store
from .commands import run as command
from .incident import Journal, Run, base, microseconds


def refuse_forgotten(store: Store, store_params: t.Mapping[str, t.Any], namespace: str, run: Run) -> None:
    """For a step that found no open incident. Errors: CannotProceed."""
    folder = run.work_dir or base(store_params)
    try:
        with os.scandir(folder) as entries:  # what a scrub notes lies beside the incidents' folders
            there = {entry.name for entry in entries if entry.is_dir()}
    except OSError:
        return
    known = store.incidents(namespace)
    last = max((one.opened for one in known), default=0)
    for incident in sorted(there - {one.incident for one in known}):
        fenced = _fenced_at(os.path.join(folder, incident), namespace)
        if fenced is not None and fenced > last:
            raise CannotProceed(
                f"The store has forgotten incident {incident}, in which {namespace} was quarantined: it lost what it "
                "had, and what is there now was begun anew, without the fence.",
                f"{command('isolate', memory_namespace=namespace)}, then follow docs/dr_plan.md",
            )


def _fenced_at(folder: str, namespace: str) -> int | None:
    """When (µs) the namespace was last quarantined, by the journal of an incident of it that ends so; else None."""
    ours, fenced = False, None
    for raw in Journal(folder).lines():
        try:
            line = json.loads(raw)
            step, phase, data = line["step"], line["phase"], dict(line["data"])
        except (ValueError, KeyError, TypeError):  # a damaged line says nothing
            continue
        if step == "isolate" and phase == "intent":
            ours, fenced = data.get("namespace") == namespace, line.get("at")
        elif phase == "result" and step in ("release", "monitor"):  # a watch that fails puts the fence back
            fenced = line.get("at") if data.get("verdict") == "fail" else None
    return microseconds(fenced) if ours else None
