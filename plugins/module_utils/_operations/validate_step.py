# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The validate step: judge the rebuilt namespace by what was fixed before it was touched.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import CannotProceed
from .._search import search_of
from .._store import Store
from . import incident as incidents
from . import validate
from .commands import run as command
from .forgotten import refuse_forgotten
from .hit_rate import source_of
from .incident import Journal, Run, microseconds, now_us
from .probes import fix_probes

LOOK_BACK_US = 900 * 1_000_000  # of a hit rate that was measured


def judge(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    run: Run,
    benchmark: str | None = None,
    thresholds: t.Mapping[str, float] | None = None,
    hit_rate_source: t.Mapping[str, t.Any] | None = None,
    search: t.Mapping[str, t.Any] | None = None,
    name: str = "",
    check: bool = False,
) -> dict[str, t.Any]:
    """validate.validate() with the incident's probes and baseline; its verdict becomes the incident's.

    Without an open incident (a validation by schedule or by hand) there are no probes: integrity, canary and the
    benchmark's absolute threshold count. ``hit_rate_source``: see hit_rate.source_of; asked about a namespace that
    is served, since in quarantine applications read nothing. ``search``: see _search.search_of. Returns validate()'s
    mapping and {incident, changed}.
    """
    incident, known = incidents.facts(store, namespace, run.incident)
    if incident is None:
        refuse_forgotten(store, store_params, namespace, run)
    pending = bool(known.get("plan")) and not known.get("applied")
    refusal = CannotProceed(
        f"The plan for {namespace} was not carried out yet.", command("apply", memory_namespace=namespace)
    )
    if pending and not check:
        raise refusal
    rate, measured = source_of(hit_rate_source, namespace, name), None
    if rate is not None and _served(store, namespace):
        now = now_us()
        measured = rate.measure(now - LOOK_BACK_US, now)
    found = validate.validate(
        store_params=store_params,
        keyring=keyring,
        namespace=namespace,
        probes=_probes(store, namespace, known) if incident else None,
        benchmark=benchmark,
        baseline=known.get("baseline"),
        thresholds=dict(thresholds or {}),
        measured_rate=measured,
        search=search_of(search),
    )
    brief = {"verdict": found["verdict"], "reasons": found.get("reasons", [])[:10]}
    brief["released"] = known.get("released_at")
    changed = incident is not None and known.get("validated") != brief
    if changed and not check and incident is not None:
        claim = incidents.claim(store, namespace, run)
        with Journal(incidents.folder(store_params, incident, run.work_dir)).step("validate", run) as outcome:
            store.note(claim, validated=brief)
            outcome.update(brief)
    return {**found, **({"refused": str(refusal)} if pending else {}), "incident": incident, "changed": changed}


def _probes(store: Store, namespace: str, known: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Those of the diagnosis. Where nothing was diagnosed, as in a failover of what is whole, nothing was repaired
    either: then what was read before the fence."""
    if "probes" in known or "log" not in store.capabilities():
        return known.get("probes") or []
    with store.reader() as reader:
        return fix_probes(reader=reader, namespace=namespace, before_at=microseconds(known.get("fenced_at")))


def _served(store: Store, namespace: str) -> bool:
    with store.reader() as reader:
        return reader.namespace(namespace).state == "serving"
