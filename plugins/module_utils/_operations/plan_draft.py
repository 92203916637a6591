# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan that a diagnosis drafts: made over the snapshots that can be read.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import SnapshotUnusable
from .._store import Reader, Store
from . import held_records, plan, plan_unlogged, sources
from . import incident as incidents
from .access_log_reading import Log
from .acknowledged import Acknowledged
from .incoming import Incoming
from .plan_evidence import Evidence
from .plan_gap import Base, Gap
from .plan_unlogged import Window

Made = t.TypeVar("Made")


class Case(t.NamedTuple):
    """What is planned for, and with what."""

    store: Store
    namespace: str
    keyring: t.Any
    reader: Reader
    chosen: sources.Sources
    damage_file: str | None
    target: str  # the plan's file


def drafted(case: Case, log: Log) -> dict[str, t.Any]:
    """plan.make over the best sources; its summary."""
    settled = incidents.settled_version(case.store, case.namespace)
    acknowledged = Acknowledged(log.believed, existing=True)

    def make() -> dict[str, t.Any]:
        base = case.chosen.snapshots[0].info if case.chosen.snapshots else None
        copies = [sources.Copies(snapshot, case.chosen.note) for snapshot in case.chosen.snapshots]
        later = settled is not None and base is not None and (base.epoch, base.sequence) >= settled
        evidence = Evidence(
            case.namespace,
            log.distrust,
            case.keyring,
            log_intact=log.health["intact"],
            rotated_to=log.review.rotated_to,
            now=case.reader.at,
            acknowledged=acknowledged,
            settled=settled if later else None,
            held=held_records.outstanding(case.store, case.namespace),
            gap=Gap(Base(copies), log.pruned),
        )
        return plan.make(
            reader=case.reader,
            namespace=case.namespace,
            sources=copies,
            evidence=evidence,
            damage_file=case.damage_file,
            target=case.target,
        )

    try:
        return _over_the_rest(case.chosen, make)
    finally:
        acknowledged.close()


def drafted_unlogged(
    case: Case, store_params: t.Mapping[str, t.Any], window: Window
) -> tuple[dict[str, t.Any], list[dict[str, t.Any]]]:
    """plan_unlogged.make over the best sources: (summary, probes)."""
    today = Incoming(case.store, store_params, case.namespace).today

    def make() -> tuple[dict[str, t.Any], list[dict[str, t.Any]]]:
        return plan_unlogged.make(
            reader=case.reader,
            namespace=case.namespace,
            sources=[(one.info.at, sources.Copies(one, case.chosen.note, today)) for one in case.chosen.snapshots],
            window=window,
            now=case.reader.at,
            held=held_records.outstanding(case.store, case.namespace),
            damage_file=case.damage_file,
            target=case.target,
        )

    return _over_the_rest(case.chosen, make)


def _over_the_rest(chosen: sources.Sources, make: t.Callable[[], Made]) -> Made:
    """A snapshot that turns out to be damaged is passed over and the rest used."""
    while True:
        try:
            return make()
        except SnapshotUnusable as exc:
            bad = getattr(exc, "snapshot", None) or (chosen.snapshots[0].id if chosen.snapshots else None)
            if bad is None:
                raise
            chosen.drop(bad, exc.message)
