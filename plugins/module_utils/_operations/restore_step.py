# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The restore step: whole, some namespaces, some keys, under another name, or a standby copy.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import CannotProceed, InvalidInput, StoreMissing
from .._store import open_store
from . import incident as incidents
from . import restore, restore_work, rotation
from .incident import Run


def bring_back(
    *,
    store_params: t.Mapping[str, t.Any],
    repository: t.Any,
    keyring: t.Any,
    name: str,
    run: Run,
    snapshot: str | None = None,
    namespaces: t.Sequence[str] | None = None,
    to_namespace: str | None = None,
    keys: t.Sequence[str] | None = None,
    pattern: str | None = None,
    overwrite: bool = False,
    create: bool = False,
    as_secondary: bool = False,
    expiry: str = "keep",
    check: bool = False,
) -> dict[str, t.Any]:
    """restore.restore() for each namespace; as a step of ``run.incident`` when that is set.

    Returns {changed, snapshot, restored, namespaces {name: result}, warnings}.
    """
    single = bool(to_namespace or keys or pattern is not None)
    if single and (not namespaces or len(namespaces) != 1):
        raise InvalidInput("Restoring keys or another name needs exactly one namespace.", "name it in memory_namespace")
    common: dict[str, t.Any] = {
        "snapshot_id": snapshot,
        "store_params": store_params,
        "repository": repository,
        "keyring": keyring,
        "name": name,
        "attempt": run.attempt,
        "owner": run.owner,
        "takeover": run.takeover,
        "create": create,
        "as_secondary": as_secondary,
        "overwrite": overwrite,
        "expiry": expiry,
        "check": check,
    }
    if check:
        _refuse_open_incident(store_params, to_namespace, namespaces, run)
    if run.incident and not check:
        if not namespaces or len(namespaces) != 1:
            raise InvalidInput("A restore as a step of an incident is of one namespace.", "name it in memory_namespace")
        store = open_store(store_params)
        try:
            common["claim"] = incidents.claim(store, to_namespace or namespaces[0], run)
        finally:
            store.close()
    if single:
        only = list(namespaces or [])[0]
        one = restore.restore(namespace=only, to_namespace=to_namespace, keys=keys, pattern=pattern, **common)
        result: dict[str, t.Any] = {
            "changed": one["changed"],
            "snapshot": one["snapshot"],
            "namespaces": {to_namespace or only: one},
        }
    else:
        # in an incident the namespace is out of service, and a standby copy takes no writes of its own
        newer_stay = not (overwrite or as_secondary or run.incident)
        result = dict(restore.restore_whole(namespaces=namespaces, newer_stay=newer_stay, **common))
    result["restored"] = sum(part.get("restored") or 0 for part in result["namespaces"].values())
    result["warnings"] = sorted({w for part in result["namespaces"].values() for w in part.get("warnings", [])})
    return result


def _refuse_open_incident(
    store_params: t.Mapping[str, t.Any], to_namespace: str | None, namespaces: t.Sequence[str] | None, run: Run
) -> None:
    """A rehearsal refuses what the run would refuse. Errors: CannotProceed."""
    if run.incident:
        return
    try:
        store = open_store(store_params)
    except StoreMissing:
        return
    try:
        for name in [to_namespace] if to_namespace else namespaces or []:
            incident, _known = incidents.facts(store, name)
            if incident is not None and not incident.startswith((restore_work.PREFIX, rotation.PREFIX)):
                raise CannotProceed(
                    f"Namespace {name!r:.80} has the open incident {incident}.",
                    "finish that incident, or restore as a step of it: set memory_incident",
                )
    finally:
        store.close()
