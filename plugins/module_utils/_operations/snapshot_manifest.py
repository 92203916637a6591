# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a manifest says about a finished scan, and whether the snapshot is to be trusted.

PRIVATE to the collection.
"""
from __future__ import annotations

import hashlib
import time
import typing as t

from .._model import LogEntry, NamespaceState, Record, StoreIdentity
from .._repository import SnapshotInfo
from .._repository.chunks import NamespaceDigest
from .._repository.manifest import SNAPSHOT_FORMAT, Index
from . import lost_ttl
from .commands import counted, run
from .snapshot_check import Tally

DROP = 0.30
REWRITTEN = 0.50
FEW = (10, 100)  # below so many records a drop, or a rewrite, says nothing


class Scanned(t.NamedTuple):
    """One point of a store, read to its end."""

    at: int
    identity: StoreIdentity
    states: t.List[NamespaceState]
    parts: t.List[t.Tuple[str, Tally]]  # in key order within a namespace
    log: t.Dict[str, Tally]
    packs: t.List[t.List[t.Any]]
    moved: t.List[str]  # namespaces that changed while they were read; only where an engine has no point in time
    dropped: t.List[str]  # why something may be missing, in words; only where a server drops what it has no room for


def summary(
    scanned: Scanned, capabilities: t.Collection[str], former: t.Mapping[str, SnapshotInfo]
) -> tuple[Index, dict[str, dict[str, t.Any]]]:
    """The index, and per namespace what the manifest says. ``former``: of each its last good snapshot."""
    index: Index = {}
    entries: dict[str, dict[str, t.Any]] = {}
    parts: dict[str, list[Tally]] = {}
    for namespace, tally in scanned.parts:
        parts.setdefault(namespace, []).append(tally)
    for state in scanned.states:
        tallies = parts[state.name]
        log = scanned.log[state.name]
        records = [chunk for tally in tallies for chunk in tally.chunks()]
        index[state.name] = {"records": records, "log": log.chunks()}
        digest = NamespaceDigest()
        for tally in tallies:
            digest.merge(tally.rows, tally.total)
        entries[state.name] = {
            "records": digest.count,
            "tombstones": sum(tally.tombstones for tally in tallies),
            "isolated": sum(tally.isolated for tally in tallies),
            "damaged": sum(tally.damaged for tally in tallies),
            "unopenable": sum(tally.unopenable for tally in tallies),
            "overwritten": sum(tally.overwritten for tally in tallies),
            "digest": digest.hexdigest(),
            "chunks": len(records),
            "log_entries": log.rows,
            "holes": sum(len(tally.holes) for tally in [*tallies, log]),
            "generation": state.generation,
            "state": state.state,
            "ttl": lost_ttl.saved(state, capabilities, former.get(state.name)),
        }
    return index, entries


def suspicions(
    entries: t.Mapping[str, t.Mapping[str, t.Any]], former: t.Mapping[str, SnapshotInfo], whole: bool
) -> list[str]:
    """Why this snapshot must not push good ones out; each namespace compared with its last good one (``former``)."""
    reasons = []
    for namespace, before in sorted(former.items()):
        old = before.namespaces[namespace]
        new = entries.get(namespace)
        lived = _lives(old)
        if new is None:
            if whole:
                reasons.append(f"namespace {namespace!r} is gone ({lived} records)")
            continue
        lives = _lives(new)
        if lived >= FEW[0] and lives < lived * (1 - DROP):
            reasons.append(f"namespace {namespace!r} dropped from {lived} to {lives} records")
        if lived >= FEW[1] and new["overwritten"] > old["records"] * REWRITTEN:
            share = f"{new['overwritten']} of {old['records']}"
            reasons.append(f"{share} records of namespace {namespace!r} were rewritten")
        if new["damaged"] > old["damaged"]:
            more = f"{new['damaged']} (before: {old['damaged']})"
            reasons.append(f"{more} records of namespace {namespace!r} are damaged")
    return reasons


def unjudged(
    entries: t.Mapping[str, t.Mapping[str, t.Any]], former: t.Mapping[str, SnapshotInfo]
) -> list[str]:
    """What to warn of: damage in what no good snapshot had before, so that this one counts as good with it."""
    return [
        f"{new['damaged']:,} of {counted(new['records'], 'record')} of namespace {name!r:.80} "
        f"{'is' if new['damaged'] == 1 else 'are'} damaged, and no earlier snapshot "
        f"is there to compare with: this one counts as good, with that damage in it. Look at them: {run('scrub')}"
        for name, new in sorted(entries.items())
        if name not in former and new["damaged"]
    ]


def lacking_keys(scanned: Scanned, wrapped: t.Mapping[str, t.Any]) -> dict[str, set[str]]:
    """Namespace → ids of record keys that its records name and that are not among ``wrapped``."""
    found: dict[str, set[str]] = {}
    for namespace, tally in scanned.parts:
        ids = {key for key in tally.key_ids if key and key not in wrapped}
        if ids:
            found.setdefault(namespace, set()).update(ids)
    return found


def _lives(entry: t.Mapping[str, t.Any]) -> int:
    """Records that nobody deleted; what is isolated was not."""
    return int(entry["records"] - entry["tombstones"] + entry.get("isolated", 0))


def body(
    scanned: Scanned,
    entries: dict[str, dict[str, t.Any]],
    *,
    snapshot: str,
    name: str,
    purpose: str,
    incident: str | None,
    packed: bytes,
    references: dict[str, t.Any],
    predecessor: str | None,
    reasons: list[str],
) -> dict[str, t.Any]:
    """The manifest. docs/snapshot_format.md explains every field."""
    tallies = [tally for _namespace, tally in scanned.parts] + list(scanned.log.values())
    return {
        "format": SNAPSHOT_FORMAT,
        "code": "hmac",
        "tool": "memops.agent_memory 1",
        "snapshot": snapshot,
        "name": name,
        "purpose": purpose,
        "incident": incident,
        "at": scanned.at,
        "created": time.time_ns() // 1000,
        "store": {
            "store_id": scanned.identity.store_id,
            "lineage": scanned.identity.lineage,
            "engine": scanned.identity.engine,
            "layout": scanned.identity.layout,
        },
        "columns": list(Record._fields),
        "log_columns": list(LogEntry._fields),
        "point": {"epoch": scanned.identity.epoch, "sequence": scanned.identity.sequence},
        "log_last_id": max((tally.last_id for tally in scanned.log.values()), default=0),
        "consistency": "fuzzy" if scanned.moved else "point-in-time",
        "namespaces": entries,
        "keys": sorted({key for _namespace, tally in scanned.parts for key in tally.key_ids if key}),
        "packs": scanned.packs,
        "index": {"size": len(packed), "sha256": hashlib.sha256(packed).hexdigest()},
        "references": references,
        "predecessor": predecessor,
        "suspect": bool(reasons),
        "reasons": reasons,
        "bytes": {
            "sent": sum(tally.sent for tally in tallies),
            "referenced": sum(tally.referenced for tally in tallies),
            "stored": sum(pack[1] for pack in scanned.packs) + len(packed),
        },
    }


def result_of(
    manifest: t.Mapping[str, t.Any],
    changed: bool,
    warnings: list[str],
    examples: dict[str, list[str]],
    holes: dict[str, list[t.Any]],
) -> dict[str, t.Any]:
    told = ("snapshot", "name", "purpose", "incident", "suspect", "reasons", "point", "at", "namespaces", "bytes")
    return {
        "changed": changed,
        **{key: manifest[key] for key in told},
        "damaged": {namespace: entry["damaged"] for namespace, entry in manifest["namespaces"].items()},
        "examples": examples,
        "holes": holes,
        "base": next(iter(manifest["references"]), None),
        "warnings": warnings,
    }
