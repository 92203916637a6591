# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which snapshots a repository has: found by what was asked, with their verification and their holds. Changes nothing.

PRIVATE to the collection.
"""

from __future__ import annotations

import dataclasses
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._errors import MemoryOpsError, RepositoryUnavailable
from .._repository import holds
from .._repository.catalogue import read_checks
from .incident import rfc3339


@dataclasses.dataclass(frozen=True)
class Search:
    """Which snapshots are wanted; every part that is set has to hold. Times are µs since 1970, both ends included."""

    namespace: str | None = None
    since: int | None = None
    until: int | None = None
    purposes: frozenset[str] = frozenset()
    verdict: str | None = None  # of the newest verification; "unverified": there was none
    last_good_before: int | None = None  # only the newest good one of this time or earlier

    def takes(self, info: t.Any) -> bool:
        """As far as the manifest tells. One that cannot be read has no time and no purpose to be found by."""
        if self.namespace is not None and self.namespace not in info.namespaces:
            return False
        if self.purposes and (info.problem or info.purpose not in self.purposes):
            return False
        timed = (self.since, self.until, self.last_good_before) != (None, None, None)
        if timed and (info.problem or not (self.since or 0) <= info.at <= (self.until or info.at)):
            return False
        return self.last_good_before is None or bool(info.good and info.at <= self.last_good_before)


def snapshots(
    repository: t.Any, name: str, keyring: t.Any | None, search: Search | None = None
) -> list[dict[str, t.Any]]:
    """The snapshots of a cluster, newest first; without a keyring their manifests are not authenticated.

    ``verified`` is the newest verification, {verdict, depth, at}, or None; it is looked up where the search asks
    for it, and is believed only as far as it authenticates. ``holds`` are those that stand, {hold, by, reason, at}, and
    are there with a keyring only.
    """
    wanted = search or Search()
    found: list[dict[str, t.Any]] = []
    for info in repository.snapshots(name, keyring):
        if not wanted.takes(info):
            continue
        one = _shown(info)
        if wanted.verdict is not None:
            one["verified"] = verified(repository, name, keyring, info.id)
            if (one["verified"] or {"verdict": "unverified"})["verdict"] != wanted.verdict:
                continue
        found.append(one)
        if wanted.last_good_before is not None:
            break
    if keyring is not None and found:

        def held(one: dict[str, t.Any]) -> list[dict[str, t.Any]]:
            stand = holds.standing(repository.objects, name, one["snapshot"], keyring)
            return [{**hold, "at": rfc3339(hold["at"])} for hold in stand]

        with ThreadPoolExecutor(min(8, len(found))) as pool:
            for one, stand in zip(found, pool.map(held, found)):
                one["holds"] = stand
    return found


def verified(repository: t.Any, name: str, keyring: t.Any | None, snapshot_id: str) -> dict[str, t.Any] | None:
    """The newest verification of a snapshot; None: there was none that authenticates. Errors: RepositoryUnavailable."""
    secret = None
    if keyring is not None:
        try:
            secret = repository.snapshot(name, snapshot_id, keyring).secret
        except RepositoryUnavailable:
            raise
        except MemoryOpsError:
            pass  # it cannot be opened any more; that it was found damaged is still told
    checks = [one for one in read_checks(repository.objects, name, snapshot_id, secret) if one.get("verdict")]
    if not checks:
        return None
    return {"verdict": checks[-1]["verdict"], "depth": checks[-1]["depth"], "at": rfc3339(checks[-1]["at"])}


def _shown(info: t.Any) -> dict[str, t.Any]:
    return {
        "snapshot": info.id,
        "purpose": info.purpose,
        "at": rfc3339(info.at),
        "epoch": info.epoch,
        "sequence": info.sequence,
        "good": info.good,
        "suspect": info.suspect,
        "accepted": info.accepted,
        "authenticated": info.authenticated,
        "reasons": info.reasons,
        "problem": info.problem,
        "incident": info.incident,
        "bytes": info.bytes,
        "references": info.references,
        "namespaces": {
            k: {"records": v.get("records"), "damaged": v.get("damaged")} for k, v in info.namespaces.items()
        },
    }
