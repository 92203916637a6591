# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The snapshot step: take one, and note on the incident that it was taken.

PRIVATE to the collection.
"""

from __future__ import annotations

import time
import typing as t

from .._errors import CannotProceed, MemoryOpsError, RepositoryRefused
from .._layouts import counted_once
from .._model import Claim
from .._repository import Repository
from .._store import Store
from .._store_optional import need_primary
from .._store_own import HasUnsavedRows
from . import incident as incidents
from . import snapshot
from .commands import run as command
from .former_repository import Former
from .incident import LEASE_SECONDS, Journal, Run, now_us


def publish(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any,
    repository: t.Any,
    name: str,
    purpose: str,
    namespaces: t.Sequence[str] | None,
    run: Run,
    min_interval: float = 0.0,
    spool: str | None = None,
    new_repository: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """snapshot.create() for one purpose. forensic and baseline belong to the open incident of the one namespace named.

    ``repository`` is its parameters; where there is none it is made, but for a store that was saved to another one
    before, unless ``new_repository``. Returns create()'s mapping; changed False when there already is such a snapshot.
    """
    if purpose in ("scheduled", "baseline"):
        need_primary(store)
    former = Former(store_params, name, run.work_dir, new_repository)
    wanted: dict[str, t.Any] = {
        "store_params": store_params,
        "repository": repository,
        "keyring": keyring,
        "name": name,
        "purpose": purpose,
        "namespaces": namespaces,
        "min_interval": min_interval,
        "former": former,
    }
    if purpose not in ("forensic", "baseline") or not namespaces or len(namespaces) != 1:
        if purpose == "forensic":
            raise CannotProceed("A forensic snapshot is of one namespace.", "name exactly one namespace")
        return _plain(store, wanted, check)
    namespace = namespaces[0]
    incident, known = incidents.facts(store, namespace, run.incident)
    if incident is None:
        if purpose != "forensic":
            return _plain(store, wanted, check)
        refusal = CannotProceed(
            f"{namespace} has no open incident.",
            f"isolate it first: {command('isolate', memory_namespace=namespace)}",
        )
        if not check:
            raise refusal
        return {**_plain(store, wanted, check), "refused": str(refusal)}
    fact = "forensic" if purpose == "forensic" else "baseline_snapshot"  # "baseline" is the benchmark's accuracy
    taken = incidents.since_release(known, fact)
    if taken and not (purpose == "forensic" and taken.get("spooled")):
        return {**taken, "changed": False, "incident": incident}
    if check:
        return {"snapshot": None, "purpose": purpose, "changed": True, "incident": incident}
    claim = incidents.claim(store, namespace, run)
    journal = Journal(incidents.folder(store_params, incident, run.work_dir))
    with journal.step("snapshot", run, purpose=purpose) as outcome:
        result = snapshot.create(
            **wanted,
            incident=incident,
            spool=spool,
            progress=_renewing(store, claim),
            since=incidents.microseconds(known.get("released_at")),
        )
        counts = result["namespaces"].get(namespace, {})
        brief = {
            "snapshot": result["snapshot"],
            "purpose": purpose,
            "records": counts.get("records"),
            "damaged": counts.get("damaged"),
            "bytes": result["bytes"],
            "location": result["location"],
            "spooled": result["spooled"],
            "released": known.get("released_at"),
        }
        store.note(claim, **{fact: brief})
        outcome.update(brief)
    if not result["spooled"]:
        result["warnings"] += incidents.mirror(store, claim, journal, Repository.open(repository), keyring)
    return {**result, **brief, "incident": incident}


def _plain(store: Store, wanted: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """One that belongs to no incident. ``wanted``: arguments of snapshot.create()."""
    if check:
        return _would(store, **wanted)
    result = snapshot.create(**wanted)
    result["warnings"] += store.unsaved() if isinstance(store, HasUnsavedRows) else []
    once = counted_once(wanted["store_params"], result["namespaces"])
    return {
        **result,
        "records": sum(result["namespaces"][one]["records"] for one in once),
        "damaged": sum(result["damaged"].get(one, 0) for one in once),
        "damaged_keys": result["examples"],
    }


def _would(
    store: Store,
    *,
    repository: t.Any,
    keyring: t.Any,
    name: str,
    purpose: str,
    namespaces: t.Sequence[str] | None,
    min_interval: float,
    former: Former,
    **_rest: t.Any,
) -> dict[str, t.Any]:
    """What a real run would do, without a write: a repository that does not exist yet is not made."""
    with store.reader() as reader:
        states = {state.name for state in reader.namespaces()}
        if namespaces:
            for namespace in namespaces:
                reader.namespace(namespace)
        identity = reader.identity
    warnings: list[str] = []
    newest = place = None
    reached = False
    try:
        place = former.look(repository)
        reached = True
        if purpose != "scheduled" or not former.first(place):
            warnings += former.warnings(place, str(repository.get("url")))
        if place is not None and place.objects.locks is not None:
            place.objects.locks.check()
        found = place.snapshots(name, keyring) if place is not None else []
        newest = next(
            (s for s in found if s.good and s.purpose == purpose and set(s.namespaces) >= set(namespaces or states)),
            None,
        )
    except RepositoryRefused:
        raise
    except MemoryOpsError as exc:
        warnings.append(str(exc))
    fresh = (
        newest is not None
        and "sequence" in store.capabilities()
        and (newest.epoch, newest.sequence) == (identity.epoch, identity.sequence)
        and now_us() - newest.at < min_interval * 1e6
    )
    return {
        "snapshot": newest.id if fresh and newest else None,
        "purpose": purpose,
        "repository_made": reached and place is None,
        "changed": not fresh,
        "expected": [] if fresh else sorted(namespaces or states),
        "warnings": warnings,
    }


def _renewing(store: Store, claim: Claim) -> t.Callable[[dict[str, t.Any]], None]:
    """A progress callback that keeps the lease alive while a long snapshot is taken."""
    last = time.monotonic()

    def renew(_state: dict[str, t.Any]) -> None:
        nonlocal last
        if time.monotonic() - last > LEASE_SECONDS / 4:
            store.renew(claim)
            last = time.monotonic()

    return renew
