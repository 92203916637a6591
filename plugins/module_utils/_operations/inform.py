# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a store holds, for people and for plays. Changes nothing.

PRIVATE to the collection.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._store import Store
from .incident import rfc3339
from .release_records import isolated


def inform(store: Store) -> dict[str, t.Any]:
    """{identity, capabilities, warnings, namespaces: [{…, records, isolated}], incidents: [{…}]}, times as RFC 3339."""
    with store.reader() as reader:
        out = {state.name: isolated(store, state.name) for state in reader.namespaces()}
        namespaces = [
            {
                **dataclasses.asdict(state),
                "records": reader.count(state.name),
                "isolated": out[state.name],
                "restored_at": rfc3339(state.restored_at),
            }
            for state in reader.namespaces()
        ]
        identity = dataclasses.asdict(reader.identity)
    return {
        "identity": identity,
        "capabilities": sorted(store.capabilities()),
        "warnings": store.warnings(),
        "namespaces": namespaces,
        "incidents": [
            {
                "incident": state.incident,
                "namespace": state.namespace,
                "state": state.state,
                "owner": state.owner,
                "opened": rfc3339(state.opened),
                "lease_until": rfc3339(state.lease_until),
                "facts": sorted(state.facts),
            }
            for state in store.incidents()
        ],
    }


def snapshots(
    repository: t.Any, name: str, keyring: t.Any | None, namespace: str | None = None
) -> list[dict[str, t.Any]]:
    """The snapshots of a cluster, newest first; without a keyring their manifests are not authenticated."""
    found = []
    for info in repository.snapshots(name, keyring):
        if namespace is not None and namespace not in info.namespaces:
            continue
        found.append(
            {
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
        )
    return found
